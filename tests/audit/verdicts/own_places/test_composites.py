"""Composites against their definition, pixel by pixel, and pairs by their counts."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.own_places.composites import Pairs, draw_pairs, draw_shift, lay_on_others, usable_places


def boxes(n, rng, side=16, size=4):
    own = np.zeros((n, side, side), bool)
    for one in own:
        i, j = rng.integers(0, side - size, 2)
        one[i : i + size, j : j + size] = True
    return own


def test_a_composite_is_the_source_at_its_own_places_and_the_donor_elsewhere():
    rng = np.random.default_rng(0)
    images, own = rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8), boxes(6, rng)
    pairs = Pairs(np.array([0, 1, 2]), np.array([3, 4, 5]))
    out = lay_on_others(images, own, pairs, np.random.default_rng(1))
    again = np.random.default_rng(1)
    for k, (source, donor) in enumerate(zip(pairs.sources, pairs.donors, strict=True)):
        down, right = draw_shift(own[donor], again)
        for i in range(16):
            for j in range(16):
                if own[source, i, j]:
                    wanted = images[source, i, j]
                elif own[donor, i, j]:
                    wanted = images[donor, (i - down) % 16, (j - right) % 16]
                else:
                    wanted = images[donor, i, j]
                assert (out[k, i, j] == wanted).all()


def test_what_fills_a_donor_is_not_its_own():
    rng = np.random.default_rng(0)
    for own in boxes(20, rng):
        assert not (own & np.roll(own, draw_shift(own, rng), (0, 1))).any()


def test_of_the_source_alone_a_rim_of_any_width_up_to_the_largest_is_left_out_as_often_as_none():
    rng = np.random.default_rng(0)
    images, own = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8), np.zeros((2, 16, 16), bool)
    own[0, 4:12, 4:12] = True
    out = lay_on_others(images, own, Pairs(np.zeros(300, int), np.ones(300, int)), rng, rim=2)
    wanted = []
    for width in range(3):
        one = images[1].copy()
        one[4 + width : 12 - width, 4 + width : 12 - width] = images[0][4 + width : 12 - width, 4 + width : 12 - width]
        wanted.append(one)
    counts = [sum(np.array_equal(one, picture) for picture in out) for one in wanted]
    assert sum(counts) == 300 and min(counts) > 70


@pytest.mark.parametrize("classes", [2, 3])
def test_every_class_is_as_often_a_source_and_as_often_a_donor(classes):
    rng = np.random.default_rng(0)
    labels, usable = rng.integers(0, classes, 200), rng.random(200) < 0.7
    pairs = draw_pairs(labels, usable, 60 * classes, rng)
    for rows in (pairs.sources, pairs.donors):
        assert usable[rows].all()
        assert np.bincount(labels[rows]).tolist() == [60] * classes


def test_half_of_the_sources_are_exceptions_where_they_are_asked_for():
    rng = np.random.default_rng(0)
    labels, odd = np.repeat([0, 1], 500), np.arange(1000) % 50 == 0
    pairs = draw_pairs(labels, np.ones(1000, bool), 2000, rng, odd)
    assert odd[pairs.sources].mean() == pytest.approx(0.5, abs=0.05)
    assert odd[pairs.donors].mean() == pytest.approx(0.02, abs=0.02)


def test_images_without_or_with_far_larger_own_places_are_not_usable():
    own = np.zeros((4, 10, 10), bool)
    own[0, :3, :3], own[1, :3, :3], own[3] = True, True, True
    assert usable_places(own, np.array([True, False, False, False])).tolist() == [True, True, False, False]
    assert not usable_places(own & False, np.zeros(4, bool)).any()
