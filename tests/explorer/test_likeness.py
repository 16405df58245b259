"""Likeness of classes by the shift of their features, against scipy's tests and average linkage step by step."""

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import ttest_ind

from klarsicht.explorer.likeness import (
    LEAST_ERRORS,
    LEAST_SPREAD,
    cosines,
    effective_features,
    feature_shift,
    group_alike,
    shift_likeness,
)


def test_a_shift_is_welch_s_statistic_shrunk_by_its_least():
    rng = np.random.default_rng(0)
    members, others = rng.normal(size=(9, 20)) * 2, rng.normal(size=(30, 20))
    members[:, :5] += 4
    t = ttest_ind(members, others, equal_var=False).statistic
    wanted = [0.0 if abs(one) <= LEAST_ERRORS else one - np.copysign(LEAST_ERRORS, one) for one in t]
    np.testing.assert_allclose(feature_shift(members, others), wanted, rtol=1e-9)
    assert (feature_shift(members, others)[:5] > 0).all()


@pytest.mark.parametrize(("m", "n"), [(1, 9), (9, 1), (0, 9), (9, 0)])
def test_of_a_single_image_nothing_is_known(m, n):
    assert not feature_shift(np.ones((m, 3), np.float32), np.zeros((n, 3), np.float32)).any()


def test_a_feature_that_separates_without_spread_counts_by_the_least_spread():
    found = feature_shift(np.array([[1.0, 5.0]] * 4), np.array([[0.0, 5.0]] * 4))
    least = LEAST_SPREAD * 0.5  # of four ones and four zeros the standard deviation is a half
    np.testing.assert_allclose(found, [1 / (least * np.sqrt(1 / 4 + 1 / 4)) - LEAST_ERRORS, 0])


@pytest.mark.parametrize(("shift", "wanted"), [([2, -2, 2, 0, 0], 3), ([7, 0, 0, 0, 0], 1), ([0] * 5, 0)])
def test_effective_features_of_equal_shifts_are_their_number(shift, wanted):
    assert effective_features(np.array([shift], float)).tolist() == [wanted]


def test_shifts_of_one_feature_are_like_nothing():
    """Any two artifacts that move the only feature that a model has would be the same."""
    one, many = [9.0] + [0.0] * 7, [3.0] * 8
    likeness = shift_likeness(np.array([one, one, many, many]))
    np.testing.assert_allclose(likeness, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])


def test_cosines_are_those_of_scipy():
    shifts = np.random.default_rng(1).normal(size=(5, 7))
    shifts[3] = 0
    found = cosines(shifts)
    for i in range(5):
        for j in range(5):
            wanted = 0.0 if 3 in (i, j) else 1 - cosine(shifts[i], shifts[j])
            assert found[i, j] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_those_of_average_linkage(seed):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, 6))
    likeness = cosines(centres[rng.integers(4, size=15)] + 0.5 * rng.normal(size=(15, 6)))
    assert group_alike(likeness, 0.5) == merge_one_by_one(likeness, 0.5)


def merge_one_by_one(likeness, least):
    """Average linkage literally: the two groups of largest mean likeness are merged until it is below `least`."""
    groups = [[i] for i in range(len(likeness))]
    while len(groups) > 1:
        pairs = [(likeness[np.ix_(a, b)].mean(), a, b) for a, b in combinations(groups, 2)]
        mean, a, b = max(pairs, key=lambda pair: pair[0])
        if mean < least:
            break
        groups = [group for group in groups if group not in (a, b)] + [sorted(a + b)]
    return sorted(groups)


def test_few_items_are_grouped():
    assert group_alike(np.zeros((0, 0))) == [] and group_alike(np.ones((1, 1))) == [[0]]
    assert group_alike(np.array([[1, 0.9], [0.9, 1]])) == [[0, 1]]
    assert group_alike(np.array([[1, 0.1], [0.1, 1]])) == [[0], [1]]
