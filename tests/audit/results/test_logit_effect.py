"""Effects of half a logit and of two images of a hundred, written as numbers."""

import numpy as np
import pytest

from klarsicht.audit.results.logit_effect import LogitEffect, describe_floor, is_futile, is_raised, matters
from klarsicht.numerics.statistics.intervals import Interval


def effect(rise, turned=(0.0, 0.0, 0.0)):
    return LogitEffect(Interval(*rise, 100), Interval(*turned, 100))


@pytest.mark.parametrize(
    ("low", "turned_low", "expected"), [(0.25, 0.0, False), (0.5, 0.0, True), (0.1, 0.03, True), (-1.0, 0.019, False)]
)
def test_an_effect_is_shown_to_matter_by_either_lower_end(low, turned_low, expected):
    assert matters(effect((9.0, low, 9.0), (0.9, turned_low, 0.9))) == expected


def test_each_question_is_asked_of_its_end():
    one = effect((0.5, 0.3, 0.7), (0.01, 0.0, 0.019))
    assert [matters(one, by) for by in ("low", "value", "high")] == [False, True, True]
    turns = effect((0.0, -0.1, 0.1), (0.02, 0.01, 0.03))
    assert [matters(turns, by) for by in ("low", "value", "high")] == [False, True, True]


def test_the_floor_grows_with_its_factor_and_at_nought_whatever_is_there_matters():
    one = effect((0.3, 0.3, 0.3))
    assert [matters(one, factor=factor) for factor in (0.0, 0.5, 0.6, 0.61, 1.0)] == [True, True, True, False, False]
    assert describe_floor() == "0.5 logits, or 2 % of other images"
    assert describe_floor(2.5) == "1.25 logits, or 5 % of other images"


def test_images_that_are_not_counted_show_nothing_and_exclude_nothing():
    small = LogitEffect(Interval(0.1, 0.0, 0.2, 9))
    assert [matters(small, by) for by in ("low", "value", "high")] == [False, False, True]
    assert matters(LogitEffect.of_values(0.5), "value") and not matters(LogitEffect.of_values(0.49), "value")


def test_what_is_shown_to_matter_is_never_shown_to_be_less():
    rng = np.random.default_rng(0)
    for rise, turned in np.sort(rng.uniform(0, 1, (200, 2, 3)) * [[1.0], [0.04]]):
        one = effect(rise[[1, 0, 2]], turned[[1, 0, 2]])
        ends = [matters(one, by) for by in ("low", "value", "high")]
        assert ends == sorted(ends)


def test_a_class_is_raised_by_the_whole_interval_and_by_so_much():
    assert is_raised(effect((0.2, 0.01, 0.4))) and not is_raised(effect((0.2, 0.0, 0.4)))
    assert is_raised(effect((0.2, 0.01, 0.4)), 0.2) and not is_raised(effect((0.2, 0.01, 0.4)), 0.21)


def test_more_images_are_in_vain_two_standard_errors_below_half_a_logit():
    """Intervals of three standard errors of 0.1: the rise lies below the floor by two of them up to 0.3."""
    for value, futile in ((0.29, True), (0.31, False)):
        assert is_futile(effect((value, value - 0.3, value + 0.3)), 3.0) == futile
    assert not is_futile(effect((0.0, -0.3, 0.3), (0.01, -0.1, 0.1)), 3.0)  # it turns more images than the control
