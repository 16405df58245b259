"""Choose on one half, test on the other: a group that was searched for is no surprise where it was found.

Images are split into two halves. On one of them the seed is chosen whose likes are most enriched against a reference
of other images; its likes in the other half are then counted, and so with the halves exchanged.

Where a better rate is dear to compute, it is computed for the few seeds that look best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import binom

from klarsicht.ground.arrays import Bools, Floats, Ints

Rates = Callable[[Ints], Floats]

SHORTLIST = 16  # seeds of a half whose rates are looked at closely


def halves(n: int, rng: np.random.Generator) -> Bools:
    """n images, a random half of them true."""
    return np.asarray(rng.permutation(n) < n // 2)


def surprise(k: Any, n: int, rate: Any) -> NDArray[np.float64]:
    """-log P(K >= k) in nats, K binomial of n trials at a rate in (0, 1)."""
    with np.errstate(divide="ignore"):
        exact = -np.log(betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, rate))
    far = ~np.isfinite(exact)
    if far.any():
        exact = np.where(far, -binom.logsf(k - 1, n, rate), exact)
    return np.where(k > 0, np.where(np.isfinite(exact), exact, chernoff(k, n, rate)), 0.0)


def chernoff(k: Any, n: int, rate: Any) -> NDArray[np.float64]:
    """Chernoff's bound on it from below, n KL(k / n || rate): cheap, and nearly the same order."""
    share = np.clip(np.asarray(k, np.float64) / n, 0, 1)
    inside = np.where(share > 0, share * np.log(np.maximum(share, 1e-300) / rate), 0)
    outside = np.where(
        share < 1, (1 - share) * np.log1p(-np.minimum(share, 1 - 1e-15)) - (1 - share) * np.log1p(-rate), 0
    )
    return np.where(share > rate, n * (inside + outside), 0.0)


@dataclass(frozen=True)
class Crossed:
    """A choice on each half, tested on the other.

    Attributes:
        score: mean surprise of the two tests, in nats.
        seeds: (2,) the seed that the first half and the second half chose.
        surprises: (2,) of each in the half that did not choose it.
    """

    score: float
    seeds: tuple[int, int]
    surprises: tuple[float, float]

    @property
    def seed(self) -> int:
        """The seed that did better where it was not chosen."""
        return self.seeds[int(self.surprises[1] > self.surprises[0])]


def crossed(counts: Ints, sizes: tuple[int, int], rates: Floats, first: Bools, natural: Rates | None = None) -> Crossed:
    """Seeds (s,) with likes counted in the first and in the second half (s, 2), expected at rates (s,).

    Args:
        sizes: images in each half.
        first: bool (s,), seeds of the first half; a seed is chosen on the half that it comes from.
        natural: seeds (k,) -> rates (k,) that hold where they are larger; asked for the best of each half.
    """
    seeds, surprises = [], []
    for here, there, own in ((0, 1, first), (1, 0, ~first)):
        listed = np.where(own, chernoff(counts[:, here], sizes[here], rates), -1.0)
        few = np.argsort(-listed, kind="stable")[: SHORTLIST if natural else 1]
        expected = np.maximum(rates[few], natural(few)) if natural else rates[few]
        best = int(np.where(own[few], chernoff(counts[few, here], sizes[here], expected), -1.0).argmax())
        seeds.append(int(few[best]))
        surprises.append(float(surprise(counts[few[best], there], sizes[there], expected[best])))
    return Crossed(sum(surprises) / 2, (seeds[0], seeds[1]), (surprises[0], surprises[1]))


def rate(counts: Ints, m: int) -> NDArray[np.float64]:
    """The rate of a reference of m images that holds so many: never nought, for no reference is endless."""
    return np.asarray((counts + 1) / (m + 2), np.float64)


def combined(score: Any, tests: int) -> NDArray[np.float64]:
    """p of a mean surprise of the two halves, the largest of so many tests.

    Two p-values are put together by Fisher's method: twice their mean surprise s exceeds 2s by chance with probability
    exp(-2s) (1 + 2s). Bonferroni takes care of the tests.
    """
    twice = 2 * np.maximum(np.asarray(score, np.float64), 0)
    return np.asarray(np.minimum(tests * np.exp(-twice) * (1 + twice), 1.0))
