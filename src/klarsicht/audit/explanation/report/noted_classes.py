"""Noted classes of a report that have no section of their own: all their members, and a few small pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from klarsicht.audit.explanation.report.rows import PictureRow
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.pictures.encoded_pictures import data_uri
from klarsicht.ground.run_folder.store import RunStore

SMALL = "-small"  # end of the names of small pictures
SMALL_DRAWN = 3  # small pictures of a class
MAX_LISTED_BYTES = 2_500_000  # of all lists with their small pictures, so that the page can be mailed
PICTURE_TABLES = ("evidence", "views")  # of the pictures of detections and clusters, and their steps


@dataclass(frozen=True)
class NotedClass:
    """Noted class of a report: its verdict, of the quantification or else of the ranking, number of images, decision of
    a person, if any; the names of the members as a common prefix and the rest of each; and (name, data URI) of small
    pictures of a few members."""

    name: str
    target: int
    verdict: str
    n: int
    decision: str
    prefix: str
    members: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...] = ()


def is_noted(entry: Entry) -> bool:
    """Say whether a person should look at a class of a ranking: its cluster raises it, or something was found in it."""
    found = entry.judged is not None and (entry.judged.artifactual or entry.judged.followed)
    return found or entry.is_raised or (entry.decided is not None and entry.decided.is_artifact)


def list_noted_classes(
    store: RunStore, ranking: Ranking, quantification: Quantification | None, targets: Collection[int]
) -> list[NotedClass]:
    """List the noted classes but those of the outputs `targets`, in the order of the quantification, then the ranking.
    Members are those that a person decided, else those of the detection, else those of the cluster."""
    keys = store.texts("corpus", "key")
    entries = {entry.target: entry for entry in ranking}
    noted_classes: dict[int, NotedClass] = {}
    for verdict in quantification or ():
        if verdict.has_group:
            noted_classes[verdict.target] = _make_noted_class(verdict, verdict.rows, entries.get(verdict.target), keys)
    for entry in ranking:
        if is_noted(entry) and entry.target not in noted_classes:
            noted_classes[entry.target] = _make_noted_class(entry, entry.rows, entry, keys)
    others = [noted for target, noted in noted_classes.items() if target not in targets]
    text = sum(len(name) + 1 for noted in others for name in noted.members)
    return add_small_pictures(others, read_small_pictures(store), MAX_LISTED_BYTES - text)


def _make_noted_class(
    found: Verdict | Entry, rows: Sequence[int], entry: Entry | None, keys: Sequence[str]
) -> NotedClass:
    """Make a noted class of what was found; its members are the `rows`, unless a person decided others."""
    decided = entry.decided.members if entry is not None and entry.decided is not None else ()
    members = [keys[row] for row in decided or rows]
    prefix = common_prefix(members)
    rest = tuple(one[len(prefix) :] for one in members)
    return NotedClass(found.name, found.target, found.verdict, found.n, entry.decision if entry else "", prefix, rest)


def common_prefix(names: Sequence[str]) -> str:
    """Return the common beginning of two or more names, at least a character shorter than each; empty of fewer."""
    if len(names) < 2:
        return ""
    low, high = min(names), max(names)
    most = min(map(len, names)) - 1
    same = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: max(min(next(same, most), most), 0)]


def read_small_pictures(store: RunStore) -> dict[int, list[tuple[str, str]]]:
    """Read (name, data URI) of the small pictures of each output; those of detections go before those of clusters."""
    pictures: dict[int, list[tuple[str, str]]] = {}
    for table in PICTURE_TABLES:
        if store.has_table(table) and store.is_finished(table):
            own: dict[int, list[tuple[str, str]]] = {}
            rows: list[PictureRow] = store.table(table).to_pylist()
            for row in rows:
                if is_small(row["picture"]):
                    uri = read_picture(store, f"{row['picture'].removesuffix('.jpg')}.jpg", table)
                    own.setdefault(row["target"], []).append((row["path"], uri))
            pictures = own | pictures
    return pictures


def read_picture(store: RunStore, name: str, step: str) -> str:
    """Read a picture of a step as a data URI."""
    return data_uri(store.read_unit_file(name, step), "image/jpeg")


def is_small(picture: str) -> bool:
    """Say whether a picture of this name is small."""
    return picture.removesuffix(".jpg").endswith(SMALL)


def add_small_pictures(
    classes: Sequence[NotedClass], pictures: dict[int, list[tuple[str, str]]], most: int
) -> list[NotedClass]:
    """Add pictures to classes, `most` bytes in all: as many of each class as fit, or else one each of the first
    classes."""
    mine = [pictures.get(noted.target, [])[:SMALL_DRAWN] for noted in classes]
    for count in range(SMALL_DRAWN, 0, -1):
        pictures_of_class = [some[:count] for some in mine]
        if sum(len(uri) for some in pictures_of_class for _, uri in some) <= most:
            break
    left, added = most, []
    for noted, some in zip(classes, pictures_of_class, strict=True):
        left -= sum(len(uri) for _, uri in some)
        added.append(replace(noted, pictures=tuple(some)) if left >= 0 else noted)
    return added
