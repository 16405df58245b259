"""Split of a corpus by source into parts that share no source: a correction is fitted on the training part (`fit`), its
settings are selected on the validation part (`choose`), and it is evaluated on the test part (`show`). Every sample
names its part, since leakage would overstate the correction."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import UsageError

TRAIN, VALIDATION, TEST = 0, 1, 2
NAMES: Final = ("fit", "choose", "show")
PART_CYCLE: Final = (TRAIN, TEST, VALIDATION, TRAIN, TEST)
"""Parts assigned to consecutive shuffled sources, cyclically: two fifths training, one validation, two test."""
UNASSIGNED: Final = -1  # part of a source before it is assigned
TRAINING_SPLITS: Final = ("train", "training")  # names in a manifest's column split, in small letters
SPLIT_FOLDERS: Final = (*TRAINING_SPLITS, "val", "valid", "validation", "test", "testing")
"""Names, in small letters, of folders that hold the class folders of a split."""


def is_training_split(name: str) -> bool:
    """Test whether a name in a manifest's column split is that of images that the model was trained on."""
    return name.strip().lower() in TRAINING_SPLITS


def split_by_source(sources: Ints, member: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int8]:
    """Assign each image to TRAIN, VALIDATION or TEST by its source, int (N,): int8 (N,). `member`, bool (N,) or (a, N),
    marks the images with the artifact, or with each of a artifacts. Their sources come first, so that every part
    contains members. Raises UsageError where members of an artifact come from fewer than three sources."""
    part = np.full(int(sources.max()) + 1, UNASSIGNED, np.int8)
    for some in (*np.atleast_2d(member), np.ones(len(sources), bool)):
        free = np.unique(sources[some])
        free = free[part[free] == UNASSIGNED]
        part[rng.permutation(free)] = np.resize(PART_CYCLE, len(free))
    part_of_row = np.asarray(part[sources])
    for some in np.atleast_2d(member):
        if len(np.unique(part_of_row[some])) < len(NAMES):
            count = len(np.unique(sources[some]))
            got = f"{int(some.sum())} members from {count} source{'s' * (count != 1)}"
            what = "too few images to fit on some, choose on some and show on others"
            raise UsageError(what, got=got, rule="members from at least three sources")
    return part_of_row


def check_disjoint_sources(fitting_sources: Ints, test_sources: Ints) -> None:
    """Check that no source index of the evaluated images is among those a correction was fitted on; raises
    UsageError."""
    if len(common := np.intersect1d(fitting_sources, test_sources)):
        raise UsageError(
            "a correction may not be shown on what it was fitted on", got=f"sources in both: {len(common)}",
            rule="images to fit on, to choose on and to show come from different sources",
            remedy="Show it on the part `show`, or on another corpus.",
        )  # fmt: skip
