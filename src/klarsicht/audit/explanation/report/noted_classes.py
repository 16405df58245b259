"""Noted classes of a report that have no section of their own: all their members, and a few small pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from klarsicht.audit.explanation.report.rows import PictureRow
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
    """Noted class of a report.

    Attributes:
        name, target: the class.
        verdict: of the quantification, or else of the ranking.
        n: images of the class.
        decision: of a person, in words; empty without one.
        prefix: common beginning of the members' names.
        members: the rest of the name of each member in the corpus.
        pictures: (name, data URI) of small pictures of a few members.
    """

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

    Members are those that a person decided, else those of the detection, else those of the cluster.
    """
    keys = store.texts("corpus", "key")
    entries = {entry.target: entry for entry in ranking}
    noted_classes: dict[int, NotedClass] = {}
    for verdict in quantification or ():
        if verdict.needs_review:
            decided = entries.get(verdict.target)
            rows = _decided_rows(decided) or verdict.rows
            words = decided.decision if decided else ""
            noted_classes[verdict.target] = _make_noted_class(
                verdict.name, verdict.target, verdict.verdict, verdict.n, words, rows, keys
            )
    for entry in ranking:
        if is_noted(entry) and entry.target not in noted_classes:
            rows = _decided_rows(entry) or entry.rows
            noted_classes[entry.target] = _make_noted_class(
                entry.name, entry.target, entry.verdict, entry.n, entry.decision, rows, keys
            )
    others = [noted for target, noted in noted_classes.items() if target not in targets]
    text = sum(len(name) + 1 for noted in others for name in noted.members)
    return add_small_pictures(others, read_small_pictures(store), MAX_LISTED_BYTES - text)


def _decided_rows(entry: Entry | None) -> tuple[int, ...]:
    """Return the rows that a person decided to be members; empty without such a decision."""
    return () if entry is None or entry.decided is None else entry.decided.members or ()


def _make_noted_class(
    name: str, target: int, verdict: str, n: int, decision: str, rows: Sequence[int], keys: Sequence[str]
) -> NotedClass:
    members = [keys[row] for row in rows]
    prefix = common_prefix(members)
    return NotedClass(name, target, verdict, n, decision, prefix, tuple(one[len(prefix) :] for one in members))


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
            for row in _small_rows(store, table):
                content = store.read_unit_file(_file(row), table)
                own.setdefault(row["target"], []).append((row["path"], data_uri(content, "image/jpeg")))
            pictures = own | pictures
    return pictures


def _small_rows(store: RunStore, table: str) -> Iterator[PictureRow]:
    rows: list[PictureRow] = store.table(table).to_pylist()
    return (row for row in rows if is_small(row["picture"]))


def is_small(picture: str) -> bool:
    """Say whether a picture of this name is small."""
    return picture.removesuffix(".jpg").endswith(SMALL)


def _file(row: PictureRow) -> str:
    return f"{row['picture'].removesuffix('.jpg')}.jpg"


def add_small_pictures(
    classes: Sequence[NotedClass], pictures: dict[int, list[tuple[str, str]]], most: int
) -> list[NotedClass]:
    """Add pictures to classes, `most` bytes in all: as many of each class as fit, and where one of each is too much, of
    the first classes."""
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
