"""Groups of images that are analysed together for one output of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import unknown_name
from klarsicht.ground.ranges import parse_digits

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Group:
    """A group of images that are analysed together for one target class: its name, its output, and the rows of the
    corpus, int (n,), ascending."""

    name: str
    target: int
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)


def first_of_each(images: Ints, targets: Ints) -> NDArray[np.bool_]:
    """Mark the first row of each (image, target) pair, bool (N,): two labels of an image may have one output. `images`
    and `targets`, int (N,), are the number of the image and the output of each row."""
    first = np.zeros(len(images), bool)
    pairs = images.astype(np.int64) * (int(targets.max(initial=0)) + 2) + targets + 1  # a target is -1 or more
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


def group_by_label(targets: Ints, names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Group the usable images, bool (N,), by the output of their label, int (N,), sorted by class name; labels of one
    output form one group."""
    found = sorted(np.unique(targets).tolist(), key=lambda c: names[c])
    return [Group(names[c], c, np.flatnonzero((targets == c) & usable)) for c in found]


def group_by_prediction(predicted: Ints, names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Group the usable images by predicted class; arguments as in `group_by_label`."""
    found = np.unique(predicted[usable])
    return [Group(names[c], int(c), np.flatnonzero((predicted == c) & usable)) for c in found]


def group_for_screening(targets: Sequence[int], names: Sequence[str], usable: NDArray[np.bool_]) -> list[Group]:
    """Pair each target class with all usable images of the corpus, to screen images of any class for that target."""
    rows = np.flatnonzero(usable)
    return [Group(names[c], int(c), rows) for c in targets]


FURTHER_ARTIFACT = re.compile(r"(.+) \(artifact ([2-9])\)")


def find_output(name: str, names: Sequence[str], index: Mapping[str, int]) -> int:
    """Find the output index of a class given by corpus label, by the model's class name or by number; raises
    UsageError, which lists near matches."""
    if name in index:
        return index[name]
    if name in names:
        return list(names).index(name)
    if (number := parse_digits(name)) is not None and number < len(names):
        return number
    raise unknown_name("class", name, [*names, *index])


def find_artifact(name: str, names: Sequence[str], index: Mapping[str, int]) -> tuple[int, int]:
    """Find the output index of the class of an artifact, and its number in the class, by the name of either; raises as
    `find_output`."""
    further = FURTHER_ARTIFACT.fullmatch(name)
    if further is None or name in index or name in names:
        return find_output(name, names, index), 1
    return find_output(further[1], names, index), int(further[2])
