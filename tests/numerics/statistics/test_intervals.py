"""Intervals against scipy, and against what they promise: they hold the truth nineteen times in twenty."""

import numpy as np
import pytest
from scipy import stats

from klarsicht.numerics.statistics.intervals import (
    mean_interval,
    roc_area,
    share_interval,
    student_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (180, 200)])
def test_the_interval_of_a_share_is_scipys(hits, n):
    interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(hits, n), (interval.low, interval.high), atol=1e-7)
    found = share_interval(np.arange(n) < hits)
    assert (found.value, found.low, found.high, found.n) == (hits / n, *wilson_interval(hits, n), n)


def test_the_interval_of_a_mean_is_the_normal_one():
    x = np.random.default_rng(0).standard_normal(400)
    low, high = stats.norm.interval(0.95, x.mean(), stats.sem(x))
    found = mean_interval(x)
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-5)


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
