"""Confidence intervals of shares, of means and of areas under ROC curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from klarsicht.ground.arrays import Bools

Z95 = 1.959964
TRIMMED = 0.2  # of the values, at either end
BISECTIONS = 50  # halvings of an interval of length 1


@dataclass(frozen=True)
class Interval:
    """Estimate of n items with its 95 % interval; NaN where there was nothing to measure."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "" if not self.n else f"{self.value:z.3f} ({self.low:z.3f} to {self.high:z.3f})"


NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"), 0)


def share_interval(right: Bools) -> Interval:
    """Estimate the share of true items with its score interval (Wilson 1927)."""
    from scipy.stats import binomtest  # half a second, which those who only read intervals need not wait

    if not len(right):
        return NO_INTERVAL
    test = binomtest(int(right.sum()), len(right))
    low, high = test.proportion_ci(method="wilson")
    return Interval(float(test.statistic), float(low), float(high), test.n)


def average_shares(shares: Sequence[Interval]) -> Interval:
    """Estimate the mean of independent shares by their intervals: each end is as far from it as the root of the summed
    squares of theirs, over their number (square-and-add; Zou and Donner 2008, Statistics in Medicine 27). NO_INTERVAL
    without any."""
    if not shares:
        return NO_INTERVAL
    values, low, high = (np.array([getattr(one, end) for one in shares]) for end in ("value", "low", "high"))
    below, above = (float(np.linalg.norm(values - end)) / len(shares) for end in (low, high))
    middle = float(values.mean())
    return Interval(middle, middle - below, middle + above, sum(one.n for one in shares))


def roc_area(values: NDArray[np.floating[Any]], positive: Bools) -> Interval:
    """Estimate the area under the ROC curve of values (n,) that should be larger for positives, with the standard error
    of Hanley and McNeil (1982, Radiology 143). NO_INTERVAL where one class is empty."""
    from scipy.stats import rankdata

    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return NO_INTERVAL
    a = (rankdata(values)[positive].sum() - m * (m + 1) / 2) / (m * n)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    half = Z95 * float(np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)))
    return Interval(float(a), float(a) - half, float(a) + half, m + n)


def roc_area_score(
    values: NDArray[np.floating[Any]], positive: Bools, blocks: NDArray[np.integer[Any]] | None = None
) -> Interval:
    """Estimate the area under the ROC curve with a score interval, which has a width also where the area is 1.

    The limits are the areas A with |area - A| = z sqrt(V(A)), V that of Hanley and McNeil with (m + n) / 2 in place of
    m and n in its last terms (Newcombe 2006, Statistics in Medicine 25, method 5). Values of one block, such as images
    of one source, count once in m and n. NO_INTERVAL where one class is empty."""
    area = roc_area(values, positive)
    if not area.n:
        return NO_INTERVAL
    blocks = np.arange(len(values)) if blocks is None else blocks
    m, n = (len(np.unique(blocks[side])) for side in (positive, ~positive))
    more = (m + n) / 2 - 1

    def variance(a: float) -> float:
        return a * (1 - a) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a)) / (m * n)

    low = nearest_limit(lambda a: area.value - a > Z95 * np.sqrt(variance(a)), 0.0, area.value)
    high = 1 - nearest_limit(lambda b: 1 - b - area.value > Z95 * np.sqrt(variance(1 - b)), 0.0, 1 - area.value)
    return Interval(area.value, low, high, area.n)


def nearest_limit(outside: Callable[[float], bool], least: float, most: float, halvings: int = BISECTIONS) -> float:
    """Find by bisection the smallest number that is not outside; `least` may be, `most` is not."""
    for _ in range(halvings):
        middle = (least + most) / 2
        least, most = (middle, most) if outside(middle) else (least, middle)
    return most


def block_mean_interval(values: NDArray[np.floating[Any]], blocks: NDArray[np.integer[Any]]) -> Interval:
    """Estimate the mean of values (n,) with an interval that treats the values of a block as one observation, by the
    standard error sqrt(G / (G - 1) * sum over the G blocks of (sum of residuals)^2) / n and Student's t with G - 1
    degrees of freedom (Liang and Zeger 1986). NO_INTERVAL with fewer than two blocks."""
    number = np.unique(blocks, return_inverse=True)[1]
    count = int(number.max(initial=-1)) + 1
    if count < 2:
        return NO_INTERVAL
    centre = float(np.mean(values))
    sums = np.bincount(number, np.asarray(values, float) - centre)
    half = student_quantile(count) * float(np.sqrt(count / (count - 1) * (sums**2).sum())) / len(values)
    return Interval(centre, centre - half, centre + half, len(values))


def student_quantile(n: int) -> float:
    """Return the 97.5 % quantile of Student's t with n - 1 degrees of freedom, instead of Z95 for few values."""
    return float(stdtrit(n - 1, 0.975))


def difference_interval(values: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> Interval:
    """Estimate the mean of values (n,) less that of others (m,) by Student's t of Welch's degrees of freedom,
    1 / (s^2 / (n - 1) + (1 - s)^2 / (m - 1)) with the first mean's share s of the squared standard error (Welch 1947);
    NO_INTERVAL without two of each."""
    n, m = len(values), len(others)
    if min(n, m) < 2:
        return NO_INTERVAL
    own, other = np.asarray(values, np.float64), np.asarray(others, np.float64)
    a, b = float(own.var(ddof=1)) / n, float(other.var(ddof=1)) / m
    centre = float(own.mean() - other.mean())
    if not a + b:
        return Interval(centre, centre, centre, n)
    s = a / (a + b)
    half = float(np.sqrt(a + b) * stdtrit(1 / (s**2 / (n - 1) + (1 - s) ** 2 / (m - 1)), 0.975))
    return Interval(centre, centre - half, centre + half, n)


def mean_interval(values: NDArray[np.floating[Any]], z: float = Z95) -> Interval:
    """Estimate the mean of independent values with an interval from their standard error."""
    n = len(values)
    if n < 2:
        return NO_INTERVAL
    centre, half = float(np.mean(values)), z * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Interval(centre, centre - half, centre + half, n)


def trimmed_mean_interval(values: NDArray[np.floating[Any]]) -> Interval:
    """Estimate the mean of independent values (n,) without TRIMMED of them at either end, by the deviation of the
    winsorised values and Student's t (Tukey and McLaughlin 1963, Sankhya A 25); NO_INTERVAL without two that are left.
    A single value moves it little, however far it lies."""
    n = len(values)
    cut = int(TRIMMED * n)
    count = n - 2 * cut
    if count < 2:
        return NO_INTERVAL
    middle = np.sort(np.asarray(values, np.float64))[cut : n - cut]
    outermost = np.pad(middle, cut, mode="edge")
    error = float(outermost.std(ddof=1)) * float(np.sqrt(n)) / count
    centre, half = float(middle.mean()), student_quantile(count) * error
    return Interval(centre, centre - half, centre + half, n)
