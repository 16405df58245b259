"""Read the evidence on parts of natural pairs of classes, which nobody marked: the reference of runs of few classes."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

from klarsicht.audit.results.sufficiency import NaturalParts

NATURAL_PARTS_FILE = "natural_parts.json"


@cache
def read_natural_parts() -> NaturalParts:
    """Read the pairs that are included; benchmarks/audit/natural_pairs.py makes them."""
    record = json.loads((files(__package__) / NATURAL_PARTS_FILE).read_text("utf-8"))
    columns = (np.array(record[name], np.float64) for name in ("offer", "rise", "turned"))
    return NaturalParts(tuple(record["parts"]), *columns)
