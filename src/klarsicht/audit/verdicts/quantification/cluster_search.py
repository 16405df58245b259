"""Search the cluster of a class that the model follows, with images that come in until their rises say enough.

Images cost forward passes, so they are measured in looks, those of clusters that stand apart first. At each look a
permutation test says whether any cluster rises beyond the other images: where one does, the search is settled; where
the rise is one of chance, the class is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from klarsicht.audit.verdicts.interventions.regions import DONORS_PER_IMAGE, MAX_COMPONENTS, RegionEffects
from klarsicht.ground.arrays import Bools, Floats, Rows
from klarsicht.numerics.statistics import rising_groups

SEARCH_LOOKS: Final = (32, 64, 96)  # images of a class that are measured, at most
FOLLOWED_BACKGROUNDS: Final = 32  # images of other classes on which the effect of the cluster is measured
SETTLE_LEVEL: Final = 0.05  # probability that a class without a rising cluster is settled at any look
LEFT_P: Final = 0.5  # of the permutation test, above which a class is left

Measure = Callable[[Rows, int], RegionEffects]  # of images (positions among those of the class) at a look


def search_looks(images: int) -> tuple[int, ...]:
    """Return how many of the images of a class have been measured at each look."""
    return (*(look for look in SEARCH_LOOKS[:-1] if look < images), min(images, SEARCH_LOOKS[-1]))


def search_in_looks(
    measure: Measure, members: Bools, distance: Floats, evidence: Floats, rng: np.random.Generator
) -> tuple[RegionEffects, Rows] | None:
    """Measure images of a class until a cluster rises significantly, or none is likely to; return the effects and
    positions of the measured images, or None where the class is left.

    Args:
        measure: function from positions of images and the number of the look to their effects.
        members: bool (m, n), clusters of the n images of the class.
        distance: (m,), in deviations, at which each stands apart in the compared features.
        evidence: (n,), level of the class's logit of each image.
        rng: draws the order and the permutations.
    """
    weight = distance * (1 + np.maximum(rising_groups.cohen_d_bounds(members, evidence[None])[:, 0], 0))
    order = rising_groups.order_by_group(members, weight, rng)
    sizes = search_looks(len(order))
    effects, before = None, 0
    for look, (size, level) in enumerate(zip(sizes, rising_groups.settle_levels(sizes, SETTLE_LEVEL), strict=True)):
        more = measure(order[before:size], look)
        effects, before = effects.join(more) if effects else more, size
        p = rising_groups.permutation_p(members[:, order[:size]], effects.rise, distance, rng)
        if p <= level:
            break
        if p > LEFT_P:
            return None
    return (effects, order[:before]) if effects and effects.rise.any() else None


def most_images_shown(images: int) -> tuple[int, int]:
    """Bound the number of images shown to the network for a class of so many: where it is left at the first look, and
    at most."""
    sizes, regions = search_looks(images), MAX_COMPONENTS + 1
    first, last = (2 * regions * size for size in (sizes[0], sizes[-1]))
    return first + 1, last + len(sizes) + FOLLOWED_BACKGROUNDS * (1 + 2 * DONORS_PER_IMAGE)
