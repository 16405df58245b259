"""Base rate of template matches: how often a class without an artifact would match a window by chance.

Classes of buildings match an edge better than classes of birds do; then all images of the class match a little better,
while an artifact is matched by few of its images, and much better. So the scores of a reference pool of other images
are first given the median and the spread of the class. A natural subgroup of a class matches as well, but its scores
thin out; the matches of an artifact are separated from the rest by a gap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.split_half import smoothed_rate

MAX_CORRELATION = 0.999  # larger correlations are clipped: Fisher's z of 1 is infinite
BAND_WIDTH = 0.3  # in Fisher's z: width of the band below the threshold
MAX_DENSITY_RATIO = 2.0  # largest ratio of natural values above the threshold to those in the band below it


def fisher_z(r: Floats) -> Floats:
    """Transform correlations by Fisher's z, which equalises their variance; negative correlations count as 0."""
    return np.asarray(np.arctanh(np.clip(r, 0, MAX_CORRELATION)))


def match_median_and_spread(own: Floats, pool: Floats) -> Floats:
    """Shift and scale the values of a pool (s, m) to the median of a class (s, n), and to its median absolute deviation
    where that is larger."""
    middle, other = (np.median(z, 1, keepdims=True) for z in (own, pool))
    spread, least = (np.median(np.abs(z - m), 1, keepdims=True) for z, m in ((own, middle), (pool, other)))
    wider = np.where(least > 0, np.maximum(spread / np.where(least > 0, least, 1), 1), 1)
    return np.asarray(middle + (pool - other) * wider)


def null_rate(own: Floats, pool: Floats, edge: Any) -> NDArray[np.float64]:
    """Estimate the rate (s,) at which a class exceeds a threshold without an artifact: the larger of the rates of the
    pool as it is and of the pool with the median and the spread of the class."""
    hits = np.maximum((pool > edge).sum(1), (match_median_and_spread(own, pool) > edge).sum(1))
    return smoothed_rate(hits, pool.shape[1])


def extrapolated_rate(
    own: Floats, edge: Any, denser: float = MAX_DENSITY_RATIO, band: Any = BAND_WIDTH
) -> NDArray[np.float64]:
    """Bound the rate (s,) at which a class exceeds a threshold if its values only thin out towards it, by `denser`
    times the share of the values within `band` below the threshold."""
    return np.asarray(np.minimum(denser * ((own > edge - band) & (own <= edge)).mean(1), 1 - 1e-9))


def null_match_rate(
    own: Floats, pool: Floats, threshold: float, denser: float = MAX_DENSITY_RATIO
) -> NDArray[np.float64]:
    """Estimate the rate (s,) of correlations above a threshold without an artifact: the larger of `null_rate` and
    `extrapolated_rate`, both in Fisher's z."""
    z, edge = fisher_z(own), fisher_z(np.array(threshold))
    return np.maximum(null_rate(z, fisher_z(pool), edge), extrapolated_rate(z, edge, denser))


def select_above_gap(values: Floats, edge: float) -> NDArray[np.bool_]:
    """Select the values (n,) above the threshold, without those below the widest gap from the threshold up to their
    median, where it is wider than the interquartile range of the values above it; of fewer than four values, all."""
    beyond = np.sort(values[values > edge])
    if len(beyond) < 4:
        return np.asarray(values > edge)
    low = np.concatenate([[edge], beyond[: len(beyond) // 2 + 1]])
    gaps = np.diff(low)
    widest = int(gaps.argmax())
    first, third = np.quantile(beyond[widest:], (0.25, 0.75))
    return np.asarray(values >= beyond[widest] if gaps[widest] > third - first else values > edge)
