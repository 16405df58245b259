"""A corpus: which images there are, what they show, and where they come from."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.data import manifest
from klarsicht.ground.errors import CorpusError, ImageError
from klarsicht.ground.images import decode, extensions

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

T = TypeVar("T")

ENDS = 64 * 1024  # bytes hashed at each end of a file
# Columns of a corpus's table and the fields they hold.
COLUMNS = {"key": "keys", "path": "paths", "label": "labels", "source": "sources", "split": "splits"}


@dataclass(frozen=True)
class Corpus:
    """N images; row i of everything an audit computes is image i.

    Attributes:
        keys: N unique names, stable wherever the corpus lies: the path from its root.
        paths: N files.
        labels: N classes.
        sources: N origins that images may share (a patient, a video, a photograph); "" where unknown, or empty.
        splits: N names such as train or test, or empty.
        left_out: (what, why) of files and folders that hold no image.
        weights: N numbers above 0, how much an image counts where something is trained; or empty.
    """

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys:
            raise CorpusError("no images", rule="a folder with one sub-folder a class, or a manifest with lines")
        if len(set(self.keys)) < len(self.keys):
            key, times = Counter(self.keys).most_common(1)[0]
            raise CorpusError("an image is listed twice", got=f"{times} x {key}", remedy="List every path once.")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | Iterable[int]) -> Corpus:
        """The images of these rows, in this order."""
        chosen = range(len(self))[rows] if isinstance(rows, slice) else [int(row) for row in rows]
        fields = {field: _some(getattr(self, field), chosen) for field in COLUMNS.values()}
        return Corpus(left_out=self.left_out, weights=_some(self.weights, chosen), **fields)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted(set(self.labels)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of keys, labels, sources, and the size and both ends of every file.

        A copy elsewhere has the same hash, whatever its dates; a change inside a large file that keeps its size and
        its first and last 64 KiB goes unseen.

        Raises:
            CorpusError: a file cannot be read any more.
        """
        digest = hashlib.sha256()
        for i, (key, path, label) in enumerate(zip(self.keys, self.paths, self.labels, strict=True)):
            source = self.sources[i] if self.sources else ""
            digest.update(f"{key}\0{label}\0{source}\0".encode())
            digest.update(_ends(Path(path)))
        return digest.hexdigest()

    def select(self, *, split: str) -> Corpus:
        """The images of one split.

        Raises:
            CorpusError: no image has that split; names those there are.
        """
        rows = [i for i, name in enumerate(self.splits) if name == split]
        if not rows:
            known = ", ".join(sorted(set(self.splits) - {""})) or "none: its manifest has no column split"
            raise CorpusError("the corpus has no such split", got=repr(split), rule=f"there are {known}")
        return self[rows]

    @cached_property
    def source_numbers(self) -> NDArray[np.int64]:
        """A number for each image (N,): equal where equal sources are named, else unique."""
        given = self.sources or ("",) * len(self)
        names = [f"source {name}" if name else f"row {i}" for i, name in enumerate(given)]
        return np.unique(names, return_inverse=True)[1]

    def to_table(self) -> pa.Table:
        """One line an image: key, path, label, source, split."""
        import pyarrow as pa

        blank = ("",) * len(self)
        return pa.table({name: list(getattr(self, field) or blank) for name, field in COLUMNS.items()})

    @classmethod
    def from_table(cls, table: pa.Table) -> Corpus:
        """The corpus that to_table wrote down; the files need not be there."""
        columns = {field: tuple(table[name].to_pylist()) for name, field in COLUMNS.items()}
        return cls(**{field: values if any(values) else () for field, values in columns.items()})

    @classmethod
    def from_folder(cls, folder: str | Path) -> Corpus:
        """One sub-folder a class, images anywhere below it, in sorted order; hidden files do not count.

        Links to class folders are followed, links inside them only to files.

        Raises:
            CorpusError: no such folder, it cannot be read, or no image is in it.
        """
        root = Path(folder)
        loose, labels = _listed(root)
        reasons = {key: _reason(key) for label in labels for key in _below(root, label)}
        keys = [key for key, reason in reasons.items() if not reason]
        empty = sorted({*labels} - {*map(_label, keys)})
        left_out = [(f"class {label}", "no image in its folder") for label in empty]
        left_out += _counted(reasons.values())
        left_out += _counted(_reason(name) or "in no class folder" for name in loose)
        if not keys:
            rule = "one sub-folder a class, with images in it, or a manifest (CSV or parquet: path,label)"
            got = f"{root}, where {'; '.join(f'{what}: {why}' for what, why in left_out[:3]) or 'nothing is'}"
            raise CorpusError("no images in class folders", got=got, rule=rule)
        paths = tuple(str(root / key) for key in keys)
        return cls(tuple(keys), paths, tuple(map(_label, keys)), left_out=tuple(left_out))

    @classmethod
    def from_manifest(cls, file: str | Path) -> Corpus:
        """A CSV or parquet file with columns path, label and, if you like, source, split, weight; one line an image.

        Paths are relative to the manifest's own folder.

        Raises:
            CorpusError: the manifest cannot be read, lacks a column or a value, or names files that are not there.
        """
        file = Path(file)
        columns = manifest.columns(file)
        paths = [file.parent / path for path in columns["path"]]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise CorpusError(
                "the manifest names files that are not there",
                got=f"{len(missing)} of {len(paths)}: {', '.join(missing[:3])}",
                rule="paths are relative to the manifest's folder",
            )
        return cls(
            keys=tuple(map(os.path.normpath, columns["path"])),
            paths=tuple(map(str, paths)),
            labels=tuple(columns["label"]),
            sources=tuple(columns.get("source", ())),
            splits=tuple(columns.get("split", ())),
            weights=manifest.weights(columns.get("weight", [])),
        )


def open_corpus(data: str | Path) -> Corpus:
    """The corpus in a folder or behind a manifest.

    Raises:
        CorpusError: there is neither.
    """
    place = Path(data)
    if place.is_dir():
        return Corpus.from_folder(place)
    if place.is_file():
        return Corpus.from_manifest(place)
    raise CorpusError("no such folder or manifest", got=place, remedy="Check the path of --data.")


def decode_rows(corpus: Corpus, rows: Iterable[int]) -> Iterator[tuple[int, Image.Image | ImageError]]:
    """Each row with its picture, RGB or grey, or with the reason why there is none."""
    for row in rows:
        try:
            yield row, decode(corpus.paths[row])
        except ImageError as error:
            yield row, error


def _some(values: Sequence[T], rows: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[i] for i in rows) if values else ()


# Folders. A million files are walked as text: objects would take minutes.


def _listed(root: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, sorted, without hidden ones."""
    try:
        entries = sorted((entry.name, entry.is_dir()) for entry in os.scandir(root) if not entry.name.startswith("."))
    except OSError as error:
        _refuse(error)
    return [name for name, is_folder in entries if not is_folder], [name for name, is_folder in entries if is_folder]


def _below(root: Path, label: str) -> list[str]:
    """Keys of all files below a class folder, sorted part by part."""
    keys = []
    for here, folders, files in os.walk(root / label, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(here).relative_to(root).as_posix()
        keys += [f"{place}/{name}" for name in files if not name.startswith(".")]
    return sorted(keys, key=lambda key: key.split("/"))


def _refuse(error: OSError) -> NoReturn:
    raise CorpusError("cannot read a folder", got=f"{error.filename}: {error.strerror}", remedy="Check --data.")


def _label(key: str) -> str:
    return key.partition("/")[0]


def _reason(key: str) -> str:
    """Why a file is no image of the corpus, or ""."""
    ending = Path(key).suffix.lower()
    if ending not in extensions():
        return f"no image by its ending {ending}".rstrip()
    return "" if key.encode(errors="replace").decode() == key else "its name is not UTF-8"


def _counted(reasons: Iterable[str]) -> list[tuple[str, str]]:
    return [
        (f"{count} file{'s' * (count > 1)}", reason) for reason, count in sorted(Counter(reasons).items()) if reason
    ]


def _ends(path: Path) -> bytes:
    """Size and a hash of the first and the last 64 KiB; what cannot be read is left to `decode`, which names it."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(ENDS)
            file.seek(max(size - ENDS, len(head)))
            return hashlib.sha256(f"{size}\0".encode() + head + file.read(ENDS)).digest()
    except OSError:
        return b"unreadable"
