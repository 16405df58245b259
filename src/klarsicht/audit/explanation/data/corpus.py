"""Image corpora: files with labels, sources and splits, listed from a class folder or a manifest. An image with several
labels is one row with a cell of labels, or, after `Corpus.pairs`, one row for each of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.explanation.data import locations, manifest
from klarsicht.audit.explanation.data.folder_listing import (
    count_reasons,
    describe_reasons,
    exclusion_reason,
    label_of,
    list_folder,
)
from klarsicht.audit.explanation.data.label_cells import LabelCells, split_labels
from klarsicht.audit.explanation.data.manifest import DEFAULT_NAMES, ColumnNames
from klarsicht.audit.explanation.data.pictures import FILES, UNREADABLE, PictureReader, file_of
from klarsicht.audit.explanation.data.splits import SPLIT_FOLDERS
from klarsicht.ground.errors import (
    CorpusError,
    ImageError,
    ImageRefused,
    KlarsichtError,
    ProgramFailed,
    Unreachable,
    UnreadableFile,
)
from klarsicht.ground.machine.disk import describe_system_error, is_fault_of_place
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.images import MAX_MEGAPIXELS
from klarsicht.ground.pictures.stored_images import DecodedImage, call_decoder, make_image
from klarsicht.ground.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa

WRITTEN_FOLDER = "images"  # folder of new files beside a manifest, as `audit plant` and `audit clean-data` write them
WRITTEN_MANIFESTS = ("manifest.csv", "manifest.parquet")
WITNESSES = 8  # other images that a decoder is tried on after it failed on one
TABLE_BLOCK = 1 << 16  # rows of the table of a corpus that are made at once
# Columns of a corpus's table and the fields they hold.
COLUMNS = {"key": "keys", "path": "paths", "label": "labels", "source": "sources", "split": "splits"}
REPEATED = ("labels", "sources", "splits")  # fields in which many rows have the same text
OF_ROWS = (*COLUMNS.values(), "weights", "white_levels")  # fields with one entry for each row


class CorpusRow(NamedTuple):
    """An image of a container with its label; "" for an unknown source or split."""

    key: str
    path: str
    label: str
    source: str = ""
    split: str = ""


@dataclass(frozen=True)
class Corpus:
    """A corpus of N rows, each an image with its label; row i of every array that an audit computes belongs to row i.

    Attributes:
        keys: N names of images: the path from the root of the corpus, so that a moved corpus keeps them. Rows of one
            key are one image, each with another label. Held as `Texts`, as are paths.
        paths: N file paths.
        labels: N class labels; cells of several labels where there is a separator.
        sources: N names of an origin that images may share (a patient, a video, a photograph), "" where unknown; empty
            where all are.
        splits: N names such as train or test, or empty.
        left_out: pairs (item, reason) of files and folders that hold no image.
        weights: N sample weights above 0 for training, or empty.
        white_levels: N codes of white in 16-bit files, 0 where the file's whole range is meant, or empty.
        megapixels: largest image that is decoded, in millions of pixels.
        separator: text between the labels of a cell; "" where each row has one label.
        reader: where the pictures are; `paths` are names that it reads.
        decoder: a user's function from what is stored to a picture, see `stored_images.load_decoder`; or "".
        form: of the arrays that images are decoded to; None: 8-bit pictures.
        absent: paths that could not be read when the corpus was hashed, which lists them; shared by all corpora that
            are made of this one.
    """

    keys: Sequence[str]
    paths: Sequence[str]
    labels: Sequence[str]
    sources: Sequence[str] = ()
    splits: Sequence[str] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    weights: tuple[float, ...] = ()
    white_levels: tuple[int, ...] = ()
    megapixels: float = MAX_MEGAPIXELS
    separator: str = ""
    reader: PictureReader = FILES
    decoder: str = ""
    form: ArrayForm | None = None
    absent: set[str] = field(default_factory=set, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.keys:
            raise CorpusError("no images", rule="a folder with one sub-folder a class, or a manifest with lines")
        keys, paths = (_store_names(names) for names in (self.keys, self.paths))
        if keys.array.equals(paths.array):
            paths = replace(paths, array=keys.array)
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "paths", paths)
        for name in REPEATED:
            shared: dict[str, str] = {}  # equal texts as one object
            texts = tuple(shared.setdefault(text, text) for text in getattr(self, name))
            object.__setattr__(self, name, texts if name == "labels" or any(texts) else ())
        if not keys.are_distinct:
            _require_distinct(keys if self.separator else tuple(zip(keys, self.labels, strict=True)))

    def __repr__(self) -> str:
        return f"Corpus({len(self)} rows, {len(self.classes)} classes)"

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | Iterable[int]) -> Corpus:
        """Return the corpus of these rows, in this order."""
        chosen = range(len(self))[rows] if isinstance(rows, slice) else [int(row) for row in rows]
        taken: dict[str, Any] = {field: _take_rows(getattr(self, field), chosen) for field in OF_ROWS}
        return replace(self, **taken)

    def with_limits(self, white_level: int | None, megapixels: float) -> Corpus:
        """Return the corpus with a white level for the 16-bit files that state none, and a bound on megapixels."""
        whites = self.white_levels
        if white_level is not None:
            whites = tuple(level or white_level for level in self.white_levels or (0,) * len(self))
        return replace(self, white_levels=whites, megapixels=megapixels)

    def as_arrays(self, form: ArrayForm | None) -> Corpus:
        """Return the corpus whose images are decoded to arrays of a form; None: to 8-bit pictures."""
        return replace(self, form=form)

    def as_picture(self, image: DecodedImage) -> Image.Image:
        """Return a decoded picture as it is, and an array of the corpus's form as one."""
        if isinstance(image, Image.Image):
            return image
        assert self.form is not None
        return self.form.to_picture(image)

    def decode(self, row: int) -> DecodedImage:
        """Decode the image of a row to a picture, RGB or grey, or to an array of the corpus's form. Raises ImageError:
        it cannot be decoded, or could not be read when the corpus was hashed either; Unreachable: it could be read
        then, and its disk or store does not give it now; ProgramFailed: the user's decoder fails on other images as
        well."""
        path, white = self.paths[row], (self.white_levels[row] if self.white_levels else 0) or None
        try:
            return make_image(self._decode_stored(path), path, white, self.megapixels, self.form)
        except UnreadableFile as error:
            if path in self.absent:
                raise
            raise out_of_reach(path, error) from error
        except Unreachable as error:
            if path not in self.absent:
                raise
            raise UnreadableFile(error.what, got=error.got, remedy=error.remedy) from error

    def _decode_stored(self, path: str) -> Any:
        content = self._read_stored(path)
        if not self.decoder:
            return content
        try:
            return call_decoder(self.decoder, content, path)
        except ImageRefused as error:
            if path not in self.absent and self._fingerprint(path) == UNREADABLE:
                raise out_of_reach(path, error) from error
            self._require_decoder(path, error)
            raise

    def _read_stored(self, path: str) -> Any:
        with _places(path):
            return self.reader.read(path)

    def _fingerprint(self, path: str) -> bytes:
        with _places(path):
            return self.reader.fingerprint(path)

    def _require_decoder(self, path: str, error: ImageRefused) -> None:
        """Check that the user's decoder, which failed on an image, decodes another one; raises ProgramFailed where it
        fails on WITNESSES others."""
        spread = np.linspace(0, len(self) - 1, WITNESSES + 1).astype(int)
        others = {self.paths[int(row)] for row in spread} - {path} - self.absent
        for other in sorted(others):
            with suppress(ImageError):
                call_decoder(self.decoder, self._read_stored(other), other)
                return
        if others:
            raise ProgramFailed(
                "--decode fails on other images as well", got=error.got,
                rule=f"it was tried on {len(others)} others", remedy="Repair it; the same command resumes.",
            ) from error  # fmt: skip

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Distinct labels, sorted."""
        return tuple(sorted({label for cell in set(self.labels) for label in split_labels(cell, self.separator)}))

    @cached_property
    def image_numbers(self) -> NDArray[np.int64]:
        """Number of the image of each row, int64 (N,), by first appearance; 0 to N - 1 where each row is an image."""
        if Texts.of(self.keys).are_distinct:
            return np.arange(len(self), dtype=np.int64)
        number: dict[str, int] = {}
        return np.array([number.setdefault(key, len(number)) for key in self.keys], np.int64)

    def labels_of_image(self, row: int) -> tuple[str, ...]:
        """Return the labels of the image of a row, in the order of their names."""
        if Texts.of(self.keys).are_distinct:
            return (self.labels[row],)
        rows = np.flatnonzero(self.image_numbers == self.image_numbers[row])
        return tuple(sorted({self.labels[i] for i in rows.tolist()}))

    def pairs(self) -> Corpus:
        """Return the corpus of all (image, label) pairs, those of an image one after another; images without a label
        are left out and counted. Raises CorpusError where no image has a label."""
        if not self.separator:
            return self
        labels = [split_labels(cell, self.separator) for cell in self.labels]
        rows = [i for i, some in enumerate(labels) for _ in some]
        bare = sum(not some for some in labels)
        if not rows:
            raise CorpusError("no image has a label", got=f"{bare} blank", rule="each class is audited on its images")
        fields: dict[str, Any] = {field: _take_rows(getattr(self, field), rows) for field in OF_ROWS}
        fields["labels"] = tuple(label for some in labels for label in some)
        left_out = ((f"{bare} image{'s' * (bare > 1)}", "no label"),) if bare else ()
        return replace(self, left_out=self.left_out + left_out, separator="", **fields)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of keys, labels, sources, and the size and both ends of every file, so that a copy elsewhere has the
        same. A change inside a large file that keeps its size and its first and last 64 KiB is not detected. Raises
        Unreachable where a disk or a store does not give a file that was listed."""
        digest = hashlib.sha256()
        of_file = lru_cache(maxsize=1)(self._fingerprint)  # rows of one image follow each other
        for i, (key, path, label) in enumerate(zip(self.keys, self.paths, self.labels, strict=True)):
            source = self.sources[i] if self.sources else ""
            digest.update(f"{key}\0{label}\0{source}\0".encode())
            digest.update(fingerprint := of_file(path))
            if fingerprint == UNREADABLE:
                self.absent.add(path)
            if self.white_levels:
                digest.update(f"{self.white_levels[i]}".encode())
        return digest.hexdigest()

    def select(self, *, split: str) -> Corpus:
        """Return the images of one split; raises CorpusError, which lists the existing ones, where it has none."""
        rows = [i for i, name in enumerate(self.splits) if name == split]
        if not rows:
            none = "none: its manifest has no column split, or an empty one"
            known = ", ".join(sorted(set(self.splits) - {""})) or none
            raise CorpusError("the corpus has no such split", got=repr(split), rule=f"there are {known}")
        return self[rows]

    @cached_property
    def source_numbers(self) -> NDArray[np.int64]:
        """Source index of each row, int64 (N,): equal for equal names; an image of unknown source is one of its own."""
        return _number_sources(self.image_numbers, self.sources)

    def to_table(self) -> pa.Table:
        """Convert to a table with one row per image and columns key, path, label, source, split."""
        import pyarrow as pa

        blank = ("",) * len(self)
        columns = {name: getattr(self, field) or blank for name, field in COLUMNS.items()}
        return pa.table({name: c.to_column() if isinstance(c, Texts) else list(c) for name, c in columns.items()})

    def to_blocks(self) -> Iterator[pa.Table]:
        """Convert to tables as `to_table`, of TABLE_BLOCK rows each."""
        return (self[start : start + TABLE_BLOCK].to_table() for start in range(0, len(self), TABLE_BLOCK))

    @staticmethod
    def source_numbers_of(table: pa.Table) -> NDArray[np.int64]:
        """Compute the `source_numbers` of a table made by `to_table`, without its texts as Python objects."""
        named = table["source"].unique().to_pylist() not in ([""], [])
        if Texts.of_chunks(table["key"].iterchunks()).are_distinct:
            images = np.arange(len(table), dtype=np.int64)
        else:  # numbered by first appearance
            images = table["key"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        return _number_sources(images, table["source"].to_pylist() if named else ())

    @classmethod
    def of_rows(
        cls, rows: Iterable[CorpusRow], reader: PictureReader, left_out: tuple[tuple[str, str], ...] = ()
    ) -> Corpus:
        """Make a corpus of the rows of a container that a reader reads."""
        keys, paths, labels, sources, splits = list(zip(*rows, strict=True)) or [()] * len(CorpusRow._fields)
        return cls(keys, paths, labels, sources, splits, left_out=left_out, reader=reader)

    @classmethod
    def from_folder(cls, folder: str | Path, decoder: str = "") -> Corpus:
        """List the images of a folder or URL with one sub-folder per class (the ImageFolder layout), in sorted order.
        Images may lie anywhere below a class folder; hidden files are ignored. Where all sub-folders have names of
        splits, see SPLIT_FOLDERS, and hold folders only, these are the classes. Symbolic links to class folders are
        followed, links inside class folders only if they point to files. With a decoder every file is an image. Raises
        CorpusError where the folder does not exist, cannot be read, or holds no image."""
        root = str(folder)
        loose, labels, listed = list_folder(root)
        reasons: dict[str, tuple[int, str]] = {}
        sizes = Counter[str]()

        def images() -> Iterator[list[str]]:
            for some in listed:
                reason_of = {key: exclusion_reason(key, any_ending=bool(decoder)) for key in some}
                count_reasons(reasons, reason_of)
                kept = [key for key, reason in reason_of.items() if not reason]
                sizes.update(map(label_of, kept))
                yield kept

        keys = Texts.of_blocks("", images())
        left_out = [(f"class {label}", "no image in its folder") for label in sorted({*labels} - {*sizes})]
        left_out += describe_reasons(reasons)
        left_out += describe_reasons(
            count_reasons({}, {name: exclusion_reason(name) or "in no class folder" for name in loose})
        )
        if not keys:
            rule = "one sub-folder a class, with images in it, or a manifest (CSV or parquet: path,label)"
            inside = "; ".join(f"{what}: {why}" for what, why in left_out[:3])
            got = f"{root}, where {inside}" if inside else f"{root}, an empty folder"
            raise CorpusError("no images in class folders", got=got, rule=rule)
        if {*sizes} == {WRITTEN_FOLDER} and (beside := sorted({*loose} & {*WRITTEN_MANIFESTS})):
            raise CorpusError(
                "the classes of this folder are in its manifest", rule="elsewhere sub-folders are classes",
                got=f"{root}, with {beside[0]} beside the folder {WRITTEN_FOLDER}",
                remedy=f"Give the manifest: {locations.join(root, beside[0])}.",
            )  # fmt: skip
        paths: Sequence[str] = replace(keys, prefix=locations.join(root, "-")[:-1])
        if paths[0] != locations.join(root, keys[0]):  # another separator than the slash
            paths = tuple(locations.join(root, key) for key in keys)
        of_rows = tuple(label for label, size in sizes.items() for _ in range(size))
        if all(label.lower() in SPLIT_FOLDERS for label in sizes) and all(key.count("/") > 1 for key in keys):
            classes = tuple(key.split("/", 2)[1] for key in keys)
            return cls(keys, paths, classes, splits=of_rows, left_out=tuple(left_out))
        return cls(keys, paths, of_rows, left_out=tuple(left_out))

    @classmethod
    def from_manifest(
        cls, file: str | Path, cells: LabelCells = manifest.ONE_LABEL, names: ColumnNames = DEFAULT_NAMES,
        decoder: str = "",
    ) -> Corpus:  # fmt: skip
        """Read a CSV or parquet manifest at a path or URL, see `manifest.read_columns`; its paths are relative to its
        folder, and may with a decoder name a part of a file after a #. Raises CorpusError where it cannot be read,
        lacks a column or a value, or names files that do not exist."""
        columns = manifest.read_columns(file, cells, names)
        return cls.from_columns(columns, locations.parent(str(file)), cells, decoder)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[str]], folder: str, cells: LabelCells = manifest.ONE_LABEL,
        decoder: str = "", table: str = "manifest", start: str = "the manifest's folder",
    ) -> Corpus:  # fmt: skip
        """Make a corpus of the columns of a manifest, see `from_manifest`; relative paths start from `folder`. `table`
        and `start` name the table and the folder in an error."""
        paths = [locations.join(folder, path) for path in columns["path"]]
        local = [path for path in paths if not locations.is_url(path)]
        missing = [one for one in local if not os.path.isfile(file_of(one) if decoder else one)]  # noqa: PTH113
        if missing:  # pathlib would raise for a name that no system can hold
            got, rule = f"{len(missing)} of {len(paths)}: {', '.join(missing[:3])}", f"paths are relative to {start}"
            raise CorpusError(f"the {table} names files that do not exist", got=got, rule=rule)
        keys = tuple(map(os.path.normpath, columns["path"]))
        _require_distinct(keys)
        return cls(
            keys=keys,
            paths=tuple(paths),
            labels=columns["label"],
            sources=columns.get("source", ()),
            splits=columns.get("split", ()),
            weights=manifest.parse_weights(columns.get("weight", ())),
            white_levels=manifest.parse_white_levels(columns.get("white_level", ())),
            separator=cells.joint,
        )


def decode_rows(corpus: Corpus, rows: Iterable[int]) -> Iterator[tuple[int, DecodedImage | ImageError]]:
    """Decode the images of these rows as `Corpus.decode`, but yield its ImageError in place of an image. An image of
    several rows that follow each other is decoded once; each row gets a copy, as a transform may change it."""
    for _, some in groupby(rows, key=lambda row: corpus.paths[row]):
        *before, last = some
        try:
            picture: DecodedImage | ImageError = corpus.decode(last)
        except ImageError as error:
            picture = error
        for row in before:
            yield row, picture if isinstance(picture, ImageError) else picture.copy()
        yield last, picture


@contextmanager
def _places(path: str) -> Iterator[None]:
    """Convert errors of a disk, of a store and of a container that was opened before to Unreachable."""
    try:
        yield
    except (UnreadableFile, CorpusError) as error:
        raise out_of_reach(path, error) from error
    except KlarsichtError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or not (is_fault_of_place(error) or locations.is_url(path)):
            raise
        raise out_of_reach(path, error) from error


def out_of_reach(path: str, error: Exception) -> Unreachable:
    """Make the error of an image that was listed and is not given."""
    reason = error.got if isinstance(error, KlarsichtError) else f"{path}: {describe_system_error(error)}"
    file = Path(path)
    if leads_nowhere(file):
        count = sum(map(leads_nowhere, file.parent.iterdir()))
        all_of_them = f" (links to nothing in its folder: {count})" if count > 1 else ""
        return Unreachable(
            "an image that was listed is out of reach", got=f"{path}, a link to {file.readlink()}{all_of_them}",
            rule="that file does not exist or cannot be reached",
            remedy="Mount its disk, correct the link, or remove it; the same command resumes.",
        )  # fmt: skip
    return Unreachable(
        "an image that was listed is out of reach", got=reason,
        rule="its content may be intact, so it is not skipped",
        remedy="Check the disk or the network, or leave the image out; the same command resumes.",
    )  # fmt: skip


def leads_nowhere(file: Path) -> bool:
    """Say whether a file is a link to a file that does not exist or cannot be reached."""
    return file.is_symlink() and not file.exists()


def _require_distinct(rows: Sequence[Hashable]) -> None:
    """Check that no image, or no (image, label) pair, is listed twice; raises CorpusError."""
    if len(set(rows)) < len(rows):
        row, times = Counter(rows).most_common(1)[0]
        key = row[0] if isinstance(row, tuple) else row
        remedy = "List every path once; of several labels see --label-separator."
        raise CorpusError("an image is listed twice", got=f"{times} x {key}", remedy=remedy)


def _number_sources(images: NDArray[np.int64], sources: Sequence[str]) -> NDArray[np.int64]:
    """Number the sources of N rows: first images without a source, in the order of their numbers, int (N,), as texts,
    then the N names; "" or no names at all where there is none."""
    texts = images.astype(f"S{len(str(int(images.max(initial=0))))}")
    if not sources:
        return np.unique(texts, return_inverse=True)[1]
    blank = np.fromiter((not name for name in sources), bool, len(images))
    numbers = np.empty(len(images), np.int64)
    alone, numbers[blank] = np.unique(texts[blank], return_inverse=True)
    names = [name for name in sources if name]
    numbers[~blank] = len(alone) + np.unique(names, return_inverse=True)[1]
    return numbers


def _take_rows(values: Sequence[Any], rows: Sequence[int]) -> Sequence[Any]:
    if isinstance(values, Texts):
        return values.take(rows)
    return tuple(values[i] for i in rows) if values else ()


def _store_names(names: Sequence[str]) -> Texts:
    """Store names of images in little memory; raises CorpusError where one, or the folder of all, is not UTF-8."""
    try:
        held = Texts.of(names)
        held.prefix.encode()  # else the first table that is written ends in an error of its own
        return held
    except UnicodeEncodeError as error:
        raise CorpusError("the path of an image is not UTF-8", got=ascii(error.object), remedy="Rename it.") from error
