"""The noise that is left: a level read back from noise that has it, and one that readers of DNG take."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from klarsicht.burst.data.cokriging import MOSAICS, pixel_variance, white_variance
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.merging.merge_tile import TileMerger
from klarsicht.burst.merging.motion_check import NO_LIMITS
from klarsicht.burst.merging.residual_noise import accumulate_moments, fit_noise_levels
from klarsicht.burst.merging.tiles import Tile
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.003, 2e-4)


def drawn(deviation, seed=0):
    """One plane of light from black to white, and noise of a deviation over it."""
    light = np.linspace(0, 1, 200_000, dtype=np.float32).reshape(1, 400, 500)
    z = np.random.default_rng(seed).standard_normal(light.shape)
    return (z * deviation(light)).astype(np.float32), light


def test_a_level_is_read_back():
    (found,) = fit_noise_levels(
        [accumulate_moments(*drawn(LEVEL.deviation)), accumulate_moments(*drawn(LEVEL.deviation, 1))],
        [NoiseLevel(1, 1)],
    )
    assert found.profile == pytest.approx(LEVEL.profile, rel=0.1)


@pytest.mark.parametrize(
    "deviation", [lambda light: 0.01 + 0 * light, lambda light: 0.01 * (1.2 - light), np.zeros_like]
)
def test_the_shot_coefficient_is_never_nothing(deviation):
    """The DNG SDK takes a profile for one only if it is above 0. Noise that does not grow stays as large as it is."""
    left, light = drawn(deviation)
    (found,) = fit_noise_levels([accumulate_moments(left, light)], [LEVEL])
    assert found.shot > 0
    if left.any() and np.ptp(deviation(light)) == 0:
        assert found.variance(np.float32(0.5)) == pytest.approx(1e-4, rel=0.02)


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_interpolated_noise_is_as_strong_as_told_at_low_frequencies_and_weaker_a_pixel(cell):
    """White noise of deviation 1 is told: green has that at low frequencies, and a pixel what the weights' squares say,
    (Var of a sum of independent samples)."""
    white = np.random.default_rng(2).standard_normal((3, 240, 240)).astype(np.float32)
    found = InterpolatedNoise(cell, (1.0, 1.0, 1.0))(white)
    assert found.var() == pytest.approx(pixel_variance(cell) / white_variance(cell), rel=0.02)
    means = found[1].reshape(10, 24, 10, 24).mean((1, 3))
    assert 24**2 * means.var() == pytest.approx(1, rel=0.3)
    assert np.corrcoef(found[1, :, :-1].ravel(), found[1, :, 1:].ravel())[0, 1] > 0.1


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_noise_of_a_tile_is_that_of_samples_where_the_sensor_measured(cell):
    """The colour of each pixel is read from the cell by its place in the picture; a sample keeps its noise."""
    context = Window(32, 80, 64, 112)
    tile = Tile(3, context, context, context)
    white = TileMerger(Mock(), Mock(), Mock(), [0], [1.0], [NoiseLevel(0.1, 0.0)] * 3, Mock(), NO_LIMITS, 1.0, 96)
    merger = replace(white, interpolated=InterpolatedNoise(cell, (2.0, 1.0, 1.5)))
    light = np.full((3, 48, 48), 0.3, np.float32)
    found, drawn_white = (one.simulate_noise(tile, 0, light) for one in (merger, white))
    side = round(len(cell) ** 0.5)
    for y in range(6, 18):
        for x in range(6, 18):
            c = "RGB".index(cell[(32 + y) % side * side + (64 + x) % side])
            assert found[c, y, x] == pytest.approx(drawn_white[c, y, x] / white_variance(cell) ** 0.5, abs=1e-6)
