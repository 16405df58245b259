"""Moments of noise that is clipped at black, and what they were before.

max(0, Y), where Y is normal with mean m and deviation s, has the mean s h(t) and the variance s^2 g(t), t = m / s:

    h = phi(t) + t Phi(t),   g = (1 + t^2) Phi(t) + t phi(t) - h^2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Numbers = npt.NDArray[np.float64]

LEAST_MEAN = -0.5  # deviations: what the mean of a block of 64 pixels without light hardly ever falls below by chance
LEAST_VARIANCE = 1e-14
TABLE_LENGTH = 2048  # of the table of means


class Unclipped(NamedTuple):
    """Means before clipping at black, each (M,). mean: before clipping. variance_left: g, the share of the variance
    that clipping left. possible: whether the mean is not too low for any light. slope: the derivative of the mean
    by the clipped mean, 1 / Phi(t)."""

    mean: Numbers
    variance_left: Numbers
    possible: npt.NDArray[np.bool_]
    slope: Numbers


def clipped_moments(t: Numbers) -> tuple[Numbers, Numbers]:
    """Compute h and g, mean and variance of a clipped normal variable of mean t and deviation 1."""
    density, below = norm.pdf(t), norm.cdf(t)
    h = density + t * below
    return h, (1 + t**2) * below + t * density - h**2


def unclip(means: Numbers, variance_at: Callable[[Numbers], Numbers]) -> Unclipped:
    """Compute the means before clipping at 0 from those after it (M,), for noise whose variance depends on the mean."""

    def deviation_at(m: Numbers) -> Numbers:
        s: Numbers = np.sqrt(np.maximum(variance_at(m), LEAST_VARIANCE))
        return s

    darkest = 2 * LEAST_MEAN * float(deviation_at(np.zeros(1))[0])
    top = np.sqrt(max(float(means.max()), 1e-12) - darkest)  # s h(t) >= m: the largest is inside
    m = np.linspace(0, top, TABLE_LENGTH) ** 2 + darkest
    s = deviation_at(m)
    mean = np.interp(means, s * clipped_moments(m / s)[0], m)
    t = mean / deviation_at(mean)
    return Unclipped(mean, clipped_moments(t)[1], t > LEAST_MEAN, 1 / norm.cdf(t))
