"""Schemas of typed rows: the columns of a table that pyarrow makes of such a row by itself."""

from typing import TypedDict

import pyarrow as pa

from klarsicht.ground.rows import schema_of


class Row(TypedDict):
    name: str
    count: int
    share: float
    known: bool
    rows: list[int]
    parts: list[list[int]]


def test_a_schema_is_what_pyarrow_infers_from_a_row():
    row: Row = {"name": "a", "count": 1, "share": 0.5, "known": True, "rows": [1, 2], "parts": [[1], []]}
    inferred = pa.Table.from_pylist([row]).schema
    assert schema_of(Row) == inferred and schema_of(Row).names == list(row)


def test_columns_of_bases_come_first():
    class More(Row):
        last: str

    assert schema_of(More).names == [*Row.__annotations__, "last"]
