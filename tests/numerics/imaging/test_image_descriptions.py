"""Descriptions of images against slow literal rewrites, SciPy and closed forms."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

from klarsicht.numerics.imaging import image_descriptions as described

RNG = np.random.default_rng(0)
SCENES = np.clip(gaussian_filter(RNG.normal(128, 150, (6, 32, 32, 3)), (0, 1, 1, 0)), 0, 255).round().astype(np.float32)
FUNCTIONS = (
    described.spectrum,
    described.autocorrelations,
    described.channel_correlations,
    described.colours,
    described.borders,
    described.binary_patterns,
)


@pytest.mark.parametrize("describe", FUNCTIONS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (40, 33, 3), (224, 150, 3)])
def test_descriptions_are_finite_and_of_one_image_each(describe, shape):
    x = np.clip(RNG.normal(120, 60, (3, *shape)), 0, 255).round().astype(np.float32)
    x[0] = 0  # no contrast at all
    found = describe(x)
    assert np.isfinite(found).all() and len(found) == 3
    np.testing.assert_allclose(describe(x[1:2])[0], found[1], atol=1e-5)


def test_the_amplitude_of_a_wave_is_at_its_frequency():
    y, x = np.mgrid[:32, :32]
    wave = 120 + 40 * np.cos(2 * np.pi * (5 * y + 3 * x) / 32)
    found = described.spectrum(np.repeat(wave[None, :, :, None], 3, -1)).reshape(32, 17)
    assert np.unravel_index(found.argmax(), found.shape) == (5, 3)


def test_autocorrelations_are_those_of_softened_differences():
    found = described.autocorrelations(SCENES)
    lags = [(i, j) for i in range(6) for j in range(-5, 6) if (i, j) > (0, 0)]
    step = np.diff(SCENES[2].mean(-1).astype(float), axis=0)
    soft = step / (abs(step) + described.SOFT)
    whole = correlate2d(soft, soft, "full") / soft.size  # lag 0 in the middle
    middle = np.array(soft.shape) - 1
    energy = whole[tuple(middle)]
    expected = [whole[middle[0] + i, middle[1] + j] / (energy + 0.02) for i, j in lags]
    np.testing.assert_allclose(found[2, : len(lags)], expected, atol=1e-5)
    assert found[2, len(lags)] == pytest.approx(np.log(energy + 0.02), abs=1e-5)


def test_channels_of_a_grey_image_are_correlated_by_one():
    grey = np.repeat(SCENES[..., :1], 3, -1)
    found = described.channel_correlations(grey)
    energy = np.exp(found[:, [0, 6]]) - 0.02
    np.testing.assert_allclose(found[:, [3, 9]], energy / (energy + 0.02), atol=1e-5)


def test_quantiles_of_colours_are_numpys():
    found = described.colours(SCENES)[3]
    flat = SCENES[3].reshape(-1, 3)
    expected = [np.quantile(flat[:, c], q) for q in described.LEVELS for c in range(3)]
    np.testing.assert_allclose(found[:15], expected, rtol=1e-5)
    np.testing.assert_allclose(found[15:20], np.quantile(flat[:, 0] - flat[:, 1], described.DIFFERENCES), atol=1e-4)
    correlation = np.corrcoef(flat[:, 0].astype(float), flat[:, 1])[0, 1]
    assert np.tanh(found[20]) == pytest.approx(correlation, abs=2e-3)


def test_a_stripe_is_uniform_and_ends_with_a_step():
    striped = SCENES.copy()
    striped[:, :, :3] = 200
    found = described.borders(striped).reshape(len(SCENES), 4, described.DEPTH, 3)
    np.testing.assert_allclose(found[:, 2, :3, 0], np.log(2))  # left side: no deviation along its lines
    np.testing.assert_allclose(found[:, 2, :2, 1:], np.log(4))  # no step inside the stripe
    step = np.abs(np.median(SCENES[:, :, 3] - 200, 1)).mean(-1)
    np.testing.assert_allclose(found[:, 2, 2, 1], np.log(step + 4), rtol=1e-5)
    plain = described.borders(SCENES).reshape(found.shape)
    np.testing.assert_allclose(found[:, 3], plain[:, 3])  # the right side has not changed


def test_binary_patterns_are_counted_pixel_by_pixel():
    image = SCENES[4, :9, :11]
    found = np.exp(described.binary_patterns(image[None])[0]) - 0.002
    clockwise = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for margin, shares in zip(described.MARGINS, found.reshape(-1, 256), strict=True):
        counts = np.zeros(256)
        grey = image.mean(-1)
        for y in range(1, 8):
            for x in range(1, 10):
                brighter = (grey[y + a, x + b] > grey[y, x] + margin for a, b in clockwise)
                counts[sum(2**bit for bit, one in enumerate(brighter) if one)] += 1
        np.testing.assert_allclose(shares, counts / 63, atol=1e-6)


def test_windows_do_not_overlap_and_cover_small_images():
    big = np.arange(2 * 224 * 150, dtype=np.float32).reshape(2, 224, 150)
    windows = described._windows(big)
    assert windows.shape == (2, 16, 32, 32)
    assert len(np.unique(windows[0])) == 16 * 32 * 32
    np.testing.assert_array_equal(described._windows(big[:, :28, :28])[:, 0], big[:, :28, :28])
