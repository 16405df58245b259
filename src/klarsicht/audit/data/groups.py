"""Which images are analysed together, and for which output of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import unknown_name

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Group:
    """Images looked at together.

    Attributes:
        name: the class the evidence is for.
        target: index of that class among the model's outputs.
        rows: int (n,), rows of the run, ascending.
    """

    name: str
    target: int
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)


def by_label(targets: Ints, names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Each class on the images that carry its label; labels of one output are one class. By name."""
    found = sorted(np.unique(targets).tolist(), key=lambda c: names[c])
    return [Group(names[c], c, np.flatnonzero((targets == c) & usable)) for c in found]


def by_prediction(predicted: Ints, names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Each class on the images that the model takes for it."""
    found = np.unique(predicted[usable])
    return [Group(names[c], int(c), np.flatnonzero((predicted == c) & usable)) for c in found]


def screening(targets: Sequence[int], names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Each target on the whole corpus: which images of any class make the model think of it?"""
    rows = np.flatnonzero(usable)
    return [Group(names[c], int(c), rows) for c in targets]


def output_named(name: str, names: Sequence[str], index: Mapping[str, int]) -> int:
    """The model's output for a class given by label, by the model's own name or by number.

    Raises:
        UsageError: no such class; near matches are listed.
    """
    if name in index:
        return index[name]
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise unknown_name("class", name, [*names, *index])
