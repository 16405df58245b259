"""Bootstrap intervals (Efron 1979, Annals of Statistics 7)."""

from __future__ import annotations

from typing import Final

import numpy as np

from klarsicht.ground.arrays import Floats
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval

RESAMPLED: Final = 2000


def bootstrap_mean_interval(values: Floats, rng: np.random.Generator) -> Interval:
    """Estimate the mean of independent values (n,) with the 2.5 and 97.5 % quantiles of means of as many values drawn
    with replacement; NO_INTERVAL of fewer than two."""
    n = len(values)
    if n < 2:
        return NO_INTERVAL
    means = np.asarray(values, np.float64)[rng.integers(0, n, (RESAMPLED, n))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high), n)
