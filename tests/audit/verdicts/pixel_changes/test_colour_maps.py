"""Maps of colours that are known are found again, from carriers that are other images than those compared."""

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.verdicts.pixel_changes.colour_maps import (
    HueTurn,
    colour_moments,
    fit_channel_gains,
    fit_grey_rotation,
    fit_hue_turn,
    grey_rotation,
)

RNG = np.random.default_rng(0)


def coloured(n, seed):
    """Images whose colours lie mostly between dark blue and orange, each of its own brightness."""
    rng = np.random.default_rng(seed)
    mix = rng.random((n, 12, 12, 1))
    base = (1 - mix) * np.array([20, 30, 70]) + mix * np.array([190, 110, 40])
    return np.clip(base * rng.uniform(0.7, 1.2, (n, 1, 1, 1)) + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)


def turned_by_pillow(x, degrees):
    planes = [np.asarray(Image.fromarray(image).convert("HSV")) for image in x]
    moved = [
        Image.fromarray(plane + np.array([round(256 * degrees / 360) % 256, 0, 0], np.uint8), "HSV") for plane in planes
    ]
    return np.stack([np.asarray(image.convert("RGB")) for image in moved])


@pytest.mark.parametrize("degrees", [40, -110, 180])
def test_a_turn_of_hue_by_pillow_is_recovered(degrees):
    found = fit_hue_turn(turned_by_pillow(coloured(25, 1), degrees), coloured(60, 2))
    away = (360 * found.turn - degrees + 180) % 360 - 180
    assert abs(away) <= 10  # two of the turns that are compared
    new = coloured(10, 3)
    expected = turned_by_pillow(new, degrees).astype(float)
    left = np.abs(found.apply(new, RNG) - expected).mean()
    assert left < 0.25 * np.abs(new - expected).mean()


def test_a_cycle_of_the_channels_is_recovered_as_a_rotation_about_grey():
    """The permutation red to green to blue is the rotation by a third of a turn about the grey axis."""
    cycle = np.roll(np.eye(3), 1, 0)
    np.testing.assert_allclose(grey_rotation(2 * np.pi / 3).matrix, cycle, atol=1e-12)
    found = fit_grey_rotation(np.roll(coloured(25, 1), 1, -1), coloured(60, 2))
    np.testing.assert_allclose(found.matrix, cycle, atol=0.11)  # two steps of five degrees: 2 sin(5 degrees) / sqrt(3)


def test_gains_of_the_channels_are_recovered():
    gains = np.array([0.7, 1.1, 1.25])
    found = fit_channel_gains((coloured(25, 1) * gains).clip(0, 255).astype(np.uint8), coloured(60, 2))
    np.testing.assert_allclose(np.diag(found.matrix), gains, rtol=0.1)
    assert not found.offset.any()


def test_of_images_alike_nothing_is_found():
    x = coloured(40, 1)
    assert fit_hue_turn(x, x).is_identity
    assert fit_grey_rotation(x, x).is_identity
    np.testing.assert_allclose(fit_channel_gains(x, x).matrix, np.eye(3), atol=0.04)  # 100 of 144 pixels are taken


def test_moments_are_those_of_numpy():
    x = coloured(3, 0)
    for image, found in zip(x, colour_moments(x), strict=True):
        pixels = image.reshape(-1, 3) @ (np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]).T / np.sqrt([3, 2, 6]))
        covariance = np.cov(pixels.T, ddof=0)[np.triu_indices(3)]
        np.testing.assert_allclose(found, [*pixels.mean(0), *(np.sign(covariance) * np.sqrt(np.abs(covariance)))])


def test_grey_is_left_grey():
    grey = np.full((1, 2, 2, 3), 80.0)
    np.testing.assert_allclose(HueTurn(0.3).apply(grey, RNG), grey)
    np.testing.assert_allclose(grey_rotation(1.1).apply(grey, RNG), grey)
