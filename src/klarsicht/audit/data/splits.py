"""Three parts of a corpus without a common source: one to fit a correction on, one to choose it on, one to show it on.

Leakage would flatter every correction: whoever draws images names the part, and what a record was fitted on is checked
by source wherever something is shown.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import UsageError

TRAIN, VALIDATION, TEST = 0, 1, 2
NAMES: Final = ("fit", "choose", "show")
DEAL: Final = (TRAIN, TEST, VALIDATION, TRAIN, TEST)
"""How sources are dealt out, again and again: two fifths to fit, one to choose, two to show."""


def split_by_source(sources: Ints, member: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int8]:
    """The part of each image (N,), by its source; sources with members are dealt first, so that every part has some.

    Raises:
        UsageError: members come from fewer than three sources.
    """
    holding = np.unique(sources[member])
    if len(holding) < len(NAMES):
        raise UsageError(
            "too few images to fit on some, choose on some and show on others",
            got=f"{int(member.sum())} members from {len(holding)} source(s)",
            rule="members from at least three sources",
        )
    part = np.zeros(int(sources.max()) + 1, np.int8)
    for some in (holding, np.setdiff1d(sources, holding)):
        part[rng.permutation(some)] = np.resize(DEAL, len(some))
    return np.asarray(part[sources])


def check_apart(fitted: Ints, shown: Ints) -> None:
    """Refuses images of a source that something was fitted on; both are numbers of sources.

    Raises:
        UsageError: they share a source.
    """
    if len(common := np.intersect1d(fitted, shown)):
        raise UsageError(
            "a correction may not be shown on what it was fitted on",
            got=f"{len(common)} source(s) in both",
            rule="images to fit on, to choose on and to show come from different sources",
            remedy="Show it on the part `show`, or on another corpus.",
        )
