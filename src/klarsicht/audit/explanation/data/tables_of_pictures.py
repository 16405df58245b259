"""Corpora in tables that hold the pictures: parquet files, and folders written by Hugging Face `datasets`."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.class_names import describe_renamed, make_distinct
from klarsicht.audit.explanation.data.column_names import ColumnNames
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.manifest import is_blank
from klarsicht.audit.explanation.data.pictures import UNREADABLE, hash_content
from klarsicht.ground.errors import CorpusError, ImageError
from klarsicht.ground.machine.disk import is_fault_of_place
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.progress import note

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET, ARROW = ".parquet", ".arrow"
GROUP_BYTES = 256 * 2**20  # of encoded pictures that a process keeps
PICTURE_NAMES = ("image", "img", "picture", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target")
SPLIT_OF_FILE = re.compile(r"^(.+?)-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class TableReader:
    """Pictures in a column of parquet or Arrow files; a path is FILE#ROW.

    Attributes:
        column: name of a column of bytes, or of structs with the field `bytes`.
    """

    column: str

    def read(self, path: str) -> bytes:
        import pyarrow as pa

        file, _, row = path.rpartition("#")
        try:
            value = _read_cell(file, self.column, int(row))
        except (pa.ArrowException, OSError) as error:
            if is_out_of_memory(error) or is_fault_of_place(error):
                raise
            raise ImageError("a picture cannot be read from its table", got=f"{path}: {error}") from error
        if value is None:
            raise ImageError("no picture in this row", got=path, rule="bytes of an image file")
        return value

    def fingerprint(self, path: str) -> bytes:
        try:
            return hash_content(self.read(path))
        except ImageError:
            return UNREADABLE


def picture_column(schema: pa.Schema, name: str = "") -> str:
    """Return the column of pictures, bytes or structs with the field `bytes`; "" where there is none.

    Args:
        schema: of a table.
        name: the column, where a user named it.
    """
    import pyarrow as pa

    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    names = [field.name for field in schema if holds_bytes(field.type)]
    if name:
        return name if name in names else ""
    return next((known for known in PICTURE_NAMES if known in names), names[0] if names else "")


def read_schema(file: str) -> pa.Schema:
    """Read the schema of a parquet or Arrow file.

    Raises:
        CorpusError: it cannot be read.
    """
    return _Parquet.open_file(file).schema if file.endswith(PARQUET) else _open_arrow(file).schema


def open_tables(root: str, files: Sequence[str], names: ColumnNames) -> Corpus:
    """Open a corpus of tables that hold pictures.

    Args:
        root: folder or URL of the files.
        files: their paths inside it; the name of a split is read from names such as train-00000-of-00002.parquet, or
            is that of their folder.
        names: names of the columns of pictures, labels and sources; by default one of PICTURE_NAMES, or the first of
            bytes, one of LABEL_NAMES, and `source`.

    Raises:
        CorpusError: a file cannot be read, or lacks a column.
    """
    import pyarrow as pa

    keys: list[str] = []
    columns: dict[str, list[str]] = {"path": [], "label": [], "source": [], "split": []}
    column = picture_column(read_schema(locations.join(root, files[0])), names.path)
    for file in files:
        path = locations.join(root, file)
        try:
            schema = read_schema(path)
            label = _choose("label", names.label, LABEL_NAMES, schema, path)
            source = _choose("source", names.source, ("source",), schema, path, is_needed=bool(names.source))
            split = "split" if "split" in schema.names else ""
            if not column or picture_column(schema, column) != column:
                rule = "a column of bytes, or of structs with the field bytes"
                got, remedy = f"{path} with columns {', '.join(schema.names)}", "Name it by --path-column."
                raise CorpusError("a table without pictures", got=got, rule=rule, remedy=remedy)
            table = _read_columns(path, [name for name in (label, source, split) if name])
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise CorpusError("a table cannot be read", got=f"{path}: {error}", rule="parquet or Arrow") from error
        n, brought = table.num_rows, class_names(schema, label, root)
        classes = make_distinct(brought)
        if not keys and (told := describe_renamed(brought, classes)):
            note(told)
        labels = [_label_text(value, classes) for value in table[label].to_pylist()]
        if "" in labels:
            raise CorpusError("a row has no label", got=f"{path}#{labels.index('')}")
        keys += [f"{file}#{row}" for row in range(n)]
        columns["path"] += [f"{path}#{row}" for row in range(n)]
        columns["label"] += labels
        columns["source"] += [_text(value) for value in table[source].to_pylist()] if source else [""] * n
        columns["split"] += [_text(v) for v in table[split].to_pylist()] if split else [_split_of(file)] * n
    return Corpus(
        keys=tuple(keys),
        paths=tuple(columns["path"]),
        labels=tuple(columns["label"]),
        sources=tuple(columns["source"]) if any(columns["source"]) else (),
        splits=tuple(columns["split"]) if any(columns["split"]) else (),
        reader=TableReader(column),
    )


def class_names(schema: pa.Schema, label: str, folder: str) -> tuple[str, ...]:
    """Read the names of the classes that `datasets` writes into a schema, or beside the files; empty where none."""
    texts = [(schema.metadata or {}).get(b"huggingface", b"")]
    if not locations.is_url(folder) and (info := Path(folder) / "dataset_info.json").is_file():
        texts.append(info.read_bytes())
    for text in filter(None, texts):
        try:
            told = json.loads(text)
            features = told.get("info", told).get("features") or {}
            names = features.get(label, {}).get("names")
        except (ValueError, AttributeError):
            continue
        if names:
            return tuple(map(str, names))
    return ()


def _choose(what: str, name: str, usual: Sequence[str], schema: pa.Schema, file: str, is_needed: bool = True) -> str:
    """Choose a column of a table; "" where there is none and none is needed."""
    column = name if name in schema.names else "" if name else next((n for n in usual if n in schema.names), "")
    if is_needed and not column:
        raise CorpusError(
            f"a table without the column {name or what}",
            got=f"{file} with columns {', '.join(schema.names)}",
            remedy=f"Name it by --{what}-column.",
        )
    return column


def _label_text(value: Any, classes: Sequence[str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and classes:
        return classes[value] if 0 <= value < len(classes) else ""  # -1: a test split without labels
    return _text(value)


def _text(value: Any) -> str:
    return "" if is_blank(value) else str(value)


def _split_of(file: str) -> str:
    folder, _, name = file.rpartition("/")
    found = SPLIT_OF_FILE.match(name)
    told = [found[1] if found else "", folder.rpartition("/")[2]]
    return next((one for one in told if one not in ("", "data")), "")


# Opened files and decompressed row groups stay in the process


def close_tables() -> None:
    """Forget the files that are open: they may have been replaced."""
    _open_parquet.cache_clear()
    _open_arrow.cache_clear()
    _groups.clear()


def _read_columns(file: str, names: list[str]) -> pa.Table:
    if file.endswith(PARQUET):
        return _Parquet.open_file(file).file.read(columns=names)
    return _open_arrow(file).select(names)


def _read_cell(file: str, column: str, row: int) -> bytes | None:
    """Read the bytes of a picture; None where there are none."""
    if file.endswith(PARQUET):
        value = _Parquet.open_file(file).cell(column, row)
    else:
        value = _open_arrow(file)[column][row].as_py()
    value = value.get("bytes") if isinstance(value, Mapping) else value
    return None if value is None else bytes(value)


_Groups = OrderedDict[tuple[str, str, int], Any]
_groups: _Groups = OrderedDict()  # decompressed row groups of all files: the last ones used, up to GROUP_BYTES


class _Parquet:
    """Open parquet file, whose row groups are read when a cell of them is asked for."""

    def __init__(self, name: str) -> None:
        from pyarrow import parquet

        self.name, self.file = name, parquet.ParquetFile(locations.open_binary(name))
        counts = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = [sum(counts[:i]) for i in range(len(counts))]
        self.schema = self.file.schema_arrow

    @staticmethod
    def open_file(name: str) -> _Parquet:
        return _open_parquet(name)

    def cell(self, column: str, row: int) -> Any:
        group = max(i for i, start in enumerate(self.starts) if start <= row)
        cells = self._group(column, group)
        return cells[row - self.starts[group]].as_py()

    def _group(self, column: str, group: int) -> Any:
        cache, key = _groups, (self.name, column, group)
        if key not in cache:
            cache[key] = self.file.read_row_group(group, columns=[column])[column].combine_chunks()
            while len(cache) > 1 and sum(cells.nbytes for cells in cache.values()) > GROUP_BYTES:
                cache.popitem(last=False)
        cache.move_to_end(key)
        return cache[key]


@lru_cache(maxsize=256)
def _open_parquet(name: str) -> _Parquet:
    import pyarrow as pa

    try:
        return _Parquet(name)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorpusError("a table cannot be read", got=f"{name}: {error}", rule="parquet") from error


@lru_cache(maxsize=256)
def _open_arrow(name: str) -> pa.Table:
    """Map an Arrow stream into memory; pictures are read when they are asked for."""
    import pyarrow as pa

    try:
        if locations.is_url(name):
            return pa.ipc.open_stream(locations.read_into_memory(name)).read_all()
        return pa.ipc.open_stream(pa.memory_map(name)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise CorpusError("a table cannot be read", got=f"{name}: {error}", rule="an Arrow stream") from error
