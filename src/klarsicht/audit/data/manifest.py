"""Manifests of a corpus: CSV or parquet, one row per image: path, label, optionally source, split, weight."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import CorpusError

REQUIRED, OPTIONAL = ("path", "label"), ("source", "split", "weight")


def read_columns(manifest: Path) -> dict[str, list[str]]:
    """Read the known columns of a manifest as text.

    Raises:
        CorpusError: the manifest cannot be read, or lacks a required column or value.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if manifest.suffix.lower() == ".parquet":
            table = parquet.ParquetFile(manifest).read()
        else:
            text = {name: pa.string() for name in (*REQUIRED, *OPTIONAL)}
            as_text = csv.ConvertOptions(column_types=text, strings_can_be_null=False)
            table = csv.read_csv(manifest, convert_options=as_text)
        columns = {name: table[name].to_pylist() for name in (*REQUIRED, *OPTIONAL) if name in table.column_names}
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise CorpusError("the manifest cannot be read", got=f"{manifest}: {error}", rule="CSV or parquet") from error
    absent = [name for name in REQUIRED if name not in columns]
    if absent:
        raise CorpusError(
            f"the manifest lacks the column {absent[0]}",
            got=f"columns {', '.join(table.column_names)}",
            rule="path,label[,source,split,weight]",
        )
    return {name: _column_texts(column, name) for name, column in columns.items()}


def _column_texts(column: list[Any], name: str) -> list[str]:
    values = ["" if value is None else str(value) for value in column]
    if name in REQUIRED and "" in values:
        raise CorpusError(f"a line of the manifest has no {name}", got=f"line {values.index('') + 2}")
    return values


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
