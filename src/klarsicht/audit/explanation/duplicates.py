"""Leaks and repeats: exact, near, mirrored and turned copies among the images of a run or a corpus, also across labels
and splits."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.skipped_images import SkippedImages
from klarsicht.audit.explanation.engines import parse_engine
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import LOCAL_ENGINE, AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import open_data, select_data, settings_of_run
from klarsicht.audit.explanation.steps.step_units import run_step
from klarsicht.audit.explanation.steps.unchanged_inputs import require_corpus
from klarsicht.audit.results.questions import COPIES_FILE, UNSURE_COPY
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.stored_images import DecodedImage
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.run_folder.shards import Shard, Sharing
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.imaging.copies import BINS, SIDE, UPRIGHT, Copies, chance_correlation, find_copies

THUMBNAILS, DIGESTS, COPIES, OTHERS = "thumbnails", "digests", "copy_pairs", "compared_pairs"
DIGEST_BYTES = 16  # of the hash of an image's pixels; zeros where it could not be read
ROWS_IN_UNIT = 4096  # of images whose copies are looked for at once
EXACT_COPY = "exact"
NEAR_COPY = "near"
TURNED_COPY = "turned"  # mirrored, or turned by quarter turns
MUTUAL = 0.5  # share of a group's pairs that are copies of each other, below which it is a chain


class CopyRow(TypedDict):
    """Pair of copies: rows of the run, the correlation of their details, and the pose that lays the second on the
    first, see `copies.lay`."""

    first: int
    second: int
    correlation: float
    pose: int


class DuplicateRow(TypedDict):
    """Row of the table `duplicates`: an image of a group of copies, whose number is `group`."""

    group: int
    row: int
    path: str
    label: str
    split: str
    kind: str
    correlation: float
    crosses_labels: bool
    crosses_splits: bool


COPY_ROWS, DUPLICATE_ROWS = map(schema_of, (CopyRow, DuplicateRow))


@dataclass(frozen=True)
class CopyGroup:
    """Group of images that are copies of each other, directly or by others of the group: rows of the run and what the
    corpus says of them, keys being names relative to it; whether all have the same pixels; least correlation of details
    among the pairs that were found, 1 of exact copies; and the share of its pairs that are copies, above 0 to 1. In a
    group of the kind TURNED_COPY some are mirrored or turned. Images of the kind UNSURE_COPY need not be copies:
    unrelated images of the corpus reach this correlation, too."""

    rows: tuple[int, ...]
    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    kind: str
    correlation: float
    mutual: float = 1.0

    def __repr__(self) -> str:
        return f"CopyGroup({len(self.rows)} images, {self.kind!r}, first {self.keys[0]!r})"

    @property
    def chained(self) -> bool:
        """Whether most of its pairs are joined only by images between them, as of pictures that are aligned."""
        return self.mutual < MUTUAL

    @property
    def crosses_labels(self) -> bool:
        """Whether they have different labels: some of these are wrong, or an image shows several classes."""
        return len(set(self.labels)) > 1

    @property
    def crosses_splits(self) -> bool:
        """Whether they are in different splits: what is measured on one was seen in the other."""
        return len(set(self.splits)) > 1

    def to_json(self) -> dict[str, Any]:
        """Return the group as duplicates.json has it."""
        return asdict(self) | {"crosses_labels": self.crosses_labels, "crosses_splits": self.crosses_splits}


@dataclass(frozen=True)
class Duplicates:
    """Copies among images: groups, those that cross splits first, then those that cross labels, larger ones first, and
    groups of images that are only alike last; and the number of images that were compared, and that could not be
    read."""

    groups: tuple[CopyGroup, ...]
    images: int
    unread: int

    def __repr__(self) -> str:
        return f"Duplicates({len(self.copies)} groups of copies among {self.images} images)"

    @property
    def copies(self) -> tuple[CopyGroup, ...]:
        """Groups of copies, without those of images that are only alike."""
        return tuple(group for group in self.groups if group.kind != UNSURE_COPY)

    @property
    def superfluous(self) -> int:
        """Number of images that are copies of another one."""
        return sum(len(group.rows) - 1 for group in self.copies)

    def describe(self) -> str:
        """Say in sentences what was found."""
        doubtful = len(self.groups) - len(self.copies)
        look = (
            f" Images of {doubtful} more group{'s' * (doubtful > 1)} are only as alike as unrelated images of this "
            "corpus can be: look before any is dropped."
            if doubtful
            else ""
        )
        if not self.copies:
            return f"No copies among {self.images} images.{look}"
        crossing = {
            "across splits": sum(group.crosses_splits for group in self.copies),
            "across labels": sum(group.crosses_labels for group in self.copies),
        }
        counts = ", ".join(f"{count} {what}" for what, count in crossing.items() if count)
        sentence = counts or "none across labels or splits"
        groups = f"{len(self.copies)} group{'s' * (len(self.copies) > 1)}"
        chains = sum(group.chained for group in self.copies)
        doubt = (
            f" {chains} of these {'is a chain' if chains == 1 else 'are chains'}, in which most pairs are no copies of "
            "each other and are joined by images between: look before any is dropped, as aligned pictures are alike."
            if chains
            else ""
        )
        laid = sum(group.kind == TURNED_COPY for group in self.copies)
        poses = f" In {laid} of these, images are mirrored or turned." if laid else ""
        copies = f"{self.superfluous} of {self.images} images are copies of others, in {groups}: {sentence}."
        return f"{copies}{poses}{doubt}{look}"

    def to_json(self) -> dict[str, Any]:
        """Return the content of duplicates.json."""
        counts = {"images": self.images, "unread": self.unread, "superfluous": self.superfluous}
        return {"told": self.describe(), **counts, "groups": [group.to_json() for group in self.groups]}


@dataclass(frozen=True)
class OpenedCorpus:
    """Corpus, opened without a model, with the settings by which it is read, and how the work is shared with other
    processes."""

    settings: AuditSettings
    corpus: Corpus
    sharing: Sharing


@dataclass(frozen=True)
class ThumbnailUnits:
    """Work units of `size` rows that store a grey thumbnail and a hash of the pixels of each image."""

    store: RunStore
    corpus: Corpus
    size: int

    step = THUMBNAILS

    def __call__(self, unit: range) -> Written:
        thumbnails = np.zeros((len(unit), SIDE, SIDE), np.uint8)
        digests = np.zeros((len(unit), DIGEST_BYTES), np.uint8)
        for row, picture in decode_rows(self.corpus, unit):
            if not isinstance(picture, ImageError):
                thumbnails[row - unit.start] = make_thumbnail(self.corpus.as_picture(picture))
                digests[row - unit.start] = hash_pixels(picture)
        written = self.store.write_rows(THUMBNAILS, unit.start, thumbnails)
        return written | self.store.write_rows(DIGESTS, unit.start, digests)

    def create_arrays(self) -> None:
        """Create the arrays of thumbnails and hashes."""
        for name, shape in ((THUMBNAILS, (SIDE, SIDE)), (DIGESTS, (DIGEST_BYTES,))):
            self.store.create_array(name, (len(self.corpus), *shape), np.uint8, self.size, THUMBNAILS)

    def try_again(self) -> None:
        """Try the images that finished units could not read; a unit with one that can be read now counts as never
        computed, and so do the copies that were found without it."""
        units = partition(len(self.corpus), self.size)
        done = [units[number] for number in sorted(self.store.done_units(self.step))]
        digests = self.store.array(DIGESTS)
        unread = [row for unit in done for row in unit.start + np.flatnonzero(~digests[unit.start : unit.stop].any(1))]
        pictures = decode_rows(self.corpus, map(int, unread))
        if usable := [row for row, picture in pictures if not isinstance(picture, ImageError)]:
            self.store.discard_step(COPIES)
            self.store.clear_markers(self.step, {row // self.size for row in usable})


@dataclass(frozen=True)
class CopyUnits:
    """Work units that look for the copies of some images among all: `rows`, int (n,), are rows of the run, each image
    once. A unit stores its copies, and counts of the correlations of other pairs."""

    store: RunStore
    rows: NDArray[np.int64]

    step = COPIES

    def create_arrays(self) -> None:
        """Create the array of counts."""
        self.store.create_array(OTHERS, (math.ceil(len(self.rows) / ROWS_IN_UNIT), 2, BINS), np.int64, 1, COPIES)

    def list_reads(self, unit: range) -> Iterator[Read]:
        """List what a unit reads of the run: the thumbnails of all images, which travel once to each worker."""
        yield Read.of_rows(THUMBNAILS, self.rows)

    def __call__(self, unit: range) -> Written:
        copies = find_copies(self.store.array(THUMBNAILS)[self.rows], unit)
        lines = [
            CopyRow(first=int(self.rows[i]), second=int(self.rows[j]), correlation=float(value), pose=int(pose))
            for (i, j), value, pose in zip(copies.pairs, copies.correlation, copies.poses, strict=True)
        ]
        number = unit.start // ROWS_IN_UNIT
        written = self.store.write_part(COPIES, number, pa.Table.from_pylist(lines, COPY_ROWS))
        return written | self.store.write_rows(OTHERS, number, copies.others[None])


@check_arguments
def find_duplicates(
    run: str | Path | RunStore, *, data: Any = None, workers: int = 1, shard: str | None = None,
    max_skipped: float | None = None, engine: str = LOCAL_ENGINE,
) -> Duplicates:  # fmt: skip
    """Find the exact and near copies among the images of a finished run; write them as JSON, as a table and into its
    report. The same call resumes an interrupted one, and tries images again that could not be read. data: where the
    corpus is now, if it moved, or the corpus or sequence of a run of one in Python. workers, shard, engine: see
    `pipeline.run`; results do not depend on them. max_skipped: share of images that may be skipped, see
    `AuditSettings`; by default its own. Raises InputError, RunMismatch: no run in the folder, or data that differ from
    those of the run; TooManySkipped, Unreachable, ProgramFailed: images cannot be decoded, see `Corpus.decode`."""
    store = RunStore.open(run)
    settings = settings_of_run(store, data)
    settings = settings if max_skipped is None else settings.with_values(max_skipped=max_skipped)
    corpus = select_data(settings, None if isinstance(data, str) else data)
    require_corpus(store, corpus)
    if known := store.manifest.get("array_form"):
        corpus = corpus.as_arrays(ArrayForm.from_json(known))
    duplicates = compare_images(store, settings.with_values(engine=engine), corpus, workers, shard)
    page.write_report(store)
    return duplicates


@check_arguments
def find_copies_in(
    data: Any, out: str | Path | None = None, *, decode: str | None = None, path_column: str | None = None,
    label_column: str | None = None, source_column: str | None = None, workers: int = 1, shard: str | None = None,
    max_skipped: float | None = None, engine: str = LOCAL_ENGINE,
) -> Duplicates:  # fmt: skip
    """Find the exact and near copies among the images of a corpus, without a model or a run.

    Args:
        data: path or URL of a corpus, or what it is in Python, see `open_corpus`.
        out: folder for the JSON and the table of copies, where the same call resumes; None: nothing is kept.
        decode, path_column, label_column, source_column: how the corpus is read, see `AuditSettings`.
        workers, shard, max_skipped, engine: see `find_duplicates`; a shard needs `out`.

    Raises:
        UsageError: a shard without `out`; CorpusError: there is no corpus; RunMismatch: `out` holds copies of another
        corpus; StoreError: it holds something else; and as `find_duplicates`.
    """
    if shard is not None and out is None:
        raise UsageError("a shard without a folder", got=shard, rule="shards share a folder", remedy="Give --out.")
    columns = {
        "decode": decode, "path_column": path_column, "label_column": label_column, "source_column": source_column
    }  # fmt: skip
    bounds = {} if max_skipped is None else {"max_skipped": max_skipped}
    place = str(data) if isinstance(data, str | Path) else "in Python"
    settings = AuditSettings.from_mapping({"model": "none", "data": place, "engine": engine, **columns, **bounds})
    corpus = open_data(settings, data)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="klarsicht-")) if out is None else out
        store = RunStore.create(folder, settings=columns, identity={"corpus": corpus.hash})
        return compare_images(store, settings, corpus, workers, shard)


def compare_images(
    store: RunStore, settings: AuditSettings, corpus: Corpus, workers: int, shard: str | None
) -> Duplicates:
    """Compare the images of a corpus in two steps of a store, which resume, and write the copies there."""
    settings = settings.with_values(device="cpu")  # no model runs
    parse_engine(settings.engine)
    with store.share(None if shard is None else Shard.parse(shard)) as share:
        audit = OpenedCorpus(settings, corpus, share)
        size, n = settings.unit, len(corpus)
        work = ThumbnailUnits(store, corpus, size)
        share.once(f"{THUMBNAILS}.arrays", work.create_arrays)
        share.once(f"{THUMBNAILS}.again", work.try_again)
        run_step(audit, store, work, THUMBNAILS, partition(n, size), workers, "thumbnails")
        digests, rows = store.array(DIGESTS)[:], np.unique(corpus.image_numbers, return_index=True)[1]
        readable = rows[digests[rows].any(1)]
        unread = {int(row): "it cannot be decoded" for row in np.setdiff1d(rows, readable)}
        SkippedImages(corpus, settings.max_skipped).add(unread)
        units = partition(len(readable), ROWS_IN_UNIT)
        search = CopyUnits(store, readable)
        share.once(f"{COPIES}.arrays", search.create_arrays)
        run_step(audit, store, search, COPIES, units, workers, "copies")
        pairs = store.table(COPIES, COPIES).to_pylist() if units else []
        copies = Copies.of(
            np.array([(pair["first"], pair["second"]) for pair in pairs], np.int64).reshape(-1, 2),
            np.array([pair["correlation"] for pair in pairs], float),
            np.array([pair["pose"] for pair in pairs], np.int64),
        )
        others = store.array(OTHERS)[:].sum(0)
        chances = chance_correlation(others[0]), chance_correlation(others[0], int(others.sum()))
        groups = group_copies(corpus, copies, readable, digests, chances)
        duplicates = Duplicates(groups, len(readable), len(rows) - len(readable))
        share.once(COPIES_FILE, lambda: write_duplicates(store, duplicates))
    return duplicates


def write_duplicates(store: RunStore, duplicates: Duplicates) -> None:
    """Write copies as JSON, and as a table with a line for each image."""
    store.write_json(COPIES_FILE, duplicates.to_json())
    rows = [
        DuplicateRow(
            group=number, row=row, path=path, label=label, split=split, kind=group.kind, correlation=group.correlation,
            crosses_labels=group.crosses_labels, crosses_splits=group.crosses_splits,
        )
        for number, group in enumerate(duplicates.groups)
        for row, path, label, split in zip(group.rows, group.paths, group.labels, group.splits, strict=True)
    ]  # fmt: skip
    store.write_table("duplicates", pa.Table.from_pylist(rows, DUPLICATE_ROWS))


def make_thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Resize a picture to grey (SIDE, SIDE), whatever its shape, with all of its pixels."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hash_pixels(picture: DecodedImage) -> NDArray[np.uint8]:
    """Hash size, mode and pixels of a picture, or type, shape and numbers of an array: uint8 (DIGEST_BYTES,)."""
    told = (picture.mode, picture.size) if isinstance(picture, Image.Image) else (picture.dtype.str, picture.shape)
    head = f"{told[0]}{told[1]}".encode()
    return np.frombuffer(hashlib.sha256(head + picture.tobytes()).digest()[:DIGEST_BYTES], np.uint8)


def group_copies(
    corpus: Corpus,
    copies: Copies,
    rows: NDArray[np.int64],
    digests: NDArray[np.uint8],
    chances: tuple[float, float] = (0.0, 0.0),
) -> tuple[CopyGroup, ...]:
    """Group images that are copies, exact or near, directly or by others, among the `rows`, int (n,), of the run that
    were compared; `digests`, uint8 (N, DIGEST_BYTES), are hashes of the pixels of all rows. Pairs that correlate by
    less than `chances`, that of upright pairs and that of those in other poses, make groups of their own, of the kind
    UNSURE_COPY."""
    same = np.unique(digests[rows], axis=0, return_inverse=True)[1].ravel()
    first = np.full(same.max(initial=-1) + 1, -1, np.int64)
    first[same[::-1]] = rows[::-1]
    exact = np.stack([first[same], rows], 1)
    exact = exact[exact[:, 0] != exact[:, 1]]
    copies = copies.one_pose(chances)
    equal = (digests[copies.pairs[:, 0]] == digests[copies.pairs[:, 1]]).all(1)
    sure = copies.reach(chances) | equal
    groups = [_group(corpus, group, digests) for group in _join(corpus, copies.select(sure), exact, digests)]
    likenesses = _join(corpus, copies.select(~sure), exact[:0], digests)
    groups += [replace(_group(corpus, group, digests), kind=UNSURE_COPY) for group in likenesses]
    return tuple(
        sorted(
            groups, key=lambda g: (g.kind == UNSURE_COPY, -g.crosses_splits, -g.crosses_labels, -len(g.rows), g.rows)
        )
    )


class LinkedRows(NamedTuple):
    """Rows that pairs join, the least correlation of such a pair, the share of all their pairs that are joined, and
    whether a pair is mirrored or turned."""

    rows: list[int]
    least: float
    mutual: float
    in_poses: bool


def _join(corpus: Corpus, copies: Copies, exact: NDArray[np.int64], digests: NDArray[np.uint8]) -> Iterator[LinkedRows]:
    """Join pairs of copies, and pairs of exact copies (e, 2), to groups."""
    links = np.concatenate([copies.pairs, exact])
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(corpus), len(corpus)))
    component = connected_components(graph, directed=False)[1]
    least: dict[int, float] = {}
    in_poses = set(component[copies.pairs[copies.poses != UPRIGHT, 0]])
    group_sizes: Counter[int] = Counter()
    for (one, other), value in zip(copies.pairs, copies.correlation, strict=True):
        least[component[one]] = min(value, least.get(component[one], 1.0))
        group_sizes[component[one]] += int((digests[one] != digests[other]).any())
    for row, count in zip(*np.unique(exact[:, 0], return_counts=True), strict=True):
        group_sizes[component[row]] += int(count) * (int(count) + 1) // 2  # exact copies, found by their details or not
    members: dict[int, list[int]] = {}
    for row in np.unique(links):
        members.setdefault(component[row], []).append(int(row))
    for number, some in members.items():
        mutual = group_sizes[number] / math.comb(len(some), 2)
        yield LinkedRows(some, least.get(number, 1.0), mutual, number in in_poses)


def _group(corpus: Corpus, linked: LinkedRows, digests: NDArray[np.uint8]) -> CopyGroup:
    rows = linked.rows
    exact = len(np.unique(digests[rows], axis=0)) == 1
    keys, paths = (tuple(column[row] for row in rows) for column in (corpus.keys, corpus.paths))
    labels = tuple(", ".join(corpus.labels_of_image(row)) for row in rows)
    splits = tuple(corpus.splits[row] if corpus.splits else "" for row in rows)
    kind = EXACT_COPY if exact else TURNED_COPY if linked.in_poses else NEAR_COPY
    correlation = 1.0 if exact else float(linked.least)
    return CopyGroup(tuple(rows), keys, paths, labels, splits, kind, correlation, linked.mutual)
