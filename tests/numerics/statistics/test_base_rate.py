"""Natural match rates of a class, against a slow rewrite and laws of shifted and contaminated classes."""

import numpy as np
import pytest

from klarsicht.numerics.statistics import base_rate


def test_fisher_is_arctanh():
    r = np.array([0.0, 0.3, 0.9])
    np.testing.assert_allclose(base_rate.fisher_z(r), 0.5 * np.log((1 + r) / (1 - r)))
    assert np.isfinite(base_rate.fisher_z(np.array([1.0]))).all() and base_rate.fisher_z(np.array([-0.5])) == 0


def test_a_pool_takes_the_middle_and_the_spread_of_the_class():
    rng = np.random.default_rng(0)
    own, pool = rng.normal(3, 2, (4, 101)), rng.normal(0, 1, (4, 301))
    moved = base_rate.match_median_and_spread(own, pool)
    np.testing.assert_allclose(np.median(moved, 1), np.median(own, 1))
    deviation = [np.median(np.abs(x - np.median(x, 1, keepdims=True)), 1) for x in (moved, own)]
    np.testing.assert_allclose(*deviation)


def test_a_narrower_class_leaves_the_spread_as_it_is():
    rng = np.random.default_rng(1)
    own, pool = rng.normal(0, 0.1, (1, 50)), rng.normal(0, 1, (1, 51))
    np.testing.assert_allclose(base_rate.match_median_and_spread(own, pool) - np.median(own), pool - np.median(pool))


@pytest.mark.parametrize("step", [0.0, 1.5])
def test_the_natural_rate_is_what_a_shifted_pool_gives(step):
    """A class that is the pool, shifted: as often beyond an edge as the pool is beyond the edge less the shift."""
    pool = np.random.default_rng(2).normal(0, 1, (1, 1001))
    found = base_rate.null_rate(pool + step, pool, 2.0)
    assert found == pytest.approx(((pool + step > 2).sum() + 1) / 1003)


def test_a_few_far_out_do_not_move_the_background():
    rng = np.random.default_rng(3)
    pool, own = rng.uniform(0, 0.6, (1, 500)), rng.uniform(0, 0.6, (1, 200))
    marked = own.copy()
    marked[0, :10] = 0.95
    plain, found = (base_rate.null_match_rate(x, pool, 0.85)[0] for x in (own, marked))
    assert found == plain == pytest.approx(1 / 502)


def test_a_constant_pool_is_moved_and_not_widened():
    np.testing.assert_array_equal(
        base_rate.match_median_and_spread(np.array([[1.0, 2, 3]]), np.zeros((1, 3))), np.full((1, 3), 2.0)
    )


def test_what_only_thins_out_towards_an_edge_is_natural():
    """An exponential tail holds 1 / (e^(BELOW / scale) - 1) times as many beyond an edge as less than BELOW under it:
    at a scale of BELOW / log(1.5) exactly DENSER times."""
    own = np.random.default_rng(4).exponential(base_rate.BAND_WIDTH / np.log(1.5), (1, 200_000))
    assert base_rate.extrapolated_rate(own, 1.2) == pytest.approx((own > 1.2).mean(), rel=0.03)
    halving = np.random.default_rng(6).exponential(base_rate.BAND_WIDTH / np.log(2), (1, 200_000))  # by bands
    assert base_rate.extrapolated_rate(halving, 1.2, denser=1.0) == pytest.approx((halving > 1.2).mean(), rel=0.03)


def test_a_lump_apart_is_not_natural_and_a_crowd_is():
    rng = np.random.default_rng(5)
    pool = np.tanh(rng.uniform(0, 0.6, (1, 500)))
    lump, crowd = (np.tanh(rng.uniform(0, 0.6, (1, 200))) for _ in range(2))
    lump[0, :20], crowd[0, :20] = 0.97, np.tanh(np.linspace(0.7, 2.1, 20))
    found = [base_rate.null_match_rate(x, pool, np.tanh(1.4))[0] * 200 for x in (lump, crowd)]
    assert found[0] < 1 and found[1] >= 2 * 4  # twenty evenly over 1.4 of z: four or five lie within .3 of it
    assert base_rate.extrapolated_rate(np.full((1, 5), 1.0), 1.1) < 1  # all of a class below: still a rate


def test_stragglers_below_a_lump_are_not_of_it_and_a_crowd_is_whole():
    rng = np.random.default_rng(7)
    below, stragglers, carriers = rng.uniform(0, 1, 500), rng.uniform(1.2, 2, 3), rng.normal(4, 0.3, 30)
    values = np.concatenate([below, stragglers, carriers])
    np.testing.assert_array_equal(base_rate.select_above_gap(values, 1.1), np.arange(533) >= 503)
    np.testing.assert_array_equal(
        base_rate.select_above_gap(values[:503], 1.1), np.arange(503) >= 500
    )  # too few to be parted
    crowd = np.concatenate([below, rng.exponential(1, 40) + 1.1])
    np.testing.assert_array_equal(
        base_rate.select_above_gap(crowd, 1.1), crowd > 1.1
    )  # it thins out: no gap is as wide
