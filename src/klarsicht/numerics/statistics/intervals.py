"""Confidence intervals of shares, of means and of areas under ROC curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import rankdata

from klarsicht.ground.arrays import Bools

Z95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """Estimate with its 95 % interval; NaN where there was nothing to measure.

    Attributes:
        n: number of items measured.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "" if not self.n else f"{self.value:z.3f} ({self.low:z.3f} to {self.high:z.3f})"


NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"), 0)


def wilson_interval(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Compute the 95 % interval of a share (Wilson 1927)."""
    p, s = hits / n, z * z / n
    half = z * np.sqrt(p * (1 - p) / n + s / (4 * n))
    return float((p + s / 2 - half) / (1 + s)), float((p + s / 2 + half) / (1 + s))


def share_interval(right: Bools) -> Interval:
    """Estimate the share of true items with its Wilson interval."""
    n = len(right)
    return Interval(float(right.mean()), *wilson_interval(int(right.sum()), n), n) if n else NO_INTERVAL


def roc_area(values: NDArray[np.floating[Any]], positive: Bools, z: float = Z95) -> Interval:
    """Estimate the area under the ROC curve of values (n,) that should be larger for positives: .5 is chance, 1 is
    perfect.

    The standard error is that of Hanley and McNeil (1982, Radiology 143). NO_INTERVAL where one class is empty.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return NO_INTERVAL
    a = (rankdata(values)[positive].sum() - m * (m + 1) / 2) / (m * n)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    half = z * float(np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)))
    return Interval(float(a), float(a) - half, float(a) + half, m + n)


def student_quantile(n: int) -> float:
    """Return the 97.5 % quantile of Student's t with n - 1 degrees of freedom, to replace Z95 for the mean of few
    values.
    """
    return float(stdtrit(n - 1, 0.975))


def mean_interval(values: NDArray[np.floating[Any]], z: float = Z95) -> Interval:
    """Estimate the mean of independent values with an interval from their standard error."""
    n = len(values)
    if n < 2:
        return NO_INTERVAL
    centre, half = float(np.mean(values)), z * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Interval(centre, centre - half, centre + half, n)
