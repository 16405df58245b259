"""Resampled windows beside scipy's interpolation, and ramps, of which every window is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from klarsicht.audit.verdicts.interventions.framings import CENTRE, FRAMINGS, WHOLE_PICTURE, resample

H, W = 48, 64


def smooth_images():
    x = gaussian_filter(np.random.default_rng(0).normal(size=(2, H, W, 3)), (0, 3, 3, 0))
    return np.rint(128 + 90 * x / np.abs(x).max()).astype(np.uint8)


@pytest.mark.parametrize("name", FRAMINGS)
def test_a_framing_is_that_of_interpolation(name):
    images = smooth_images()
    for window in (FRAMINGS[name].window, FRAMINGS[name].control):
        shown, (top, left, tall, wide) = resample(images, window), window
        y = top * H + (np.arange(H) + 0.5) * tall - 0.5
        x = left * W + (np.arange(W) + 0.5) * wide - 0.5
        for image, one in zip(images, shown, strict=True):
            for c in range(3):
                grid = np.meshgrid(y, x, indexing="ij")
                expected = map_coordinates(image[..., c].astype(float), grid, order=1, mode="nearest")
                np.testing.assert_allclose(one[2:-2, 2:-2, c], expected[2:-2, 2:-2], atol=1.5)


def test_shifts_move_what_is_shown_and_nothing_else():
    """A bright spot, in the enlarged picture, moves by 4/3 of the margin of an eighth: a sixth of the side."""
    images = np.zeros((1, H, W, 1), np.uint8)
    images[0, 23:25, 31:33] = 255
    centre = np.argwhere(resample(images, CENTRE)[0, ..., 0] > 100).mean(0)
    for name, step in (("up", (-1, 0)), ("down", (1, 0)), ("left", (0, -1)), ("right", (0, 1))):
        moved = np.argwhere(resample(images, FRAMINGS[f"shifted {name}"].window)[0, ..., 0] > 100).mean(0)
        np.testing.assert_allclose(moved - centre, np.array(step) * (H / 6, W / 6), atol=0.6)


def test_the_whole_picture_stays_to_the_bit():
    images = smooth_images()
    assert resample(images, WHOLE_PICTURE) is images
