"""Schemas of tables whose rows are typed dictionaries: columns are declared once, as the keys of the row."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa

ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_(), bytes: pa.binary()}


def schema_of(row: type) -> pa.Schema:
    """Make the schema of a TypedDict whose values are int, float, str, bool, bytes, lists of these, or one or None."""
    return pa.schema([(name, _arrow_type(kind)) for name, kind in get_type_hints(row).items()])


def _arrow_type(kind: Any) -> pa.DataType:
    if NoneType in get_args(kind):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    return pa.list_(_arrow_type(get_args(kind)[0])) if get_origin(kind) is list else ARROW[kind]
