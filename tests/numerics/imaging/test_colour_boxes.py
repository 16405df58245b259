"""Boxes of colours. Oracle: literal loops over pixels and boxes."""

import numpy as np
import pytest

from klarsicht.numerics.imaging.colour_boxes import Occurrences, count_bins, count_in_boxes, select_flat


@pytest.mark.parametrize("width", [60, 64, 100])
def test_counts_are_those_of_a_loop_over_boxes(width):
    rng, places = np.random.default_rng(0), 3
    colours, place = rng.integers(0, 256, (200, 3)), rng.integers(0, places, 200)
    counts, b = count_in_boxes(colours, place, places, width), count_bins(width)
    assert counts.shape == (places, b, b, b) and b == np.ceil(256 / width)
    for at, *first in np.ndindex(counts.shape):
        low = width * np.array(first)
        inside = ((colours >= low) & (colours < low + 2 * width)).all(1)
        assert counts[at][tuple(first)] == (inside & (place == at)).sum()


def test_flat_blocks_are_those_of_a_loop_over_pixels():
    image = np.random.default_rng(1).integers(100, 130, (9, 11, 3)).astype(np.uint8)
    image[2:6, 3:8] = (200, 255, 0)
    expected = []
    for i in range(8):
        for j in range(10):
            block = image[i : i + 2, j : j + 2].reshape(4, 3).astype(int)
            if (block.max(0) - block.min(0) <= 12).all():
                expected.append(block.sum(0) // 4)
    found = select_flat(image, 12)
    assert len(found) >= 12 and (found == expected).all()


def test_occurrences_are_counted_and_held():
    counts = np.array([[3, 0, 1, 2], [2, 2, 0, 0], [0, 0, 0, 0], [5, 0, 2, 1]])
    found = Occurrences.of(counts, lambda row: row, 2, 4)
    assert found.count(np.ones(4, bool)).tolist() == [3, 1, 1, 1]
    assert found.count(np.array([True, False, True, False])).tolist() == [1, 0, 0, 1]
    assert [found.holders(box).tolist() for box in range(4)] == [[0, 1, 3], [1], [3], [0]]
    assert Occurrences.of(np.zeros((0, 4)), lambda row: row, 2, 4).count(np.zeros(0, bool)).tolist() == [0] * 4
