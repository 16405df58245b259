"""Intervals of shares, and of the difference of two shares measured on the same items."""

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
    """A figure with its 95 % interval; NaN where there was nothing to measure.

    Attributes:
        n: items that were measured.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return "" if not self.n else f"{self.value:z.3f} ({self.low:z.3f} to {self.high:z.3f})"


NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0)


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p, s = hits / n, z * z / n
    half = z * np.sqrt(p * (1 - p) / n + s / (4 * n))
    return float((p + s / 2 - half) / (1 + s)), float((p + s / 2 + half) / (1 + s))


def share(right: Bools) -> Interval:
    """Of the items that are true."""
    n = len(right)
    return Interval(float(right.mean()), *wilson(int(right.sum()), n), n) if n else NOTHING


def loss(before: Bools, after: Bools, z: float = Z95) -> Interval:
    """Share true before less share true after, of the same items; positive where something was lost.

    The interval adds half an item to each of the four cells (Agresti and Min 2005, Statistics in Medicine 24): no
    change among few items does not prove that there is none.
    """
    n = len(before)
    if not n:
        return NOTHING
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    m, b, c = n + 2, lost + 0.5, won + 0.5
    half = z * float(np.sqrt(b + c - (b - c) ** 2 / m)) / m
    return Interval((lost - won) / n, (b - c) / m - half, (b - c) / m + half, n)


def area(values: NDArray[np.floating[Any]], positive: Bools, z: float = Z95) -> Interval:
    """Area under the ROC curve of values (n,) that should be larger where positive: .5 tells nothing, 1 all.

    Its standard error is that of Hanley and McNeil (1982, Radiology 143). NOTHING where one side is empty.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return NOTHING
    a = (rankdata(values)[positive].sum() - m * (m + 1) / 2) / (m * n)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    half = z * float(np.sqrt((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)))
    return Interval(float(a), float(a) - half, float(a) + half, m + n)


def student(n: int) -> float:
    """In place of Z95 for the mean of n values, where n is small: Student's t with n - 1 degrees of freedom."""
    return float(stdtrit(n - 1, 0.975))


def mean(values: NDArray[np.floating[Any]], z: float = Z95) -> Interval:
    """Of independent values, by their standard error."""
    n = len(values)
    if n < 2:
        return NOTHING
    centre, half = float(np.mean(values)), z * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Interval(centre, centre - half, centre + half, n)
