"""Manifests of a corpus: CSV or parquet, one row per image: path, label, optionally source, split, weight,
white_level.

An image may have several labels, see audit.data.label_cells.
"""

from __future__ import annotations

import math
from pathlib import Path

from klarsicht.audit.data.label_cells import LabelCells, join_columns
from klarsicht.ground.errors import CorpusError
from klarsicht.ground.images import FULL

REQUIRED, OPTIONAL = ("path", "label"), ("source", "split", "weight", "white_level")
ONE_LABEL = LabelCells()


def read_columns(manifest: Path, cells: LabelCells = ONE_LABEL) -> dict[str, list[str]]:
    """Read the known columns of a manifest as text; class columns are joined to the column `label`.

    Args:
        cells: how labels are written.

    Raises:
        CorpusError: the manifest cannot be read, or lacks a required column or value.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if manifest.suffix.lower() == ".parquet":
            table = parquet.ParquetFile(manifest).read()
        else:
            text = {name: pa.string() for name in (*REQUIRED, *OPTIONAL, *cells.columns)}
            as_text = csv.ConvertOptions(column_types=text, strings_can_be_null=False)
            table = csv.read_csv(manifest, convert_options=as_text)
        chosen = cells.choose_columns(table.column_names, (*REQUIRED, *OPTIONAL))
        known = [name for name in (*REQUIRED, *OPTIONAL, *chosen) if name in table.column_names]
        columns = {name: ["" if v is None else str(v) for v in table[name].to_pylist()] for name in known}
        names = ", ".join(table.column_names)
    except (KeyError, ValueError, TypeError, OverflowError, OSError, pa.ArrowException) as error:
        got = f"{manifest}: {error}"  # a column twice, a text that is not UTF-8, a date beyond Python's
        raise CorpusError("the manifest cannot be read", got=got, rule="CSV or parquet") from error
    if chosen:
        columns["label"] = join_columns({name: columns[name] for name in chosen})
    needed = ("path",) if cells.several else REQUIRED
    for name in REQUIRED:
        if name not in columns:
            rule = "path,label[,source,split,weight,white_level]"
            raise CorpusError(f"the manifest lacks the column {name}", got=f"columns {names}", rule=rule)
        if name in needed and "" in columns[name]:
            line = columns[name].index("") + 2
            raise CorpusError(f"a line of the manifest has no {name}", got=f"line {line}")
    return {name: columns[name] for name in (*REQUIRED, *OPTIONAL) if name in columns}


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
