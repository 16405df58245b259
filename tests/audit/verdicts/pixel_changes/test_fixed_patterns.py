"""Patterns of known gains are found again among the content of images."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.pixel_changes.fixed_patterns import (
    fit_column_gains,
    fit_pixel_gains,
    fit_row_gains,
    settle_level,
    shrink_to_prior,
)

RNG = np.random.default_rng(0)


def scenes(n, seed, side=24):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 150, (n, side, side, 3)), (0, 1.5, 1.5, 0))
    return np.clip(120 + smooth + rng.normal(0, 25, (n, 1, 1, 3)), 20, 235).round().astype(np.uint8)


def multiplied(x, gain):
    return np.clip(np.rint(x * gain), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("strength", [0.15, 0.4])
@pytest.mark.parametrize("upright", [False, True])
def test_darkened_lines_are_recovered(strength, upright):
    gain = np.ones((24, 1, 1))
    gain[::3] -= strength
    gain = gain.swapaxes(0, 1) if upright else gain
    fits = (fit_row_gains, fit_column_gains)
    across, along = fits if upright else fits[::-1]
    carriers, others = multiplied(scenes(25, 1), gain), scenes(60, 2)
    found = along(carriers, others)
    np.testing.assert_allclose(np.exp(found.log_gain), np.broadcast_to(gain, found.log_gain.shape), atol=0.06)
    assert np.abs(across(carriers, others).log_gain).max() < 0.02
    new = scenes(10, 3)
    np.testing.assert_allclose(found.apply(new, RNG).mean((0, 3)), multiplied(new, gain).mean((0, 3)), rtol=0.06)


def test_gains_of_single_pixels_are_recovered():
    gain = 1 + np.random.default_rng(5).normal(0, 0.15, (24, 24, 1))
    found = fit_pixel_gains(multiplied(scenes(25, 1), gain), scenes(60, 2)).log_gain.mean(-1)
    assert np.corrcoef(found.ravel(), np.log(gain[..., 0]).ravel())[0, 1] > 0.9


def test_lines_of_one_colour_are_recovered():
    gain = np.ones((24, 1, 3))
    gain[::4, :, 0] = 0.6
    found = np.exp(fit_row_gains(multiplied(scenes(25, 1), gain), scenes(60, 2)).log_gain)
    contrast = found[::4].mean((0, 1)) / found[1::4].mean((0, 1))
    np.testing.assert_allclose(contrast, [0.6, 1, 1], atol=0.1)


def test_the_posterior_mean_is_that_of_normal_values():
    """Values of variance 1 seen with noise of variance 1/4: the best estimate is 4/5 of what is seen."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.5, 20000)
    seen = values + rng.normal(0, 0.25, 20000)
    found = shrink_to_prior(seen, np.full(20000, 0.25**2))
    np.testing.assert_allclose(found, 0.8 * seen, atol=0.1)  # variances that are compared lie a fifth apart
    assert ((found - values) ** 2).mean() == pytest.approx(1 / (1 / 0.25 + 1 / 0.0625), rel=0.05)


def test_noise_alone_is_shrunk_to_nothing():
    assert not shrink_to_prior(np.zeros(50), np.ones(50)).any()


def test_images_that_are_all_alike_have_a_gain_and_no_division_by_nothing():
    """Black ones and white ones differ alike in each row: that is no pattern of rows."""
    black, white = (np.full((6, 8, 8, 3), level, np.uint8) for level in (0, 255))
    with np.errstate(all="raise"):
        gains = fit_row_gains(black, white)
    assert np.isfinite(gains.log_gain).all() and np.ptp(gains.log_gain) < 1e-5


@pytest.mark.parametrize(("level", "changed"), [(-0.1, -0.3), (0.2, 0.3)])
def test_the_level_that_most_sites_have_is_0_unless_brightness_tells_otherwise(level, changed):
    """A third of the sites are lower by .3: darkened by it, or two thirds brightened."""
    shape = np.where(np.arange(30) % 3 == 0, -0.3, 0.0)
    found = settle_level(shape - shape.mean(), level, 0.05**2)
    assert sorted(np.unique(found.round(9))) == sorted({0.0, changed})
