"""Groups of larger values. Oracles: a loop over scipy's t-tests, simulated null classes, planted groups."""

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom, ttest_ind

from klarsicht.numerics.statistics.rising_groups import (
    cohen_d_bounds,
    order_by_group,
    permutation_p,
    settle_levels,
    weighted_bounds,
)

LOOKS = (24, 48, 96)


def groups(rng, n, count=60):
    """Overlapping groups of 3 % to half of the images."""
    return rng.random((count, n)) < rng.uniform(0.03, 0.5, (count, 1))


def test_bounds_are_those_of_a_loop_over_t_tests():
    rng = np.random.default_rng(0)
    members, values = groups(rng, 40, 25), rng.normal(3, 2, (4, 40))
    members[0], members[1] = False, np.arange(40) < 39  # nobody; one other
    for i, j in np.ndindex(25, 4):
        a, b = members[i].sum(), (~members[i]).sum()
        bound = cohen_d_bounds(members, values)[i, j]
        if min(a, b) < 2:
            assert bound == -np.inf
            continue
        t = ttest_ind(values[j][members[i]], values[j][~members[i]]).statistic
        assert bound == pytest.approx((t - 1.645) * np.sqrt(1 / a + 1 / b))


def test_two_images_have_no_bound():
    with np.errstate(all="raise"):
        bound = cohen_d_bounds(np.array([[True, False]]), np.array([[0.0, 1.0]]))
    assert bound.tolist() == [[-np.inf]]


def test_only_positive_bounds_are_weighted():
    rng = np.random.default_rng(1)
    members, values, weight = groups(rng, 40), rng.normal(size=(1, 40)), rng.uniform(1, 5, 60)
    plain, weighted = cohen_d_bounds(members, values)[:, 0], weighted_bounds(members, values, weight)[:, 0]
    np.testing.assert_allclose(weighted, [w * b if b > 0 else b for w, b in zip(weight, plain, strict=True)])


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_a_class_without_a_rising_group_is_settled_at_most_at_the_level(level):
    """300 classes of skewed values that depend on no group, looked at three times, images of far groups first."""
    rng, settled, naive = np.random.default_rng(2), 0, 0
    for _ in range(300):
        members, weight = groups(rng, LOOKS[-1]), rng.uniform(1, 4, 60)
        value, order = rng.exponential(size=LOOKS[-1]), order_by_group(members, weight, rng)
        p = [permutation_p(members[:, order[:n]], value[order[:n]], weight, rng) for n in LOOKS]
        settled += bool((np.array(p) <= settle_levels(LOOKS, level)).any())
        naive += min(p) <= level
    assert binomtest(settled, 300, level, alternative="greater").pvalue > 0.01
    assert naive > 1.3 * level * 300  # the same level at every look would not hold


def test_equal_deals_are_counted():
    """Of values 0 and 1 the statistic depends on how many ones are members, so p is a hypergeometric tail."""
    members = np.arange(34)[None] < 11
    value = np.where(np.isin(np.arange(34), (0, 1, 2, 11)), 0.37, 0.1)
    drawn = [permutation_p(members, value, np.ones(1), np.random.default_rng(seed)) for seed in range(60)]
    assert np.mean(drawn) == pytest.approx((1 + 199 * hypergeom(34, 4, 11).sf(2)) / 200, abs=0.01)


def test_a_group_that_rises_is_settled_early_and_a_class_without_one_is_left():
    rng, looked = np.random.default_rng(3), []
    for _ in range(30):
        members, weight = groups(rng, LOOKS[-1]), np.ones(60)
        members[7] = np.arange(96) % 8 == 0
        weight[7] = 4  # it stands apart
        value, order = rng.normal(size=96) + 4 * members[7], order_by_group(members, weight, rng)
        levels = settle_levels(LOOKS, 0.05)
        looked.append(
            next(
                (k for k, n in enumerate(LOOKS)
                 if permutation_p(members[:, order[:n]], value[order[:n]], weight, rng) <= levels[k]),
                9,
            )
        )  # fmt: skip
    assert np.mean(np.array(looked) == 0) > 0.8 and max(looked) <= 2


def test_the_level_is_spent_as_images_come_in():
    np.testing.assert_allclose(settle_levels(LOOKS, 0.04), [0.01, 0.01, 0.02])


def test_images_of_far_groups_come_first_and_all_come_once():
    rng = np.random.default_rng(4)
    far, most = np.arange(60) < 6, np.arange(60) > 10
    order = order_by_group(np.array([far, most, rng.random(60) < 0.3]), np.array([5.0, 9.0, -1.0]), rng)
    assert sorted(order) == list(range(60)) and far[order[:12]].sum() == 6
    assert permutation_p(np.zeros((2, 10), bool), rng.normal(size=10), np.ones(2), rng) == 1
