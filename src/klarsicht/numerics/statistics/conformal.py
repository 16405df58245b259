"""How surprising is the largest of many scores, when the only null there is are other units of the same kind?

A class is compared with the other classes: its p is its rank among them. That holds whatever the distribution of the
scores, as long as clean classes are exchangeable, and it can be no smaller than 1 / (classes compared with + 1), the
floor. Some of those others may hold artifacts themselves; the ones far out are not compared with. Scores are in nats,
or in units of a tail; differences well below one mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Bools, Floats

CLEAN = 0.6  # share of the units that are taken for clean to begin with: fewer than two in five may hold artifacts
FENCE = 4.0  # quartile distances above the upper quartile
TAIL = 0.1  # share of the reference from which the tail beyond the floor is drawn out
LEAST_XI = 0.25  # of such a tail: a null of nothing but noughts must not make a whisper impossible


def reference(scores: Floats, clean: float = CLEAN, fence: float = FENCE) -> Bools:
    """Which of the scores (n,) may serve as the null.

    The lowest `clean` share to begin with; then all below Q3 + fence max(Q3 - Q1, 1) of those, until no more are let
    in. Of an exponential distribution .3 % stay out. Scores that are not finite are no null.
    """
    finite = np.isfinite(scores)
    if not finite.any():
        return finite
    kept = finite & (scores <= np.quantile(scores[finite], clean))
    while True:
        low, high = np.quantile(scores[kept], (0.25, 0.75))
        inside = finite & (scores <= high + fence * max(high - low, 1.0))
        if (inside <= kept).all():
            return kept
        kept = kept | inside


def ranks(scores: Floats, null: Floats) -> NDArray[np.float64]:
    """p (n,) of scores among a null (m,) that they are not part of: (1 + those as large) / (m + 1)."""
    above = len(null) - np.searchsorted(np.sort(null), scores, side="left")
    return np.asarray((1 + above) / (len(null) + 1), np.float64)


def conformal(scores: Floats, null: Bools) -> NDArray[np.float64]:
    """p (n,) of each score among the null (n,), itself left out."""
    among = np.sort(scores[null])
    above = len(among) - np.searchsorted(among, scores, side="left") - null  # a member of the null is not above itself
    return np.asarray((1 + above) / (len(among) - null + 1), np.float64)


def tail(scores: Floats, null: Bools, share: float = TAIL) -> NDArray[np.float64]:
    """p (n,) that goes on below the floor, by a power law through the upper tail of the null (Hill 1975).

    P(S >= s) = share ((1 + s) / (1 + u))^(-1 / xi) above the quantile u; xi is the mean of log((1 + s) / (1 + u)) among
    the k scores above it, no smaller than LEAST_XI. Scores with a lighter tail, such as minus the logarithm of a p, get
    a p that is too large: it errs on that side. Equal to `conformal` inside the null.
    """
    p, among = conformal(scores, null), np.log1p(np.maximum(np.sort(scores[null]), 0))
    k = max(3, round(share * len(among)))
    if len(among) <= k:
        return p
    u, height = among[-k - 1], np.log1p(np.maximum(scores, 0))
    xi = max(float((among[-k:] - u).mean()), LEAST_XI)
    power = k / len(among) * np.exp(-np.maximum(height - u, 0) / xi)
    return np.where(height > among[-1], np.minimum(p, power), p)


def false_discovery(p: Floats) -> NDArray[np.float64]:
    """q (n,) of Benjamini and Hochberg (1995): the least false-discovery rate at which each would be called."""
    order = np.argsort(p, kind="stable")
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1)
    return q


def standardised(scores: Floats, least: float = 1.0, share: float = 0.25) -> Floats:
    """Columns (n, m) by their own upper tail: (s - u) / (mean excess over u), u the upper quartile of the null.

    The tail of an exponential distribution is so brought to that of any other. Quantile and mean treat all rows of the
    null alike, so clean rows stay exchangeable. An excess below `least` counts as that: a detector that never fires on
    clean classes must not shout at its first whisper.
    """
    out = np.empty(scores.shape)
    for j, column in enumerate(scores.T):
        null = np.sort(column[reference(column)])
        k = max(1, round(share * len(null)))
        u = null[-k - 1] if len(null) > k else 0.0
        out[:, j] = (column - u) / max(float((null[-k:] - u).mean()) if len(null) else 0.0, least)
    return out


@dataclass(frozen=True)
class Verdicts:
    """The maximum over detectors for n classes.

    Attributes:
        levels: float (n, m), standardised scores.
        best: int (n,), the detector of the largest.
        score: float (n,), that score.
        null: bool (n,), the classes that the others were compared with.
        p: conformal, at least `floor`.
        extended: the same with a power-law tail below the floor.
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
        """Detectors of which the largest was taken."""
        return int(self.levels.shape[1])

    @property
    def floor(self) -> float:
        """The smallest p that so many classes can give."""
        return 1 / (int(self.null.sum()) + 1)

    def p_of(self, level: Floats) -> NDArray[np.float64]:
        """Extended p of further levels (k,), as if each were the largest of a class of its own."""
        together = np.concatenate([self.score, level])
        return tail(together, np.concatenate([self.null, np.zeros(len(level), bool)]))[len(self.score) :]


def maximum(scores: Floats) -> Verdicts:
    """Scores (n, m) of n classes under m detectors, larger is stranger; one p a class, for the largest of its m."""
    level = standardised(scores)
    best = level.argmax(1)
    top = level.max(1)
    null = reference(top)
    extended = tail(top, null)
    return Verdicts(level, best, top, null, conformal(top, null), extended, false_discovery(extended))
