"""Manifests of a corpus: CSV or parquet, one row per image: path, label, optionally source, split, weight,
white_level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.label_cells import LabelCells, join_columns
from klarsicht.ground.errors import CorpusError
from klarsicht.ground.pictures.pixel_depths import FULL

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED, OPTIONAL = ("path", "label"), ("source", "split", "weight", "white_level")
ONE_LABEL = LabelCells()
LOOKED_AT, UTF16_MARKS = 1024, (b"\xff\xfe", b"\xfe\xff")  # bytes that are looked at, and how a text in UTF-16 begins
OTHER_SEPARATORS = (";", "\t", "|")  # of columns, as spreadsheets and databases write them


@dataclass(frozen=True)
class ColumnNames:
    """Names that a user gives to the columns of a table, or to the arrays of a file: of paths or the pictures
    themselves, of labels, and of origins that images may share; "" for the usual ones."""

    path: str = ""
    label: str = ""
    source: str = ""

    @property
    def in_manifest(self) -> dict[str, str]:
        """Names of the known columns of a manifest, by their usual names."""
        return {usual: getattr(self, usual, "") or usual for usual in (*REQUIRED, *OPTIONAL)}


DEFAULT_NAMES: Final = ColumnNames()


def read_columns(
    manifest: str | Path, cells: LabelCells = ONE_LABEL, names: ColumnNames = DEFAULT_NAMES
) -> dict[str, list[str]]:
    """Read the known columns of a manifest, a file or URL, as text; class columns are joined to the column `label`.
    Raises CorpusError where it cannot be read, or lacks a required column or value."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    own = names.in_manifest.values()
    try:
        with locations.open_binary(str(manifest)) as file:
            if str(manifest).lower().endswith(".parquet"):
                table = parquet.ParquetFile(file).read()
            else:
                _require_text(manifest, file)
                text = {name: pa.string() for name in (*own, *cells.columns)}
                as_text = csv.ConvertOptions(column_types=text, strings_can_be_null=False)
                table = csv.read_csv(file, convert_options=as_text)
        return select_columns(table, cells, names)
    except (KeyError, ValueError, TypeError, OverflowError, OSError, pa.ArrowException) as error:
        got = f"{manifest}: {error}"  # a column twice, a text that is not UTF-8, a date beyond Python's
        remedy = "Save it as UTF-8." if "UTF8" in str(error) else "Write one line an image, with columns path,label."
        raise CorpusError("the manifest cannot be read", got=got, rule="CSV or parquet", remedy=remedy) from error


def select_columns(table: pa.Table, cells: LabelCells, names: ColumnNames) -> dict[str, list[str]]:
    """Select the known columns of a table as text, as `read_columns` does; raises CorpusError where one is missing."""
    known = names.in_manifest
    chosen = cells.choose_columns(table.column_names, known.values())
    read = {usual: name for usual, name in known.items() if name in table.column_names}
    read |= {name: name for name in chosen if name not in known.values()}
    columns = {usual: ["" if is_blank(v) else str(v) for v in table[name].to_pylist()] for usual, name in read.items()}
    listed = ", ".join(table.column_names)
    if chosen:
        columns["label"] = join_columns({name: columns[name] for name in chosen})
    needed = ("path",) if cells.several else REQUIRED
    for usual in REQUIRED:
        name = known[usual]
        if usual not in columns:
            rule = "path,label[,source,split,weight,white_level]"
            other = next((s for s in OTHER_SEPARATORS if table.num_columns == 1 and s in listed), None)
            by = {None: "", "\t": "tabs"}.get(other, f"'{other}'")
            by_commas = f"Its columns are separated by {by}: save it with commas."
            remedy, got = by_commas if by else f"Name it by --{usual}-column.", f"columns {listed}"
            raise CorpusError(f"the manifest lacks the column {name}", got=got, rule=rule, remedy=remedy)
        if usual in needed and "" in columns[usual]:
            line = columns[usual].index("") + 2
            raise CorpusError(f"a line of the manifest has no {name}", got=f"line {line}")
    if names.source and "source" not in columns:
        what, remedy = f"the manifest lacks the column {names.source}", "Correct --source-column, or leave it out."
        raise CorpusError(what, got=f"columns {listed}", remedy=remedy)
    return {name: columns[name] for name in (*REQUIRED, *OPTIONAL) if name in columns}


def is_blank(value: Any) -> bool:
    """Test whether a cell holds nothing: None, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _require_text(manifest: str | Path, file: IO[bytes]) -> None:
    """Check that a manifest is text: raises CorpusError for a byte 0 at its beginning, but not of UTF-16, for which the
    reader has an error of its own."""
    head = file.read(LOOKED_AT)
    file.seek(0)
    if b"\0" in head and not head.startswith(UTF16_MARKS):
        rule = "a folder of pictures, or CSV or parquet with one line an image"
        raise CorpusError("no manifest", got=manifest, rule=rule, remedy="Give the folder that the pictures lie in.")


def parse_weights(texts: Iterable[str]) -> tuple[float, ...]:
    """Parse sample weights, finite numbers above 0; a blank means 1. Raises CorpusError for any other text."""
    what, rule = "a weight is not a number above 0", "blank stands for 1"
    return tuple(_parse_numbers(texts, 1, lambda value: 0 < value < math.inf, what, rule))


def parse_white_levels(texts: Iterable[str]) -> tuple[int, ...]:
    """Parse codes of white, 1 to 65535; a blank means 0, which stands for unknown. Empty where all are blank. Raises
    CorpusError for any other text."""
    what, rule = "a white level out of range", f"the code of white, 1 to {FULL}, blank where it is {FULL}"
    levels = _parse_numbers(texts, 0, lambda value: 1 <= value <= FULL and value == int(value), what, rule)
    return tuple(map(int, levels)) if any(levels) else ()


def _parse_numbers(
    texts: Iterable[str], blank: float, fits: Callable[[float], bool], what: str, rule: str
) -> list[float]:
    """Parse the numbers of a column, `blank` for a blank; raises CorpusError for one that is none, or does not fit."""
    numbers = []
    for line, text in enumerate(texts, start=2):
        try:
            value = float(text or blank)
        except ValueError:
            value = math.nan
        if text and not fits(value):
            raise CorpusError(what, got=f"{text!r} in line {line}", rule=rule)
        numbers.append(value)
    return numbers
