"""A corpus: which images there are, what they show, and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klarsicht.ground.errors import CorpusError, ImageError, unknown_name
from klarsicht.ground.images import decode

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jp2",
    )
)
ENDS = 64 * 1024  # bytes hashed at each end of a file
REQUIRED, OPTIONAL = ("path", "label"), ("source", "split")


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
    """

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.keys:
            raise CorpusError("no images", rule="a folder with one sub-folder a class, or a manifest with lines")
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise CorpusError("an image is listed twice", got=twice, remedy="List every path once.")

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted(set(self.labels)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of keys, labels, sources, and the size and both ends of every file.

        A copy elsewhere has the same hash; a change inside a large file that keeps its size and its first and last
        64 KiB goes unseen.
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
            UsageError: no image has that split; near matches are listed.
        """
        if split not in self.splits:
            raise unknown_name("split", split, set(self.splits) or {"(the corpus has no splits)"})
        rows = [i for i, name in enumerate(self.splits) if name == split]
        chosen = {name: _some(getattr(self, name), rows) for name in COLUMNS.values()}
        return Corpus(left_out=self.left_out, **chosen)

    def to_table(self) -> pa.Table:
        """One line an image: key, path, label, source, split."""
        import pyarrow as pa

        blank = ("",) * len(self)
        return pa.table({name: list(getattr(self, field) or blank) for name, field in COLUMNS.items()})

    @classmethod
    def from_folder(cls, folder: str | Path) -> Corpus:
        """One sub-folder a class, images anywhere below it, in sorted order.

        Raises:
            CorpusError: no such folder, or no image in it.
        """
        root = Path(folder)
        classes = sorted(p for p in _entries(root) if p.is_dir())
        files, left_out = [], [_stray(p) for p in _entries(root) if p.is_file()]
        for place in classes:
            inside = sorted(p for p in place.rglob("*") if p.is_file() and not _hidden(p.relative_to(root)))
            images = [p for p in inside if p.suffix.lower() in SUFFIXES]
            files += [(p, place.name) for p in images]
            left_out += [(str(p.relative_to(root)), "no image by its ending") for p in inside if p not in set(images)]
            left_out += [] if images else [(f"class {place.name}", "empty folder")]
        if not files:
            raise CorpusError("no images in this folder", got=root, rule="one sub-folder a class, with images in it")
        keys = tuple(str(p.relative_to(root)) for p, _ in files)
        paths, labels = tuple(str(p) for p, _ in files), tuple(label for _, label in files)
        return cls(keys, paths, labels, left_out=tuple(left_out))

    @classmethod
    def from_manifest(cls, file: str | Path) -> Corpus:
        """A CSV or parquet file with columns path, label and, if you like, source and split; one line an image.

        Paths are relative to the manifest's own folder.

        Raises:
            CorpusError: the manifest cannot be read, lacks a column or a value, or names files that are not there.
        """
        manifest = Path(file)
        columns = _columns(manifest)
        paths = [manifest.parent / path for path in columns["path"]]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise CorpusError(
                "the manifest names files that are not there",
                got=f"{len(missing)} of {len(paths)}: {', '.join(missing[:3])}",
                rule="paths are relative to the manifest's folder",
            )
        return cls(
            keys=tuple(columns["path"]),
            paths=tuple(map(str, paths)),
            labels=tuple(columns["label"]),
            sources=tuple(columns.get("source", ())),
            splits=tuple(columns.get("split", ())),
        )


COLUMNS = {"key": "keys", "path": "paths", "label": "labels", "source": "sources", "split": "splits"}


def open(data: str | Path) -> Corpus:
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


def _some(values: Sequence[str], rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(values[i] for i in rows) if values else ()


def _entries(root: Path) -> list[Path]:
    return [p for p in root.iterdir() if not p.name.startswith(".")]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _stray(path: Path) -> tuple[str, str]:
    return path.name, "in no class folder"


def _ends(path: Path) -> bytes:
    """Size and a hash of the first and the last 64 KiB."""
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(ENDS)
        file.seek(max(size - ENDS, len(head)))
        return hashlib.sha256(f"{size}\0".encode() + head + file.read(ENDS)).digest()


def _columns(manifest: Path) -> dict[str, list[str]]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if manifest.suffix.lower() == ".parquet":
            table = parquet.read_table(manifest)
        else:
            text = {name: pa.string() for name in (*REQUIRED, *OPTIONAL)}
            table = csv.read_csv(
                manifest, convert_options=csv.ConvertOptions(column_types=text, strings_can_be_null=False)
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError("the manifest cannot be read", got=f"{manifest}: {error}", rule="CSV or parquet") from error
    absent = [name for name in REQUIRED if name not in table.column_names]
    if absent:
        raise CorpusError(
            f"the manifest lacks the column {absent[0]}",
            got=f"columns {', '.join(table.column_names)}",
            rule="path,label[,source,split]",
        )
    return {name: _texts(table[name], name) for name in (*REQUIRED, *OPTIONAL) if name in table.column_names}


def _texts(column: Any, name: str) -> list[str]:
    values = ["" if value is None else str(value) for value in column.to_pylist()]
    if name in REQUIRED and "" in values:
        raise CorpusError(f"a line of the manifest has no {name}", got=f"line {values.index('') + 2}")
    return values
