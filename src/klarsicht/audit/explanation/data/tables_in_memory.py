"""Corpora that are tables in memory, as those of pandas: one row an image, with its path or the picture itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from klarsicht.audit.explanation.data import locations, manifest
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.label_cells import LabelCells
from klarsicht.audit.explanation.data.manifest import DEFAULT_NAMES, ColumnNames
from klarsicht.audit.explanation.data.pictures import FileReader
from klarsicht.audit.explanation.data.sequences import LABEL_KEYS, PICTURE_KEYS, open_sequence
from klarsicht.ground.errors import CorpusError


@dataclass(frozen=True)
class ListedFiles(FileReader):
    """Picture files that a table in memory lists; a run does not store the table."""


@dataclass(frozen=True)
class TableRows:
    """Rows of a table with pictures, as items (picture, label, source, weight) of a sequence."""

    columns: tuple[Sequence[Any], ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int, /) -> tuple[Any, ...]:
        return tuple(column[index] for column in self.columns)


def is_table(data: Any) -> bool:
    """Test for a table in memory, of pandas or of polars."""
    return hasattr(data, "columns") and (hasattr(data, "to_csv") or hasattr(data, "write_csv"))


def open_table(
    data: Any, cells: LabelCells = manifest.ONE_LABEL, names: ColumnNames = DEFAULT_NAMES, decoder: str = "",
    classes: Sequence[str] | None = None,
) -> Corpus:  # fmt: skip
    """Open a table in memory as a corpus: as the manifest with the same columns where it has a column `path`, else as
    the sequence of its pictures, in a column image, img, picture or pixel_values; arguments as of `open_corpus`.
    Relative paths start from the current folder. Raises CorpusError where the table lacks a column or a value, or names
    files that do not exist."""
    columns = {str(name): list(data[name]) for name in data.columns}
    path, label = names.path or "path", names.label or _first_of(LABEL_KEYS, columns) or "label"
    if path in columns and all(isinstance(one, str) or hasattr(one, "__fspath__") for one in columns[path]):
        _require_labels(columns, label, cells)
        return _open_paths(columns, cells, replace(names, label=label), decoder)
    picture = path if path in columns else _first_of(PICTURE_KEYS, columns)
    if not picture:
        raise _lacking_column("path", columns)
    _require_labels(columns, label, manifest.ONE_LABEL)
    blank = [None] * len(columns[picture])
    more = (columns.get(name, blank) for name in (names.source or "source", "weight"))
    filled = ([None if manifest.is_blank(value) else value for value in of] for of in more)
    rows = TableRows((columns[picture], columns[label], *filled))
    return open_sequence(rows, classes)


def _open_paths(columns: Mapping[str, Sequence[Any]], cells: LabelCells, names: ColumnNames, decoder: str) -> Corpus:
    import pyarrow as pa

    texts = {name: ["" if manifest.is_blank(value) else str(value) for value in of] for name, of in columns.items()}
    table = pa.table({name: pa.array(of, pa.string()) for name, of in texts.items()})
    known = manifest.select_columns(table, cells, names)
    corpus = Corpus.from_columns(known, locations.parent("table"), cells, decoder, "table", "the current folder")
    return replace(corpus, reader=ListedFiles())


def _require_labels(columns: Mapping[str, Sequence[Any]], label: str, cells: LabelCells) -> None:
    """Check that each row has a label, where an image has one."""
    if cells.columns:
        return
    if label not in columns:
        raise _lacking_column(label, columns)
    blank = [row for row, value in enumerate(columns[label]) if manifest.is_blank(value)]
    if blank and not cells.several:
        raise CorpusError(f"a row of the table has no {label}", got=f"row {blank[0]}, counted from 0")


def _lacking_column(name: str, columns: Mapping[str, Any]) -> CorpusError:
    return CorpusError(
        f"the table lacks the column {name}", got=f"columns {', '.join(columns) or 'none'}",
        rule="columns path,label or image,label[,source,split,weight,white_level]",
        remedy=f'data.rename(columns={{"...": "{name}"}}) names it.',
    )  # fmt: skip


def _first_of(names: Sequence[str], columns: Mapping[str, Any]) -> str:
    return next((name for name in names if name in columns), "")
