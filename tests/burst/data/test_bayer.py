"""Planes and mosaics against pixel-by-pixel rewrites, for every pattern."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.burst.data.bayer import PATTERNS, sample_mosaic, to_mosaic, to_planes
from klarsicht.ground.errors import InputError, UsageError

SIDES = st.integers(1, 5).map(lambda n: 2 * n)


def letters(pattern, height, width):
    """The colour of every pixel, read off the pattern's name."""
    return [[pattern[2 * (y % 2) + x % 2] for x in range(width)] for y in range(height)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_plane_holds_the_pixels_of_its_letter(pattern):
    mosaic = np.arange(48).reshape(6, 8)
    colour = np.array(letters(pattern, 6, 8))
    red, green, green_too, blue = to_planes(mosaic, pattern)
    np.testing.assert_array_equal(red.ravel(), mosaic[colour == "R"])
    np.testing.assert_array_equal(blue.ravel(), mosaic[colour == "B"])
    rows_of_green = [mosaic[y][colour[y] == "G"] for y in range(6)]
    np.testing.assert_array_equal(green, rows_of_green[0::2])
    np.testing.assert_array_equal(green_too, rows_of_green[1::2])


@given(SIDES, SIDES, st.sampled_from(list(PATTERNS)))
def test_there_and_back(height, width, pattern):
    mosaic = np.random.default_rng(height + width).random((2, height, width))
    np.testing.assert_array_equal(to_mosaic(to_planes(mosaic, pattern), pattern), mosaic)
    tensor = torch.from_numpy(mosaic)
    assert torch.equal(to_mosaic(to_planes(tensor, pattern), pattern), tensor)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_sensor_sees_one_colour_a_pixel(pattern):
    rgb = np.random.default_rng(0).random((3, 6, 8))
    index = {"R": 0, "G": 1, "B": 2}
    grid = letters(pattern, 6, 8)
    seen = np.array([[rgb[index[grid[y][x]], y, x] for x in range(8)] for y in range(6)])
    np.testing.assert_array_equal(to_mosaic(sample_mosaic(rgb, pattern), pattern), seen)
    assert torch.equal(sample_mosaic(torch.from_numpy(rgb), pattern), torch.from_numpy(sample_mosaic(rgb, pattern)))


def test_what_is_no_mosaic_is_refused():
    with pytest.raises(InputError, match="5 x 4"):
        to_planes(np.zeros((5, 4)))
    with pytest.raises(InputError, match="3 channels"):
        to_mosaic(np.zeros((3, 2, 2)))
    with pytest.raises(UsageError, match="RGGB"):
        to_planes(np.zeros((4, 4)), "RGBG")
