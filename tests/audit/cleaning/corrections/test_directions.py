"""Directions: closed forms, scikit-learn on planted rows, what sources must not do."""

import numpy as np
import pytest

from klarsicht.audit.cleaning.corrections.directions import DIRECTIONS, fit_direction, random_direction
from klarsicht.ground.errors import InputError, UsageError


def test_the_pattern_is_the_difference_of_means_for_a_two_valued_membership():
    """cov(a, y) = p (1 - p) (mean of members - mean of others)."""
    rng = np.random.default_rng(0)
    a, member = rng.standard_normal((60, 4)), rng.random(60) < 0.3
    v = fit_direction("pattern", a, member, np.arange(60))
    difference = a[member].mean(0) - a[~member].mean(0)
    np.testing.assert_allclose(v, difference / np.linalg.norm(difference), atol=1e-12)


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_every_direction_points_along_a_shift_of_white_rows(kind):
    """Rows of equal variance shifted along e_1: pattern and weights agree."""
    rng = np.random.default_rng(0)
    member = rng.random(3000) < 0.4
    a = rng.standard_normal((3000, 5)) + 2 * np.outer(member, [0, 1, 0, 0, 0])
    v = fit_direction(kind, a, member, np.arange(3000))
    assert np.linalg.norm(v) == pytest.approx(1)
    assert v[1] > 0.98


@pytest.mark.parametrize("kind", ["svm", "logistic", "ridge"])
def test_weights_subtract_a_distractor_and_the_pattern_does_not(kind):
    """x_0 = artifact + d, x_1 = d: a classifier needs -x_1; the artifact does not change x_1."""
    rng = np.random.default_rng(0)
    member, d = rng.random(2000) < 0.5, 3 * rng.standard_normal(2000)
    a = np.stack([member + d, d], 1) + 0.1 * rng.standard_normal((2000, 2))
    assert abs(fit_direction("pattern", a, member, np.arange(2000))[1]) < 0.4
    assert fit_direction(kind, a, member, np.arange(2000))[1] < -0.5


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_a_channel_that_never_moves_has_no_part(kind):
    rng = np.random.default_rng(0)
    member = rng.random(100) < 0.5
    a = np.stack([member + rng.standard_normal(100), np.full(100, 7.0)], 1)
    assert fit_direction(kind, a, member, np.arange(100))[1] == pytest.approx(0, abs=1e-12)


def test_sources_that_differ_among_themselves_do_not_turn_the_pattern():
    rng = np.random.default_rng(0)
    sources, truth = np.repeat(np.arange(20), 15), np.array([0.0, 0.0, 1.0, 0.0])
    scene = 10 * rng.standard_normal((20, 4))[sources]
    member = rng.random(300) < np.where(sources < 5, 0.5, 0.1)  # members come from few scenes
    a = scene + member[:, None] * truth + 0.05 * rng.standard_normal((300, 4))
    assert fit_direction("pattern", a, member, sources) @ truth > 0.97
    assert fit_direction("pattern", a, member, np.arange(300)) @ truth < 0.9


@pytest.mark.parametrize("members", [0, 8])
def test_all_or_none_is_no_split(members):
    with pytest.raises(UsageError, match="no two groups"):
        fit_direction("pattern", np.eye(8), np.arange(8) < members, np.arange(8))


def test_members_that_do_not_differ_have_no_direction():
    with pytest.raises(InputError, match="do not differ"):
        fit_direction("pattern", np.ones((8, 3)), np.arange(8) < 4, np.arange(8))


def test_an_unknown_direction_lists_near_ones():
    with pytest.raises(UsageError, match="pattern"):
        fit_direction("patern", np.eye(4), np.arange(4) < 2, np.arange(4))


def test_a_random_direction_has_length_one():
    assert np.linalg.norm(random_direction(9, np.random.default_rng(0))) == pytest.approx(1)
