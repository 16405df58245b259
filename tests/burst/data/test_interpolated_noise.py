"""Noise of interpolated colours, beside noise that is drawn and interpolated, and beside the filters written out."""

import numpy as np
import pytest

from klarsicht.burst.data.cokriging import MOSAICS, cokriging_weights, noise_covariance
from klarsicht.burst.data.interpolated_noise import NOISE_LAGS, InterpolatedNoise

GAINS = (2.0, 1.0, 1.5)
TOLD = (1.0, 4.0, 0.25)


@pytest.fixture(scope="module", params=MOSAICS.values(), ids=MOSAICS)
def drawn(request):
    """The noise (3, 480, 480) of samples that are told to have the variances TOLD, interpolated; and its model."""
    model = InterpolatedNoise(request.param, GAINS)
    white = np.random.default_rng(5).standard_normal((3, 480, 480)).astype(np.float32)
    return model, model(white * np.sqrt(np.float32(TOLD))[:, None, None])


def test_variances_and_covariances_are_those_of_noise_that_is_drawn(drawn):
    model, noise = drawn
    covariance = np.einsum("ckij,k->cij", model.covariance, TOLD)
    for c, y, x in ((0, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1, 0), (0, 0, 2), (2, -1, 1), (0, -1, 3)):
        here, there = noise[c, 8:-8, 8:-8], noise[c, 8 + y : 472 + y, 8 + x : 472 + x]
        expected = covariance[c, NOISE_LAGS + y, NOISE_LAGS + x]
        assert (here * there).mean() == pytest.approx(expected, abs=0.03 * covariance[c, NOISE_LAGS, NOISE_LAGS])


def test_the_power_spectrum_is_that_of_noise_that_is_drawn(drawn):
    """Means over rings of frequencies of the periodogram."""
    model, noise = drawn
    power = model.power_spectrum(TOLD, (480, 480))
    seen = np.abs(np.fft.fft2(noise)) ** 2 / noise[0].size
    f = np.hypot(np.fft.fftfreq(480)[:, None], np.fft.fftfreq(480))
    for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5)):
        ring = (f > low) & (f <= high)
        np.testing.assert_allclose(power[:, ring].mean(1), seen[:, ring].mean(1), rtol=0.1)
    assert power.mean() == pytest.approx(noise.var((1, 2)).mean(), rel=0.03)
    assert model.power_spectrum(TOLD, (9, 7)).mean() == pytest.approx(power.mean(), rel=1e-6)


def test_covariances_are_those_of_the_filters_written_out():
    """The red of a pixel of RGGB with that of the pixel to its right, sample by sample, over the four places."""
    weights = cokriging_weights("RGGB").reshape(2, 2, 7, 7, 3)
    total = 0.0
    for y in range(2):
        for x in range(2):
            for i in range(7):
                for j in range(1, 7):
                    total += weights[y, x, i, j, 0] * weights[y, (x + 1) % 2, i, j - 1, 0]
    assert noise_covariance("RGGB")[0].sum(0)[NOISE_LAGS, NOISE_LAGS + 1] == pytest.approx(total / 4)
