"""Read the evidence on parts of natural classes, which nobody marked: the reference of runs of few classes."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from klarsicht.audit.results.part_comparison import NaturalParts, NaturalSets

NATURAL_PARTS_FILE = "natural_parts.json"
NATURAL_SETS_FILE = "natural_sets.json"


@cache
def read_natural_parts() -> NaturalParts:
    """Read the pairs that are included; benchmarks/audit/natural_pairs.py makes them."""
    record = _read_record(NATURAL_PARTS_FILE)
    columns = (np.array(record[name], np.float64) for name in ("offer", "rise", "turned"))
    return NaturalParts(tuple(record["parts"]), *columns)


@cache
def read_natural_sets() -> NaturalSets:
    """Read the classes of sets of ten that are included; benchmarks/audit/natural_sets.py makes them."""
    record = _read_record(NATURAL_SETS_FILE)
    return NaturalSets(tuple(record["parts"]), np.array(record["scores"], np.float64))


def _read_record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((files(__package__) / name).read_text("utf-8"))
    return record
