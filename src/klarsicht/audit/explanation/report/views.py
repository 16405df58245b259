"""Pictures of a run beside what they show: clusters, artifacts, parts, groups that were seen, and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.report.noted_classes import is_small, read_picture
from klarsicht.audit.explanation.report.rows import (
    EvidenceRow,
    ExceptionPictureRow,
    PartPictureRow,
    SeenPictureRow,
    ViewRow,
)
from klarsicht.audit.results import seen_groups, sufficiency, verdicts
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_places
from klarsicht.audit.results.questions import COPIES_FILE
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.results.seen_groups import SeenGroup
from klarsicht.audit.results.sufficiency import ClassProfile
from klarsicht.audit.results.surroundings import ClassSurroundings, Surroundings
from klarsicht.audit.results.verdict_lines import UNKNOWN_RUN, VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes
from klarsicht.ground.run_folder.store import RunStore

VIEWS = "views"  # the table of pictures and points, and the step whose marker lists the pictures
EVIDENCE = "evidence"  # the same of the pictures of artifacts
PROFILES = "profiles"  # the same of the pictures of parts
EXCEPTIONS = "exceptions"  # the same of the pictures of images that do not follow their class, and of some that do
SEEN_PICTURES = "seen"  # the same of the pictures of groups that no verdict names
COPIES_SHOWN, COPIES_IN_ROW = 20, 8  # groups of copies on the page, and images of each


@dataclass(frozen=True)
class Thumbnail:
    """An image with and without its relevance, as data URIs."""

    path: str
    plain: str
    relevance: str


@dataclass(frozen=True)
class ClusterView:
    """Content of the page for one suspect cluster."""

    entry: Entry
    points: Sequence[ViewRow]
    members: tuple[Thumbnail, ...]
    others: tuple[Thumbnail, ...]

    @property
    def sampled(self) -> bool:
        """Whether the scatter plot shows only a sample of the images."""
        return len(self.points) < self.entry.n


@dataclass(frozen=True)
class ArtifactView:
    """Content of the page for an artifact of a class: its line in the table of verdicts, its place
    (`detection_rows.read_places`), and (path, data URI) of images with the artifact and of others."""

    line: VerdictLine
    place: str
    carriers: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> Verdict:
        return self.line.verdict

    @property
    def number(self) -> int:
        """Number of the artifact in its class, from 1."""
        return self.line.number

    @property
    def anchor(self) -> str:
        """Name of its section on the page."""
        return f"f{self.verdict.target}" + ("" if self.number == 1 else f"-{self.number}")

    @property
    def headline(self) -> str:
        return self.line.headline_at(self.place)

    @property
    def next_step(self) -> tuple[str, str]:
        return self.line.next_step(UNKNOWN_RUN)  # a report is sent to people who have the run elsewhere


def collect_artifacts(store: RunStore) -> list[ArtifactView]:
    """Collect the artifactual classes with images that carry the artifact and others; empty without evidence."""
    if not (verdicts.is_quantified(store) and store.has_table(EVIDENCE) and store.is_finished(EVIDENCE)):
        return []
    records: list[EvidenceRow] = store.table(EVIDENCE).to_pylist()

    def pictures(target: int, number: int, member: bool) -> tuple[tuple[str, str], ...]:
        which = target, number, member
        mine = [r for r in records if (r["target"], r["artifact"], r["member"]) == which]
        return tuple((r["path"], read_picture(store, r["picture"], EVIDENCE)) for r in mine)

    quantification: Quantification = verdicts.read_verdicts(store)
    targets = {r["target"] for r in records if not is_small(r["picture"])}
    reviewed = {one.target for one in quantification if one.has_group} & targets
    places = read_places(store, quantification)
    return [
        ArtifactView(line, places[which], pictures(*which, True), pictures(*which, False))
        for line in quantification.lines
        if (which := (line.verdict.target, line.number))[0] in reviewed
    ]


@dataclass(frozen=True)
class ProfileView:
    """Content of the page for the profile of a class: (part, data URI) of an image of which that part was kept."""

    profile: ClassProfile
    path: str
    pictures: tuple[tuple[str, str], ...]


def collect_profiles(store: RunStore) -> list[ProfileView]:
    """Collect the classes whose parts are drawn; empty where `audit shortcuts` was not run."""
    if not (sufficiency.is_measured(store) and store.has_table(PROFILES) and store.is_finished(PROFILES)):
        return []
    pictures_of: dict[int, list[PartPictureRow]] = {}
    rows: list[PartPictureRow] = store.table(PROFILES).to_pylist()
    for record in rows:
        pictures_of.setdefault(record["target"], []).append(record)

    def pictures(records: list[PartPictureRow]) -> tuple[tuple[str, str], ...]:
        return tuple((one["part"], read_picture(store, one["picture"], PROFILES)) for one in records)

    return [
        ProfileView(profile, pictures_of[profile.target][0]["path"], pictures(pictures_of[profile.target]))
        for profile in sufficiency.read_sufficiency(store)
        if profile.target in pictures_of
    ]


@dataclass(frozen=True)
class SurroundingsView:
    """Content of the page for a class that shares its surroundings: (path, data URI) of exceptions, and of others."""

    surroundings: ClassSurroundings
    exceptions: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]

    @property
    def anchor(self) -> str:
        """Name of its section on the page."""
        return f"x{self.surroundings.target}"


def collect_surroundings(store: RunStore, around: Surroundings | None) -> list[SurroundingsView]:
    """Collect the classes with pictures of exceptions, in the order of the run."""
    if around is None or not (store.has_table(EXCEPTIONS) and store.is_finished(EXCEPTIONS)):
        return []
    rows: list[ExceptionPictureRow] = store.table(EXCEPTIONS).to_pylist()

    def pictures(target: int, exceptional: bool) -> tuple[tuple[str, str], ...]:
        mine = [row for row in rows if (row["target"], row["exceptional"]) == (target, exceptional)]
        return tuple((row["path"], read_picture(store, row["picture"], EXCEPTIONS)) for row in mine)

    targets = {row["target"] for row in rows}
    return [
        SurroundingsView(one, pictures(one.target, True), pictures(one.target, False))
        for one in around
        if one.target in targets
    ]


@dataclass(frozen=True)
class SeenView:
    """Content of the page for a group that no verdict names: its number, and (path, data URI) of some of its images."""

    number: int
    group: SeenGroup
    pictures: tuple[tuple[str, str], ...]


def collect_seen_groups(store: RunStore) -> list[SeenView]:
    """Collect the groups that no verdict names and that have pictures."""
    if not (store.has_table(SEEN_PICTURES) and store.is_finished(SEEN_PICTURES)):
        return []
    pictures: dict[int, list[tuple[str, str]]] = {}
    rows: list[SeenPictureRow] = store.table(SEEN_PICTURES).to_pylist()
    for row in rows:
        pictures.setdefault(row["group"], []).append((row["path"], read_picture(store, row["picture"], SEEN_PICTURES)))
    groups = enumerate(seen_groups.load_seen_groups(store))
    return [SeenView(i, group, tuple(pictures[i])) for i, group in groups if i in pictures]


def read_copies(store: RunStore) -> dict[str, Any] | None:
    """Read the record of `audit duplicates` with its first groups, each with `images`: (path, label, split, data URI);
    None where it was not run."""
    if not store.has_file(COPIES_FILE):
        return None
    record = store.read_json(COPIES_FILE)
    groups = record["groups"][:COPIES_SHOWN]
    rows = sorted({row for group in groups for row in group["rows"][:COPIES_IN_ROW]})
    thumbnails = store.array("thumbnails")[np.array(rows, np.int64)]
    uri = {row: data_uri(png_bytes(pixels)) for row, pixels in zip(rows, thumbnails, strict=True)}

    def images(group: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        each = zip(group["rows"], group["paths"], group["labels"], group["splits"], strict=True)
        return [(path, label, split, uri[row]) for row, path, label, split in each if row in uri]

    return {**record, "groups": [group | {"images": images(group)} for group in groups]}


def collect_clusters(store: RunStore, ranking: Ranking) -> list[ClusterView]:
    """Collect the illustrated suspects, in the order of the ranking."""
    if not (store.has_table(VIEWS) and store.is_finished(VIEWS)):
        return []
    rows: list[ViewRow] = store.table(VIEWS).to_pylist()
    records = [row for row in rows if not is_small(row["picture"])]
    shown = [entry for entry in ranking if any(r["target"] == entry.target for r in records)]
    return [_cluster_view(store, entry, [r for r in records if r["target"] == entry.target]) for entry in shown]


def _cluster_view(store: RunStore, entry: Entry, records: Sequence[ViewRow]) -> ClusterView:
    pictured = sorted((r for r in records if r["picture"]), key=lambda r: -_evidence(store, r["row"], entry.target))
    plates = [(r["member"], _thumbnail(store, r)) for r in pictured]
    points = sorted(records, key=lambda r: r["member"])
    members, others = (tuple(plate for member, plate in plates if member == side) for side in (True, False))
    return ClusterView(entry, points, members, others)


def _evidence(store: RunStore, row: int, target: int) -> float:
    """Return the centred logit of a row of the run for an output; 0 without stored logits."""
    if not store.has_array("logits"):
        return 0.0
    logits = np.asarray(store.array("logits")[row], float)
    return float(logits[target] - logits.mean())


def _thumbnail(store: RunStore, record: ViewRow) -> Thumbnail:
    plain, relevance = (read_picture(store, f"{record['picture']}{end}.jpg", VIEWS) for end in ("", "-relevance"))
    return Thumbnail(record["path"], plain, relevance)


def fit_to_square(points: NDArray[Any], side: float = 400, margin: float = 14) -> NDArray[Any]:
    """Scale points (n, 2) into a square picture of `side` with a margin, both in its units."""
    low, high = points.min(0), points.max(0)
    return np.asarray(margin + (points - low) / np.where(high > low, high - low, 1) * (side - 2 * margin))
