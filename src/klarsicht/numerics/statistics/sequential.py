"""Tests that may stop early: group-sequential critical values by alpha spending, and sequential Monte Carlo p-values.

Alpha spending (Lan and DeMets 1983, Biometrika 70) gives every look a share of the level; the critical values follow
from the joint distribution of the looks (Armitage, McPherson and Rowe 1969, JRSS A 132). Intervals at these values hold
at all looks together (Jennison and Turnbull 1989, JRSS B 51), whatever the rule by which a test stops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.special import ndtr, ndtri, stdtrit

from klarsicht.ground.arrays import Doubles

NODES = 201  # of the integral over the paths that have not stopped
FARTHEST = 9.0  # standard deviations within which a critical value is searched


def spend_level(time: float, level: float) -> float:
    """Compute the share of a two-sided level that is spent up to a time in (0, 1], the share of the data seen: nearly
    nothing early, as the bounds of O'Brien and Fleming (1979), 2 - 2 Phi(z / sqrt(time)) on either side."""
    return float(4 * ndtr(ndtri(level / 4) / np.sqrt(time)))


@lru_cache(maxsize=32)
def critical_values(times: tuple[float, ...], level: float) -> tuple[float, ...]:
    """Compute the two-sided critical values of a standardised mean at looks at increasing shares of the data, any of
    which is exceeded with the probability of the level where the mean is zero."""
    from scipy.optimize import brentq

    x, weight = leggauss(NODES)
    values: list[float] = []
    points, density = np.zeros(1), np.ones(1)  # of the sum (a Brownian motion) at the look before
    before = level_spent = 0.0
    for time in times:
        step = np.sqrt(time - before)
        budget = spend_level(time, level) - level_spent

        def excess(value: float, step: float = step, budget: float = budget, time: float = time) -> float:
            edge = value * np.sqrt(time)
            beyond = ndtr((points - edge) / step) + ndtr((-points - edge) / step)  # noqa: B023
            return float(density @ beyond) - budget  # noqa: B023

        values.append(float(brentq(excess, 0.0, FARTHEST)))
        edge = values[-1] * np.sqrt(time)
        inside = edge * x
        reached = np.exp(-((inside[:, None] - points) ** 2) / (2 * step**2)) / (step * np.sqrt(2 * np.pi))
        points, density = inside, edge * weight * (reached @ density)
        before, level_spent = time, level_spent + budget
    return tuple(values)


def look_quantiles(sizes: Sequence[int], level: float) -> Doubles:
    """Compute by how many standard errors the interval of a mean reaches at looks at so many values, by Student's t, as
    the deviation is estimated."""
    values = critical_values(tuple(size / sizes[-1] for size in sizes), level)
    return np.array([stdtrit(size - 1, ndtr(value)) for size, value in zip(sizes, values, strict=True)])


def sequential_p(exceeded: Iterable[bool], count: int, enough: int) -> float:
    """Compute a Monte Carlo p-value, drawing no more than it needs (Besag and Clifford 1991, Biometrika 78): `enough`
    over the number of draws, once `enough` of them have reached what was observed; else (1 + number that reached it) /
    (count + 1). `exceeded` is read only as far as needed."""
    hits = draws = 0
    for draws, one in zip(range(1, count + 1), exceeded, strict=False):
        hits += one
        if hits == enough:
            return enough / draws
    return (1 + hits) / (draws + 1)
