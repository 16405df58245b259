"""Moments of noise that is clipped at black and at white, and what they were before.

max(0, Y), where Y is normal with mean m and deviation s, has the mean s h(t) and the second moment s^2 q(t), t = m / s:

    h = phi(t) + t Phi(t),   q = (1 + t^2) Phi(t) + t phi(t).

min(w, max(0, Y)) is max(0, Y) - max(0, Y - w), and so, with u = w / s, has the mean s (h(t) - h(t - u)) and the
variance s^2 g, where

    g = q(t) - q(t - u) - 2 u h(t - u) - (h(t) - h(t - u))^2.
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
BEYOND_WHITE = 4.0  # deviations of light above white, of which clipping leaves next to nothing
NEAREST_LIMIT, FARTHEST = 3.0, 12.0  # deviations: below and above a limit, of the table of distances
TABLE_LENGTH = 2048  # of the table of means


class Unclipped(NamedTuple):
    """Means before clipping, each (M,). variance_left: g, the share of the variance that is left. possible: whether the
    mean is not too low for any light. slope: the derivative by the mean clipped at black, 1 / Phi(t)."""

    mean: Numbers
    variance_left: Numbers
    possible: npt.NDArray[np.bool_]
    slope: Numbers


def clipped_moments(t: Numbers, u: Numbers | float = np.inf) -> tuple[Numbers, Numbers]:
    """Compute mean and variance g of a normal variable of mean t and deviation 1 that is clipped at 0 and at u."""
    h, q = _moments_above_zero(t)
    above_h, above_q = _moments_above_zero(t - u)
    mean = h - above_h
    beyond = np.where(above_h > 0, u, 0.0) * above_h  # u may be infinite
    return mean, np.maximum(q - above_q - 2 * beyond - mean**2, 0)


def _moments_above_zero(t: Numbers) -> tuple[Numbers, Numbers]:
    """Compute h and q, the first and second moment of max(0, Y) for a normal variable Y of mean t and deviation 1."""
    t = np.maximum(t, -40.0)  # where both are 0 already: t may be infinite
    density, below = norm.pdf(t), norm.cdf(t)
    return density + t * below, (1 + t**2) * below + t * density


def unclip(means: Numbers, variance_at: Callable[[Numbers], Numbers], white: float = np.inf) -> Unclipped:
    """Compute the means before clipping at 0 and at white from those after it (M,), for noise whose variance depends on
    the mean. Where all is white, the mean is the least that makes it so."""

    def deviation_at(m: Numbers) -> Numbers:
        return np.sqrt(np.maximum(variance_at(m), LEAST_VARIANCE))

    darkest = 2 * LEAST_MEAN * float(deviation_at(np.zeros(1))[0])
    brightest = max(float(means.max()), 1e-12)  # s h(t) >= m: the largest is inside
    if np.isfinite(white):
        brightest = white + BEYOND_WHITE * float(deviation_at(np.array([white]))[0])
    m = np.linspace(0, np.sqrt(brightest - darkest), TABLE_LENGTH) ** 2 + darkest
    s = deviation_at(m)
    mean = np.interp(means, s * clipped_moments(m / s, white / s)[0], m)
    s = deviation_at(mean)
    t = mean / s
    return Unclipped(mean, clipped_moments(t, white / s)[1], t > LEAST_MEAN, 1 / norm.cdf(t))


def distance_from_limit(means: Numbers, variances: Numbers) -> Numbers:
    """Compute how far samples were from a clipping limit, in deviations before clipping, (M,), from the means of their
    distances from it and their variances after clipping: g(t) / h(t)^2, which falls as t rises."""
    t = np.linspace(-NEAREST_LIMIT, FARTHEST, TABLE_LENGTH)
    h, g = clipped_moments(t)
    return np.interp(-variances / np.maximum(means, 1e-12) ** 2, -g / h**2, t)
