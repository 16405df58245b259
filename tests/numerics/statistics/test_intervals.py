"""Intervals against scipy, and against what they promise: they hold the truth nineteen times in twenty."""

import numpy as np
import pytest
from scipy import stats

from klarsicht.numerics.statistics.intervals import (
    average_shares,
    block_mean_interval,
    difference_interval,
    mean_interval,
    roc_area,
    roc_area_score,
    share_interval,
    student_quantile,
    trimmed_mean_interval,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (180, 200)])
def test_the_interval_of_a_share_solves_wilsons_equation(hits, n):
    """Either end is the share from which the observed one is 1.96 of its own standard errors away."""
    found = share_interval(np.arange(n) < hits)
    assert (found.value, found.n) == (hits / n, n)
    for end in {found.low, found.high} - {0.0, 1.0}:
        assert abs(hits / n - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / n), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(12, 40), (3, 2), (300, 25)])
def test_the_interval_of_a_difference_of_means_is_welchs(n, m):
    rng = np.random.default_rng(n)
    values, others = rng.normal(2.0, 3.0, n), rng.normal(-1.0, 0.5, m)
    a, b = values.var(ddof=1) / n, others.var(ddof=1) / m
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(a + b)
    for kind in (np.float64, np.float32):
        found = difference_interval(values.astype(kind), others.astype(kind))
        middle = values.mean() - others.mean()
        ends = (found.value, found.low, found.high, found.n)
        np.testing.assert_allclose(ends, (middle, middle - half, middle + half, n), rtol=1e-5)


@pytest.mark.filterwarnings("error")  # a warning of numbers would stand in the user's terminal
def test_a_difference_of_constant_values_is_exact_and_one_value_has_no_interval():
    found = difference_interval(np.full(5, 2.0), np.full(3, 0.5))
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)
    constant, varying = np.full(5, 2.0), np.array([0.1, 0.4, 1.0])
    found = difference_interval(constant, varying)  # then the interval is that of one mean, from m - 1 degrees
    low, high = stats.t.interval(0.95, 2, varying.mean(), stats.sem(varying))
    np.testing.assert_allclose((found.low, found.high), (2 - high, 2 - low))
    assert not difference_interval(np.ones(1), np.ones(9)).n and not difference_interval(np.ones(9), np.ones(0)).n


def test_the_interval_of_a_mean_is_the_normal_one():
    x = np.random.default_rng(0).standard_normal(400)
    low, high = stats.norm.interval(0.95, x.mean(), stats.sem(x))
    found = mean_interval(x)
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-5)


def test_the_average_of_one_share_is_that_share_and_of_many_large_ones_has_the_normal_interval():
    one = share_interval(np.arange(40) < 39)
    assert average_shares([one]) == one
    n, p = 100_000, np.array([0.2, 0.5, 0.9])
    shares = [share_interval(np.arange(n) < round(n * share)) for share in p]
    half = 1.959964 * np.sqrt((p * (1 - p) / n).sum()) / 3
    found = average_shares(shares)
    np.testing.assert_allclose((found.value, found.low, found.high), (p.mean(), p.mean() - half, p.mean() + half), 1e-4)
    assert not average_shares([]).n


def test_the_average_of_shares_holds_the_truth_nineteen_times_in_twenty():
    """Four groups of twenty items each, two of which are nearly always right."""
    rng, p, n = np.random.default_rng(0), np.array([0.3, 0.6, 0.95, 0.98]), 20
    hits = rng.binomial(n, p, (2000, 4))
    known = {k: share_interval(np.arange(n) < k) for k in range(n + 1)}
    ends = [average_shares([known[k] for k in row]) for row in hits.tolist()]
    held = np.mean([one.low <= p.mean() <= one.high for one in ends])
    assert 0.93 < held < 0.985


def test_nothing_measured_is_no_figure():
    none = np.zeros(0, bool)
    assert np.isnan(share_interval(none).value)
    assert str(share_interval(none)) == ""


def test_students_factor_is_that_of_a_t_test():
    values = np.array([0.2, 0.5, 0.1, 0.9])
    found = mean_interval(values, student_quantile(4))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (low, high), atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_area_is_scikit_learns_and_its_error_that_of_repeated_draws(shift):
    from sklearn.metrics import roc_auc_score

    rng, positive = np.random.default_rng(0), np.arange(90) < 30
    draws = [rng.normal(0, 1, 90) + shift * positive for _ in range(2000)]
    found = [roc_area(values, positive) for values in draws]
    assert found[0].value == pytest.approx(roc_auc_score(positive, draws[0]))
    half = np.mean([(f.high - f.low) / 2 for f in found])
    spread = 1.96 * np.std([f.value for f in found])
    assert 0.95 * spread < half < 1.35 * spread  # of normal values far apart it is cautious


def test_an_area_of_one_side_is_no_figure():
    assert roc_area(np.arange(3.0), np.ones(3, bool)).n == 0


@pytest.mark.parametrize("area", [1.0, 0.5, 0.8])
def test_the_score_limits_of_an_area_solve_newcombes_equation(area):
    rng, positive = np.random.default_rng(0), np.arange(60) < 20
    values = np.where(positive, 100.0, 0) + np.arange(60) if area == 1 else rng.normal(size=60) + positive * area
    found = roc_area_score(values, positive)
    assert 0 <= found.low < found.value <= found.high <= 1
    more = (20 + 40) / 2 - 1
    for end in (found.low, found.high):
        if end < 1 - 1e-9:
            spread = end * (1 - end) * (1 + more * (1 - end) / (2 - end) + more * end / (1 + end)) / (20 * 40)
            assert abs(found.value - end) == pytest.approx(1.959964 * np.sqrt(spread), abs=1e-6)


def test_an_area_of_one_is_not_sure():
    found = roc_area_score(np.r_[np.zeros(10), np.ones(10)], np.arange(20) >= 10)
    assert found.value == found.high == 1 and 0.7 < found.low < 0.9


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_score_interval_of_an_area_holds_the_truth_nineteen_times_in_twenty(shift):
    rng, positive = np.random.default_rng(1), np.arange(50) < 20
    truth = stats.norm.cdf(shift / np.sqrt(2))
    found = [roc_area_score(rng.normal(size=50) + shift * positive, positive) for _ in range(600)]
    assert 0.93 < np.mean([one.low <= truth <= one.high for one in found]) <= 1


def test_ten_pictures_of_each_source_are_no_more_sure_than_one():
    rng = np.random.default_rng(2)
    few, positive = rng.normal(size=40), np.arange(40) < 15
    alone = roc_area_score(few, positive)
    again = roc_area_score(np.repeat(few, 10), np.repeat(positive, 10), np.repeat(np.arange(40), 10))
    assert (again.value, again.low, again.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_the_mean_of_blocks_of_one_is_a_t_test_and_repeats_add_nothing():
    values = np.random.default_rng(3).normal(size=12)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = block_mean_interval(values, np.arange(12))
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-9)
    again = block_mean_interval(np.repeat(values, 5), np.repeat(np.arange(12), 5))
    np.testing.assert_allclose((again.low, again.high), (low, high), rtol=1e-9)
    assert block_mean_interval(values, np.zeros(12, int)).n == 0


@pytest.mark.parametrize("n", [10, 25, 30])  # a fifth of which is whole
def test_the_trimmed_mean_is_that_of_another_library_and_far_values_hardly_move_it(n):
    values = np.random.default_rng(n).standard_t(2, n)
    found = trimmed_mean_interval(values)
    low, high = stats.mstats.trimmed_mean_ci(values, (0.2, 0.2))
    assert found.value == pytest.approx(stats.trim_mean(values, 0.2)) and found.n == n
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    values[values.argmax()] = 1e6
    assert trimmed_mean_interval(values) == found


def test_the_trimmed_mean_of_few_values_is_their_mean():
    assert trimmed_mean_interval(np.array([1.0])).n == 0
    assert trimmed_mean_interval(np.array([1.0, 2.0, 6.0])).value == 3.0
