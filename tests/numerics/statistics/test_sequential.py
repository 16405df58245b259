"""Sequential tests. Oracles: published tables of bounds, simulated looks, exact permutation p-values."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from klarsicht.numerics.statistics.sequential import critical_values, look_quantiles, sequential_p, spend_level


@pytest.mark.parametrize(
    ("times", "values"),
    [
        ((1.0,), (1.960,)),
        ((0.5, 1.0), (2.963, 1.969)),
        ((1 / 3, 2 / 3, 1.0), (3.710, 2.511, 1.993)),
        ((0.2, 0.4, 0.6, 0.8, 1.0), (4.877, 3.357, 2.680, 2.290, 2.031)),
    ],
)
def test_bounds_are_the_published_ones(times, values):
    """Spending of the kind of O'Brien and Fleming, two-sided .05, equal looks (Jennison and Turnbull 2000)."""
    np.testing.assert_allclose(critical_values(times, 0.05), values, atol=2e-3)


def test_all_of_the_level_is_spent_at_the_end():
    assert spend_level(1.0, 0.05) == pytest.approx(0.05) and spend_level(0.25, 0.05) == pytest.approx(
        4 * norm.sf(norm.isf(0.0125) * 2)
    )


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_intervals_cover_at_all_looks_together(level):
    """20,000 means of 64 normal values, looked at after 16, 32 and 64 of them: how often is the truth ever outside?"""
    rng, sizes, trials = np.random.default_rng(3), (16, 32, 64), 20_000
    x = rng.normal(size=(trials, 64))
    outside = np.zeros(trials, bool)
    naive = np.zeros(trials, bool)
    for size, reach in zip(sizes, look_quantiles(sizes, level), strict=True):
        t = x[:, :size].mean(1) / (x[:, :size].std(1, ddof=1) / np.sqrt(size))
        outside |= np.abs(t) > reach
        naive |= np.abs(t) > norm.isf(level / 2)
    assert binomtest(int(outside.sum()), trials, level).pvalue > 1e-3
    assert naive.mean() > 1.5 * level  # looking again and again costs


def test_a_sequential_p_value_is_valid_and_makes_few_draws():
    """What was observed is one of the draws: P(p <= a) <= a at every value that p takes, and few draws are made."""
    rng, trials, count = np.random.default_rng(0), 20_000, 39
    values = rng.normal(size=(trials, count + 1))
    p, drawn = np.empty(trials), np.empty(trials)
    for i, (observed, *rest) in enumerate(values):
        read = []
        p[i] = sequential_p((read.append(v) or v >= observed for v in rest), count, 2)
        drawn[i] = len(read)
    for a in np.unique(p):
        hits = int((p <= a).sum())
        assert binomtest(hits, trials, min(a, 1), alternative="greater").pvalue > 1e-4, a
    assert drawn.mean() < 9 and drawn.max() == count


def test_a_clear_one_gets_the_p_value_of_all_draws():
    assert sequential_p([False] * 39, 39, 2) == 1 / 40
    assert sequential_p([False] * 20 + [True] + [False] * 18, 39, 2) == 2 / 40
    assert sequential_p([True, True, False], 39, 2) == 1.0
    assert sequential_p([], 39, 2) == 1.0
