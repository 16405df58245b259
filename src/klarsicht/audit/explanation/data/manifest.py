"""Manifests of a corpus: CSV or parquet, one row per image: path, label, optionally source, split, weight,
white_level.

An image may have several labels, see audit.explanation.data.label_cells.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.column_names import DEFAULT_NAMES, ColumnNames
from klarsicht.audit.explanation.data.label_cells import LabelCells, join_columns
from klarsicht.ground.errors import CorpusError
from klarsicht.ground.pictures.pixel_depths import FULL

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED, OPTIONAL = ("path", "label"), ("source", "split", "weight", "white_level")
ONE_LABEL = LabelCells()
LOOKED_AT, UTF16_MARKS = 1024, (b"\xff\xfe", b"\xfe\xff")  # bytes that are looked at, and how a text in UTF-16 begins
OTHER_SEPARATORS = (";", "\t", "|")  # of columns, as spreadsheets and databases write them


def read_columns(
    manifest: str | Path, cells: LabelCells = ONE_LABEL, names: ColumnNames = DEFAULT_NAMES
) -> dict[str, list[str]]:
    """Read the known columns of a manifest as text; class columns are joined to the column `label`.

    Args:
        manifest: a file or a URL.
        cells: how labels are written.
        names: other names of the columns path, label and source.

    Raises:
        CorpusError: the manifest cannot be read, or lacks a required column or value.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    own = _column_names(names).values()
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


def _column_names(names: ColumnNames) -> dict[str, str]:
    """Return the names of the known columns by their usual names."""
    return {usual: names.given_names.get(usual, usual) for usual in (*REQUIRED, *OPTIONAL)}


def select_columns(table: pa.Table, cells: LabelCells, names: ColumnNames) -> dict[str, list[str]]:
    """Select the known columns of a table as text, as `read_columns` does.

    Raises:
        CorpusError: a required column or value is lacking.
    """
    known = _column_names(names)
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
            remedy = by_commas if by else f"Name it by --{usual}-column."
            raise CorpusError(
                f"the manifest lacks the column {name}", got=f"columns {listed}", rule=rule, remedy=remedy
            )
        if usual in needed and "" in columns[usual]:
            line = columns[usual].index("") + 2
            raise CorpusError(f"a line of the manifest has no {name}", got=f"line {line}")
    if names.source and "source" not in columns:
        raise CorpusError(f"the manifest lacks the column {names.source}", got=f"columns {listed}")
    return {name: columns[name] for name in (*REQUIRED, *OPTIONAL) if name in columns}


def is_blank(value: Any) -> bool:
    """Test whether a cell holds nothing: None, or NaN as pandas writes it."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def _require_text(manifest: str | Path, file: IO[bytes]) -> None:
    """Check that a manifest is no picture or other file of bytes, by a byte 0 at its beginning; UTF-16 is left to the
    reader, which asks for UTF-8.

    Raises:
        CorpusError: it is.
    """
    head = file.read(LOOKED_AT)
    file.seek(0)
    if b"\0" in head and not head.startswith(UTF16_MARKS):
        rule = "a folder of pictures, or CSV or parquet with one line an image"
        raise CorpusError("no manifest", got=manifest, rule=rule, remedy="Give the folder that the pictures lie in.")


def parse_weights(texts: list[str]) -> tuple[float, ...]:
    """Parse sample weights, finite numbers above 0; a blank means 1.

    Raises:
        CorpusError: any other text.
    """
    return tuple(_parse_weight(text, line) for line, text in enumerate(texts, start=2))


def _parse_weight(text: str, line: int) -> float:
    try:
        value = float(text or 1)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise CorpusError("a weight is no number above 0", got=f"{text!r} in line {line}", rule="blank stands for 1")
    return value


def parse_white_levels(texts: list[str]) -> tuple[int, ...]:
    """Parse codes of white, 1 to 65535; a blank means 0, which stands for unknown. Empty where all are blank.

    Raises:
        CorpusError: any other text.
    """
    levels = tuple(_parse_white_level(text, line) for line, text in enumerate(texts, start=2))
    return levels if any(levels) else ()


def _parse_white_level(text: str, line: int) -> int:
    try:
        level = float(text or 0)
    except ValueError:
        level = math.nan
    if not (0 <= level <= FULL and level == int(level)) or (text and not level):
        rule = f"the code of white, 1 to {FULL}, blank where it is {FULL}"
        raise CorpusError("a white level out of range", got=f"{text!r} in line {line}", rule=rule)
    return int(level)
