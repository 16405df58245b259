"""Groups before and after, on figures written by hand: averages and the worst group."""

import numpy as np
import pytest

from klarsicht.audit.cleaning.models.group_accuracy import (
    HELD_OUT_COMPOSITES,
    HELD_OUT_PICTURES,
    OwnImages,
    Sides,
    compare,
    draw_groups,
    limit_groups,
    tabulate,
)
from klarsicht.audit.explanation.data.splits import TEST, TRAIN

NAMES = {0: "dark", 1: "light"}


def compared(before, after, n=100, kind=HELD_OUT_COMPOSITES):
    """A comparison in which so many of n images of dark on dark, dark on light, light on dark and light on light are
    right."""
    labels, sides = np.repeat([0, 0, 1, 1], n), np.repeat([0, 1, 0, 1], n)
    answers = []
    for right in (before, after):
        is_right = np.concatenate([np.arange(n) < count for count in right])
        answers.append(np.where(is_right, labels, 1 - labels))
    return compare(kind, answers, labels, Sides(sides, NAMES), NAMES, np.ones(4 * n, bool))


def test_groups_are_counted_as_by_hand():
    table = tabulate(
        np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 1]), Sides(np.array([0, 0, 1, 1, 1, 0]), NAMES),
        {0: "a", 1: "b"},
    )  # fmt: skip
    found = {(one.label, one.side): (one.right.value, one.right.n) for one in table.groups}
    expected = {("a", "dark"): (1.0, 2), ("a", "light"): (0.0, 1), ("b", "light"): (0.5, 2), ("b", "dark"): (1.0, 1)}
    assert found == expected
    assert table.average.value == pytest.approx(2.5 / 4) and (table.worst.label, table.worst.side) == ("a", "light")
    assert table.difference == 1.0


def test_the_difference_is_within_a_class():
    """A class that is hard on every side is no shortcut."""
    table = compared((100, 95, 50, 48), (0, 0, 0, 0)).before
    assert table.difference == pytest.approx(0.05)


def test_the_line_says_averages_and_worst_groups_with_their_intervals():
    line = compared((100, 24, 20, 100), (98, 96, 95, 99)).describe()
    assert line.startswith("composites of held-out images: average of groups 61.0 (")
    assert "worst group 20.0 (13.3 to 28.9) % before, 95.0 (88.8 to 97.8) % after" in line


def test_few_images_are_said_to_prove_little():
    assert compared((2, 2, 2, 2), (2, 2, 2, 2), 2, HELD_OUT_PICTURES).few == (
        "held-out images: the smallest group, dark and dark, has 2 images, which prove little"
    )
    assert compared((2, 2, 2, 2), (2, 2, 2, 2), 20).few == ""


def drawn(labels, sides, held_out):
    n = len(labels)
    own = np.zeros((n, 8, 8), bool)
    own[:, 2:6, 2:6] = True
    return OwnImages(np.zeros((n, 8, 8, 3), np.uint8), own, labels, sides, np.where(held_out, TEST, TRAIN), None)


@pytest.mark.parametrize("most", [1, 4, 100, None])
def test_of_every_group_so_many_images_are_drawn_or_all(most):
    rng = np.random.default_rng(0)
    labels, sides = rng.integers(0, 3, 60), rng.integers(-1, 2, 60)
    chosen = limit_groups(labels, sides, most, 0)
    for label in range(3):
        for side in (-1, 0, 1):
            count = int(((labels == label) & (sides == side)).sum())
            drawn_of_it = int(((labels[chosen] == label) & (sides[chosen] == side)).sum())
            assert drawn_of_it == (count if most is None else min(count, most))
    assert len({*chosen}) == len(chosen) and (np.diff(chosen) > 0).all()
    others = [limit_groups(labels, sides, most, seed) for seed in range(1, 6)]
    assert any(list(one) != list(chosen) for one in others) == (most in (1, 4))


def test_no_source_is_shown_twice_in_a_group_and_only_held_out_images_are():
    labels, sides = np.repeat([0, 1], 30), np.repeat([0, 1], 30)
    sides[[0, 30]] = 1, 0
    held_out = np.arange(60) % 2 == 0
    pairs = draw_groups(drawn(labels, sides, held_out), np.random.default_rng(0), 100)
    assert held_out[pairs.sources].all() and held_out[pairs.donors].all()
    groups = set(zip(labels[pairs.sources], sides[pairs.donors], strict=True))
    assert len(groups) == 4
    for label, side in groups:
        of_group = pairs.sources[(labels[pairs.sources] == label) & (sides[pairs.donors] == side)]
        assert sorted(of_group) == sorted(np.flatnonzero(held_out & (labels == label)))


def test_exceptions_are_on_another_side_than_most_of_their_class():
    one = drawn(np.array([0, 0, 0, 1, 1, 1]), np.array([7, 7, 3, 3, 3, 7]), np.ones(6, bool))
    np.testing.assert_array_equal(one.exceptional, [False, False, True, False, False, True])


def test_images_as_they_are_are_drawn_of_every_class_as_often_and_in_it_of_every_side():
    labels, sides = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 0])
    held_out = np.array([0, 1, 0, 0, 0, 0, 1], bool)
    one = OwnImages(np.zeros((7, 8, 8, 3), np.uint8), np.zeros((7, 8, 8), bool), labels, sides, held_out, None)
    assert one.chances == pytest.approx([1 / 8, 0, 1 / 8, 1 / 4, 1 / 4, 1 / 4, 0])
