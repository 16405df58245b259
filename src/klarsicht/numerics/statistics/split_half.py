"""Split-half testing: choose a seed on one half of the images and test it on the other, since a group that was selected
on the same data is not significant. On each half the seed is chosen whose matches are most enriched against a
reference; an expensive null rate is computed only for the few most enriched seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from klarsicht.ground.arrays import Bools, Floats, Ints

Rates = Callable[[Ints], Floats]

SHORTLIST = 16  # seeds of a half for which the better null rate is computed


def draw_halves(n: int, rng: np.random.Generator) -> Bools:
    """Draw a random half of n images: a mask (n,)."""
    return np.asarray(rng.permutation(n) < n // 2)


def binomial_surprisal(k: Any, n: int, rate: Any) -> NDArray[np.float64]:
    """Compute -log P(K >= k) in nats, K binomial with n trials at a rate in (0, 1)."""
    with np.errstate(divide="ignore"):
        exact = -np.log(betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, rate))
    far = ~np.isfinite(exact)
    if far.any():
        from scipy.stats import binom

        exact = np.where(far, -binom.logsf(k - 1, n, rate), exact)
    return np.where(k > 0, np.where(np.isfinite(exact), exact, chernoff_bound(k, n, rate)), 0.0)


def chernoff_bound(k: Any, n: int, rate: Any) -> NDArray[np.float64]:
    """Compute Chernoff's lower bound of `binomial_surprisal`, n KL(k / n || rate): cheap, and nearly the same order."""
    share = np.clip(np.asarray(k, np.float64) / n, 0, 1)
    inside = np.where(share > 0, share * np.log(np.maximum(share, 1e-300) / rate), 0)
    outside = np.where(
        share < 1, (1 - share) * np.log1p(-np.minimum(share, 1 - 1e-15)) - (1 - share) * np.log1p(-rate), 0
    )
    return np.where(share > rate, n * (inside + outside), 0.0)


@dataclass(frozen=True)
class CrossTest:
    """Choice of a seed on each half, tested on the other: the two seeds, the surprisal of each in nats in the half on
    which it was not chosen, and their mean."""

    score: float
    seeds: tuple[int, int]
    surprises: tuple[float, float]

    @property
    def seed(self) -> int:
        """Seed with the larger surprisal on the half on which it was not chosen."""
        return self.seeds[int(self.surprises[1] > self.surprises[0])]


def cross_test(
    counts: Ints, sizes: tuple[int, int], rates: Floats, first: Bools, natural: Rates | None = None
) -> CrossTest:
    """Choose and test seeds (s,) across halves of these sizes, from matches per half (s, 2) expected at rates (s,).
    first: bool (s,), seeds of the first half; a seed can only be chosen on the half that it comes from. natural:
    function of seeds (k,) that returns better null rates (k,), which replace smaller rates."""
    seeds, surprises = [], []
    for here, there, own in ((0, 1, first), (1, 0, ~first)):
        listed = np.where(own, chernoff_bound(counts[:, here], sizes[here], rates), -1.0)
        few = np.argsort(-listed, kind="stable")[: SHORTLIST if natural else 1]
        expected = np.maximum(rates[few], natural(few)) if natural else rates[few]
        best = int(np.where(own[few], chernoff_bound(counts[few, here], sizes[here], expected), -1.0).argmax())
        seeds.append(int(few[best]))
        surprises.append(float(binomial_surprisal(counts[few[best], there], sizes[there], expected[best])))
    return CrossTest(sum(surprises) / 2, (seeds[0], seeds[1]), (surprises[0], surprises[1]))


def smoothed_rate(counts: Ints, m: int) -> NDArray[np.float64]:
    """Estimate a rate from counts among m reference images by Laplace's rule of succession; never 0."""
    return np.asarray((counts + 1) / (m + 2), np.float64)


def combined_p(score: Any, tests: int) -> NDArray[np.float64]:
    """Compute the p-value of a mean surprisal of two halves, the largest of `tests` tests: Fisher's method (2 s exceeds
    its value by chance with probability exp(-2s) (1 + 2s)), corrected by Bonferroni."""
    twice = 2 * np.maximum(np.asarray(score, np.float64), 0)
    return np.asarray(np.minimum(tests * np.exp(-twice) * (1 + twice), 1.0))


def score_of_p(p: Any, tests: int) -> NDArray[np.float64]:
    """Compute the mean surprisal of two halves whose `combined_p` is p; four times that has chi squared's distribution
    with four degrees of freedom."""
    from scipy.stats import chi2

    return np.asarray(chi2.isf(np.minimum(np.asarray(p, np.float64) / tests, 1.0), 4) / 4, np.float64)
