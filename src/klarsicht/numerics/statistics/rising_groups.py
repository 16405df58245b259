"""Test whether one of many overlapping groups of images has larger values than the other images, at several looks.

At every look the largest statistic over all groups is compared with its distribution when values are dealt to the
images at random (Westfall and Young 1993). A share of the level is spent at each look (Lan and DeMets 1983), so that
the level holds whenever the test ends."""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Bools, Doubles, Floats, Rows

Z95_ONE_SIDED = 1.645  # standard errors to the lower end of a one-sided 95 % interval
FLAT = 1e-9  # smallest standard deviation
MIN_MEMBERS = 2  # of a group, and of the others
PERMUTATIONS = 199
EQUAL_STATISTICS = 1e-9  # relative difference up to which two differ by rounding alone


def cohen_d_bounds(members: Bools, values: Floats) -> Doubles:
    """Compute lower ends of one-sided 95 % intervals of Cohen's d, of the values (v, n) of members (m, n) against the
    others: (m, v); -inf where either are fewer than MIN_MEMBERS."""
    n = members.shape[1]
    own = members.sum(1, keepdims=True).astype(np.float64)
    rest = n - own
    fit = (own >= MIN_MEMBERS) & (rest >= MIN_MEMBERS)
    a, b = np.where(fit, own, 1.0), np.where(fit, rest, 1.0)
    centred = values - values.mean(1, keepdims=True)  # else the variance is the difference of large numbers
    total = members.astype(np.float64) @ centred.T
    mean, other = total / a, -total / b
    within = np.sqrt(np.maximum((centred**2).sum(1) - a * mean**2 - b * other**2, 0) / max(n - 2, 1))
    bound = (mean - other) / np.maximum(within, FLAT) - Z95_ONE_SIDED * np.sqrt(1 / a + 1 / b)
    return np.where(fit, bound, -np.inf)


def weighted_bounds(members: Bools, values: Floats, weight: Floats) -> Doubles:
    """Multiply the positive ones of `cohen_d_bounds` by the weight (m,) of each group."""
    bound = cohen_d_bounds(members, values)
    return np.where(bound > 0, weight[:, None] * bound, bound)


def permutation_p(members: Bools, value: Floats, weight: Floats, rng: np.random.Generator) -> float:
    """Compute the p-value of the largest of `weighted_bounds` over groups (m, n), for values (n,), among PERMUTATIONS
    random deals of the values to the images, equal ones included; 1 without a group."""
    dealt = np.stack([value, *(rng.permutation(value) for _ in range(PERMUTATIONS))])
    largest = weighted_bounds(members, dealt, weight).max(0, initial=-np.inf)
    reached = largest >= largest[0] - EQUAL_STATISTICS * abs(largest[0])
    return float(reached.mean()) if np.isfinite(largest[0]) else 1.0


def settle_levels(sizes: tuple[int, ...], level: float) -> Doubles:
    """Compute the level of the test at each look at so many images, in proportion to the images that came in."""
    return level * np.diff((0, *sizes)) / sizes[-1]


def order_by_group(members: Bools, weight: Floats, rng: np.random.Generator) -> Rows:
    """Order n images for looks: those of the groups (m, n) of largest weight (m,), else met late, alternating with
    random ones. Groups of more than half of the images and of no positive weight have no say."""
    n = members.shape[1]
    speaks = (members.mean(1) <= 0.5) & (weight > 0)
    largest = (members[speaks] * weight[speaks, None]).max(0, initial=0.0)
    first = np.lexsort((rng.random(n), -largest))
    turns = np.stack([first, rng.permutation(n)], 1).ravel()
    return np.asarray(turns[np.sort(np.unique(turns, return_index=True)[1])], np.intp)
