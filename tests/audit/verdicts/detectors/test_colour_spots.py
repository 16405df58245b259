"""Colours of opaque marks. Oracle: marks on known images, mirror images, loops over boxes, and laws of both."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.detectors.colour_spots import (
    FlatColour,
    OneSidedColour,
    mirror_cells,
    second_of_neighbours,
)
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.numerics.statistics.split_half import draw_halves

N, SIDE, CARRIERS = 120, 32, 20
DETECTORS = (FlatColour(), OneSidedColour())


def scenes(rng, count):
    """Photographs of a kind uint8 (count, SIDE, SIDE, 3): smooth noise of three scales."""
    layers = [gaussian_filter(rng.normal(0, 70 * s, (count, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
    return np.clip(120 + sum(layers), 0, 255).astype(np.uint8)


def class_images(own, other):
    pool = ImageStack(np.concatenate([own, other]))
    others = np.arange(len(pool)) >= len(own)
    return ClassImages(
        ImageStack(own), pool, others, draw_halves(len(own), np.random.default_rng(1)), np.arange(len(own))
    )


def detect(detector, own, other):
    (found,) = detector(class_images(own, other), "spots")
    return found


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    return scenes(rng, N), scenes(rng, N)


@pytest.mark.parametrize("detector", DETECTORS)
def test_nothing_is_found_in_clean_images_and_in_grey_ones(detector, clean):
    assert detect(detector, *clean).score < 3
    grey = detect(detector, *(one[..., :1] for one in clean))
    assert grey.score == 0 and not len(grey.members)


def test_spots_of_one_colour_are_found_wherever_they_lie(clean):
    own, rng = clean[0].copy(), np.random.default_rng(2)
    for i in range(CARRIERS):
        side, (y, x) = rng.integers(4, 9), rng.integers(0, SIDE - 9, 2)
        own[i, y : y + side, x : x + side] = (210, 30, 150)
    found = detect(FlatColour(), own, clean[1])
    assert found.score > 10 and found.members.tolist() == list(range(CARRIERS))
    turned = [np.ascontiguousarray(one.swapaxes(1, 2)[:, ::-1]) for one in (own, clean[1])]
    assert detect(FlatColour(), *turned).score == found.score  # places do not matter


def test_a_colour_that_most_of_a_class_have_is_its_nature(clean):
    own = clean[0].copy()
    own[:80, 4:12, 4:12] = (210, 30, 150)
    assert detect(FlatColour(), own, clean[1]).score < 3


def test_a_colour_among_many_like_it_is_natural(clean):
    """Flat spots with colours of all kinds nearby give no colour that stands out."""
    own, rng = clean[0].copy(), np.random.default_rng(3)
    for i in range(40):
        own[i, 4:12, 4:12] = np.array((180, 60, 150)) + rng.integers(-30, 31, 3)
    assert detect(FlatColour(), own, clean[1]).score < 3


def test_a_colour_on_one_side_is_found_and_on_both_it_is_not(clean):
    own, rng = clean[0].copy(), np.random.default_rng(4)
    drawn = rng.random((CARRIERS, 4, 12)) < 0.6  # digits that differ
    patch = own[:CARRIERS, 28:, 19:31]
    patch[drawn] = (250, 130, 10)
    found = detect(OneSidedColour(), own, clean[1])
    assert found.score > 10 and found.members.tolist() == list(range(CARRIERS))
    mirrored = [np.ascontiguousarray(one[:, :, ::-1]) for one in (own, clean[1])]
    other_side = detect(OneSidedColour(), *mirrored)
    assert other_side.score == pytest.approx(found.score) and other_side.members.tolist() == found.members.tolist()
    both = own.copy()
    both[20 : 20 + CARRIERS] = np.ascontiguousarray(own[:CARRIERS, :, ::-1])
    assert detect(OneSidedColour(), both, clean[1]).score < 1


def test_images_of_one_source_count_once(clean):
    own = clean[0].copy()
    own[:CARRIERS, 4:10, 4:10] = (210, 30, 150)
    sources = np.where(np.arange(N) < CARRIERS, 0, np.arange(N))
    (found,) = FlatColour()(replace(class_images(own, clean[1]), sources=sources), "spots")
    assert found.score < 1


def test_neighbours_are_those_of_a_loop():
    counts, b = np.random.default_rng(5).integers(0, 9, (5, 5, 5)), 5
    expected = np.zeros_like(counts)
    for at in np.ndindex(b, b, b):
        near = [np.array(at) + step for step in itertools.product((-2, 0, 2), repeat=3) if any(step)]
        found = [int(counts[tuple(one)]) if all((one >= 0) & (one < b)) else 0 for one in near]
        expected[at] = sorted(found)[-2]
    assert (second_of_neighbours(counts) == expected).all()


def test_cells_are_mirrored_by_row():
    cells = np.repeat(np.arange(32), 2)  # two boxes a cell
    expected = [4 * (cell // 4) + 3 - cell % 4 for cell in range(32)]
    assert mirror_cells(cells).tolist() == np.repeat(expected, 2).tolist()
