"""Conformal p-values of the largest of several scores, with other units of the same kind as the null.

A class is ranked among the other classes, which is valid whatever the distribution of the scores, as long as clean
classes are exchangeable. The floor is 1 / (reference classes + 1) for a class outside the reference, and 1 / reference
classes for one inside. Outliers are excluded from the reference: they may hold artifacts themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Bools, Floats

CLEAN = 0.6  # share of the units that start the reference: fewer than two in five may hold artifacts
FENCE = 4.0  # interquartile ranges above the upper quartile
UPPER = 0.25  # share of the null above the quantile by which columns are standardised
TAIL = 0.1  # share of the reference to which the tail below the floor is fitted
LEAST_XI = 0.25  # of such a tail: under a null of zeros only, small scores must not become impossible


def select_reference(scores: Floats) -> Bools:
    """Select the finite scores (n,) that serve as the null, a mask: the lowest share CLEAN, then all scores below Q3 +
    FENCE max(Q3 - Q1, 1) of those, until nothing changes. Of an exponential distribution 0.3 % are excluded."""
    finite = np.isfinite(scores)
    if not finite.any():
        return finite
    selection = finite & (scores <= np.quantile(scores[finite], CLEAN))
    while True:
        low, high = np.quantile(scores[selection], (0.25, 0.75))
        inside = finite & (scores <= high + FENCE * max(high - low, 1.0))
        if (inside <= selection).all():
            return selection
        selection = selection | inside


def leave_out(scores: Floats, outside: Bools | None) -> Floats:
    """Set scores (n,) that may be in no null to infinity."""
    return scores if outside is None else np.where(outside, np.inf, scores)


def conformal_p_values(scores: Floats, null: Bools) -> NDArray[np.float64]:
    """Compute leave-one-out p-values (n,) of each score among the scores of the null mask (n,); NaN is the least."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    among = np.sort(scores[null])
    # A member of the null is not counted against itself.
    above = len(among) - np.searchsorted(among, scores, side="left") - null
    return np.asarray((1 + above) / (len(among) - null + 1), np.float64)


def tail_p_values(scores: Floats, null: Bools, below: float = 0.0) -> NDArray[np.float64]:
    """Compute p-values (n,) that continue below the floor by a power law fitted to the upper tail of the null (Hill
    1975): TAIL ((1 + s) / (1 + u))^(-1 / xi) above the quantile u; xi is the mean of log((1 + s) / (1 + u)) among the k
    scores above it, at least LEAST_XI. Conservative for lighter tails. below: p-value of a rank, in [0, 1], from which
    on the power law counts where it is smaller, so that one member of the null far out does not hide its size."""
    p, among = conformal_p_values(scores, null), np.log1p(np.maximum(np.sort(scores[null]), 0))
    k = max(3, round(TAIL * len(among)))
    if len(among) <= k:
        return p
    u, height = among[-k - 1], np.log1p(np.maximum(scores, 0))
    xi = max(float((among[-k:] - u).mean()), LEAST_XI)
    power = k / len(among) * np.exp(-np.maximum(height - u, 0) / xi)
    return np.where((height > among[-1]) | (p <= below), np.minimum(p, power), p)


def false_discovery_rates(p: Floats) -> NDArray[np.float64]:
    """Compute the least false-discovery rate at which each of p-values (n,) is rejected (Benjamini, Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p), np.float64)


def standardise(scores: Floats, least: float = 1.0, outside: Bools | None = None) -> Floats:
    """Standardise columns (n, m) by their own upper tail: (s - u) / (mean excess over u), u the upper quartile of the
    null, which makes exponential tails of detectors comparable. A mean excess below `least` is replaced by it: a
    detector that is constant on clean classes must not give a large value for a small deviation. outside: bool (n,),
    rows that are in no null."""
    out = np.empty(scores.shape)
    for j, column in enumerate(scores.T):
        null = np.sort(column[select_reference(leave_out(column, outside))])
        k = max(1, round(UPPER * len(null)))
        u = null[-k - 1] if len(null) > k else 0.0
        out[:, j] = (column - u) / max(float((null[-k:] - u).mean()) if len(null) else 0.0, least)
    return out


@dataclass(frozen=True)
class Verdicts:
    """Test of the maximum over m detectors for n classes.

    Attributes:
        levels: float (n, m), standardised scores.
        best, score: (n,), the detector of the largest score, and that score.
        null: bool (n,), the reference classes.
        p, extended: conformal p-value, at least `floor`; and with a power-law tail below the floor.
        q: false-discovery rate of `extended`.
    """

    levels: Floats
    best: NDArray[np.intp]
    score: NDArray[np.float64]
    null: Bools
    p: NDArray[np.float64]
    extended: NDArray[np.float64]
    q: NDArray[np.float64]

    @property
    def tests(self) -> int:
        return int(self.levels.shape[1])

    @property
    def floor(self) -> float:
        """Smallest p-value that a rank among the reference can give one of these classes: 1 / (reference classes + 1)
        where a class is outside the reference, else 1 / reference classes."""
        return 1 / (int(self.null.sum()) + int(not self.null.all()))

    def with_rows_of(self, other: Verdicts, rows: Bools) -> Verdicts:
        """Take the tests of some classes, bool (n,), and the reference, from another test of the same classes."""
        levels = np.where(rows[:, None], other.levels, self.levels)
        pairs = [(getattr(other, name), getattr(self, name)) for name in ("best", "score", "p", "extended")]
        best, score, p, extended = (np.where(rows, theirs, own) for theirs, own in pairs)
        return Verdicts(levels, best, score, other.null, p, extended, false_discovery_rates(extended))

    def p_of(self, level: Floats) -> NDArray[np.float64]:
        """Compute extended p-values of further scores (k,), each as the maximum of an additional class."""
        together = np.concatenate([self.score, level])
        return tail_p_values(together, np.concatenate([self.null, np.zeros(len(level), bool)]))[len(self.score) :]


def maximum_over_detectors(scores: Floats, least: float = 1.0, outside: Bools | None = None) -> Verdicts:
    """Test scores (n, m) of n classes under m detectors, larger is more anomalous and NaN the least, by the maximum of
    each class. outside: bool (n,), classes that are known to be no reference, since they were called; by default
    none."""
    level = standardise(scores, least, outside)
    level = np.where(np.isnan(level), -np.inf, level)
    best = level.argmax(1)
    top = level.max(1)
    null = select_reference(leave_out(top, outside))
    extended = tail_p_values(top, null)
    return Verdicts(level, best, top, null, conformal_p_values(top, null), extended, false_discovery_rates(extended))
