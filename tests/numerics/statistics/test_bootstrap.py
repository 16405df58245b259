"""Bootstrap intervals beside scipy's, and their coverage."""

import numpy as np
import pytest
from scipy import stats

from klarsicht.numerics.statistics.bootstrap import bootstrap_mean_interval
from klarsicht.numerics.statistics.intervals import NO_INTERVAL


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=60)
    found = bootstrap_mean_interval(values, np.random.default_rng(1))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    low, high = theirs.confidence_interval
    assert found.value == values.mean() and found.n == 60
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)  # 4 errors of a quantile of 2,000 draws


def test_it_holds_the_mean_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    held = [(i := bootstrap_mean_interval(rng.normal(size=40), rng)).low <= 0 <= i.high for _ in range(200)]
    assert 0.88 <= np.mean(held) <= 0.99


def test_one_value_has_no_interval():
    assert bootstrap_mean_interval(np.ones(1), np.random.default_rng(0)) == NO_INTERVAL
