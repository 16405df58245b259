"""Choice and test on different halves, against SciPy's binomial, a slow rewrite and the law that clean data obey."""

import numpy as np
import pytest
from scipy.stats import binom, combine_pvalues

from klarsicht.numerics.statistics import split_half


def crossed(hits, rates, owner, half):
    counts = np.stack([hits[:, half].sum(1), hits[:, ~half].sum(1)], 1)
    return split_half.cross_test(counts, (half.sum(), (~half).sum()), rates, half[owner])


def test_surprise_is_the_binomial_tail():
    k, rate = np.arange(0, 41), 0.013
    np.testing.assert_allclose(
        split_half.binomial_surprisal(k, 225, np.full(41, rate)), -binom.logsf(k - 1, 225, rate), rtol=1e-6
    )


def test_surprise_of_the_impossibly_many_is_finite():
    found = split_half.binomial_surprisal(np.array([0, 20_000]), 20_000, np.array([1e-5, 1e-5]))
    assert found[0] == 0
    assert np.isfinite(found[1]) and found[1] > 20_000 * 11  # log 1e-5 = -11.5


def test_chernoff_bounds_it_from_below():
    k = np.arange(0, 226)
    bound, exact = (
        split_half.chernoff_bound(k, 225, np.full(226, 0.02)),
        split_half.binomial_surprisal(k, 225, np.full(226, 0.02)),
    )
    assert (bound <= exact + 1e-9).all()
    assert (np.diff(bound) >= -1e-9).all()


def test_crossed_is_its_slow_rewrite():
    rng = np.random.default_rng(0)
    hits, owner, half = rng.random((30, 20)) < 0.2, np.arange(30) % 20, split_half.draw_halves(20, rng)
    rates = rng.uniform(0.05, 0.3, 30)
    tests = []
    for side in (half, ~half):
        value = {
            s: split_half.chernoff_bound(hits[s, side].sum(), side.sum(), rates[s]) for s in range(30) if side[owner[s]]
        }
        chosen = max(value, key=value.get)
        tests.append(-binom.logsf(hits[chosen, ~side].sum() - 1, (~side).sum(), rates[chosen]))
    assert crossed(hits, rates, owner, half).score == pytest.approx(np.mean(tests))


def test_clean_seeds_do_not_surprise_the_other_half():
    """The best of 200 seeds is surprising where it was chosen, and no more than by chance where it was not."""
    chosen, tested = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        hits, half = rng.random((200, 200)) < 0.05, split_half.draw_halves(200, rng)
        found = crossed(hits, np.full(200, 0.05), np.arange(200), half)
        chosen.append(split_half.binomial_surprisal(hits[found.seeds[0], half].sum(), 100, np.array(0.05)))
        tested.append(found.surprises[0])
    p = np.exp(-np.array(tested))
    assert (np.exp(-np.array(chosen)) < 0.05).mean() > 0.8
    assert (p < 0.05).mean() < 0.08  # discrete: below the level, but for chance


def test_a_planted_group_is_chosen():
    rng = np.random.default_rng(3)
    hits, half = rng.random((100, 100)) < 0.01, split_half.draw_halves(100, rng)
    hits[:20, :20] = True
    found = crossed(hits, np.full(100, 0.01), np.arange(100), half)
    assert max(found.seeds) < 20 and found.seed in found.seeds and found.score > 15


def test_rates_are_never_nought_or_one():
    r = split_half.smoothed_rate(np.array([0, 10]), 10)
    assert (r > 0).all() and (r < 1).all()


def test_halves_are_halves():
    assert split_half.draw_halves(101, np.random.default_rng(0)).sum() == 50


def test_a_better_rate_is_used_where_it_is_larger():
    """The seed that looked best matches often by nature; the next best is chosen then, and tested at its own rate."""
    counts, rates = np.array([[20, 20], [10, 10], [0, 0]]), np.full(3, 0.01)
    first = np.array([True, True, True])
    plain = split_half.cross_test(counts, (50, 50), rates, first)
    found = split_half.cross_test(counts, (50, 50), rates, first, lambda few: np.array([0.5, 0.01, 0.01])[few])
    assert plain.seeds[0] == 0 and found.seeds[0] == 1
    assert found.surprises[0] == pytest.approx(-binom.logsf(9, 50, 0.01))


def test_two_halves_together_are_fishers_method():
    p = np.array([[0.3, 0.02], [1e-4, 0.5]])
    expected = [combine_pvalues(one, method="fisher").pvalue for one in p]
    np.testing.assert_allclose(split_half.combined_p(-np.log(p).mean(1), 1), expected)
    np.testing.assert_allclose(
        split_half.combined_p(np.array([10.0]), 20), 20 * split_half.combined_p(np.array([10.0]), 1)
    )
    assert split_half.combined_p(0.0, 20) == 1


def test_score_of_p_inverts_the_combined_p_of_two_halves():
    scores = np.array([0.0, 0.5, 3.0, 20.0, 100.0])
    p = split_half.combined_p(scores, 1)
    np.testing.assert_allclose(split_half.score_of_p(p, 1), scores, atol=1e-6)
    np.testing.assert_allclose(
        split_half.combined_p(split_half.score_of_p(np.array([0.04, 1e-6]), 25), 25), [0.04, 1e-6], rtol=1e-8
    )
