"""Corpora in tables that hold the pictures: parquet files, and folders written by Hugging Face `datasets`."""

from __future__ import annotations

import io
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
from klarsicht.audit.explanation.data.corpus import Corpus, CorpusRow
from klarsicht.audit.explanation.data.manifest import ColumnNames, is_blank
from klarsicht.audit.explanation.data.pictures import PictureReader
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
class TableReader(PictureReader):
    """Pictures in a column, of bytes or of structs with the field `bytes`, of parquet or Arrow files; a path is
    FILE#ROW."""

    column: str

    def read(self, path: str) -> bytes:
        import pyarrow as pa

        file, _, row = path.rpartition("#")
        try:
            value = _open_table(file).cell(self.column, int(row))
            value = value.get("bytes") if isinstance(value, Mapping) else value
        except (pa.ArrowException, OSError) as error:
            if is_out_of_memory(error) or is_fault_of_place(error):
                raise
            raise ImageError("a picture cannot be read from its table", got=f"{path}: {error}") from error
        if value is None:
            raise ImageError("no picture in this row", got=path, rule="bytes of an image file")
        return bytes(value)


def picture_column(schema: pa.Schema, name: str = "") -> str:
    """Return the column of pictures, bytes or structs with the field `bytes`: the one of a user's name, if it is such a
    column, else the first of PICTURE_NAMES or of all; "" where there is none."""
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
    """Read the schema of a parquet or Arrow file; raises CorpusError where that fails."""
    return _open_table(file).schema


def open_tables(root: str, files: Sequence[str], names: ColumnNames) -> Corpus:
    """Open a corpus of tables that hold pictures, by their paths inside a folder or URL. The name of a split is read
    from names such as train-00000-of-00002.parquet, or is that of their folder; columns are by default one of
    PICTURE_NAMES, or the first of bytes, one of LABEL_NAMES, and `source`. Raises CorpusError where a file cannot be
    read, or lacks a column."""
    import pyarrow as pa

    rows: list[CorpusRow] = []
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
            table = _open_table(path).read_columns([name for name in (label, source, split) if name])
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise CorpusError("a table cannot be read", got=f"{path}: {error}", rule="parquet or Arrow") from error
        n, brought = table.num_rows, class_names(schema, label, root)
        classes = make_distinct(brought)
        if not rows and (told := describe_renamed(brought, classes)):
            note(told)
        labels = [_label_text(value, classes) for value in table[label].to_pylist()]
        if "" in labels:
            raise CorpusError("a row has no label", got=f"{path}#{labels.index('')}")
        sources = map(_text, table[source].to_pylist()) if source else [""] * n
        splits = map(_text, table[split].to_pylist()) if split else [_split_of(file)] * n
        for row, (name, origin, part) in enumerate(zip(labels, sources, splits, strict=True)):
            rows.append(CorpusRow(f"{file}#{row}", f"{path}#{row}", name, origin, part))
    return Corpus.of_rows(rows, TableReader(column))


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
        got, remedy = f"{file} with columns {', '.join(schema.names)}", f"Name it by --{what}-column."
        raise CorpusError(f"a table without the column {name or what}", got=got, remedy=remedy)
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


_groups: OrderedDict[tuple[str, str, int], Any] = OrderedDict()  # row groups used last, up to GROUP_BYTES in all


def close_tables() -> None:
    """Forget the files that are open: they may have been replaced."""
    _open_table.cache_clear()
    _groups.clear()


class _Parquet:
    """Open parquet file, whose row groups are read when a cell of them is asked for."""

    def __init__(self, name: str) -> None:
        from pyarrow import parquet

        self.name, self.file = name, parquet.ParquetFile(locations.open_binary(name))
        counts = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = [sum(counts[:i]) for i in range(len(counts))]
        self.schema = self.file.schema_arrow

    def read_columns(self, names: list[str]) -> pa.Table:
        return self.file.read(columns=names)

    def cell(self, column: str, row: int) -> Any:
        group = max(i for i, start in enumerate(self.starts) if start <= row)
        key = (self.name, column, group)
        if key not in _groups:
            _groups[key] = self.file.read_row_group(group, columns=[column])[column].combine_chunks()
            while len(_groups) > 1 and sum(cells.nbytes for cells in _groups.values()) > GROUP_BYTES:
                _groups.popitem(last=False)
        _groups.move_to_end(key)
        return _groups[key][row - self.starts[group]].as_py()


class _ArrowStream:
    """Arrow stream, mapped into memory; pictures are read when they are asked for."""

    def __init__(self, name: str) -> None:
        import pyarrow as pa

        source = io.BytesIO(locations.read_all(name)) if locations.is_url(name) else pa.memory_map(name)
        self.table = pa.ipc.open_stream(source).read_all()
        self.schema = self.table.schema

    def read_columns(self, names: list[str]) -> pa.Table:
        return self.table.select(names)

    def cell(self, column: str, row: int) -> Any:
        return self.table[column][row].as_py()


@lru_cache(maxsize=512)
def _open_table(name: str) -> _Parquet | _ArrowStream:
    import pyarrow as pa

    kind, rule = (_Parquet, "parquet") if name.endswith(PARQUET) else (_ArrowStream, "an Arrow stream")
    try:
        return kind(name)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorpusError("a table cannot be read", got=f"{name}: {error}", rule=rule) from error
