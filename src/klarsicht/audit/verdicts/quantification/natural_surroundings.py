"""Pairs of natural classes, beside which it is judged whether classes have a shortcut in their surroundings."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from klarsicht.audit.results.surroundings import SURROUNDINGS_LEVEL
from klarsicht.ground.arrays import Doubles

NATURAL_SURROUNDINGS = Path(__file__).parent / "natural_surroundings.json"


def rank_among_natural(separate: float) -> float:
    """Compute the rank of `OwnPlaces.separate` of some classes among that of pairs of natural classes, as p. It is
    above chance, and near 0 for sets of ten natural classes, so that pairs are the reference for any number."""
    natural = natural_pairs()
    return float((1 + (natural >= separate).sum()) / (1 + len(natural)))


@cache
def natural_pairs() -> Doubles:
    """Read `OwnPlaces.separate` of pairs of natural classes, which come along; lab/benchmarks/whole-classes.md says how
    they were made, and benchmarks/audit/natural_surroundings.py makes such."""
    return np.array(json.loads(NATURAL_SURROUNDINGS.read_text(encoding="utf-8"))["separate"], float)


def largest_ordinary_share() -> float:
    """Return the largest `OwnPlaces.separate` of natural pairs that is no shortcut beside the others."""
    return float(max(filter(is_ordinary, natural_pairs())))


def is_ordinary(separate: float) -> bool:
    """Say whether `OwnPlaces.separate` of some classes is no shortcut beside that of natural pairs."""
    return rank_among_natural(separate) > SURROUNDINGS_LEVEL
