"""Colours that were not measured: nothing is taken of noise, all of what an estimate lost, and samples are those of
`sure`."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.burst.data.cokriging import MOSAICS, measured_mask
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.merging.motion_check import NO_LIMITS, MotionCheck
from klarsicht.burst.merging.sure import LightEstimate, Risk
from klarsicht.burst.merging.unmeasured_colours import UnmeasuredColours
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE = (96, 132)
WHOLE = Window(0, SIZE[0], 0, SIZE[1])
GAINS = (2.0, 1.0, 1.5)
LEVEL = NoiseLevel(0.02, 0.002)


@pytest.fixture(params=MOSAICS.values(), ids=MOSAICS)
def burst(request):
    """Smooth light x in a camera's colours; its noisy samples, interpolated; and their noise."""
    noise, rng = InterpolatedNoise(request.param, GAINS), np.random.default_rng(1)
    grey = 0.4 + gaussian_filter(rng.standard_normal(SIZE), 3) * 1.5
    x = (grey / np.array(GAINS)[:, None, None]).astype(np.float32)
    return x, noise.interpolate_samples(LEVEL.sample(x, rng)), noise


def fitted(noise, X, E, there=WHOLE, alone=None, limits=NO_LIMITS):
    """Of a network's results, which hold nothing of a sample by itself."""
    risk = Risk(X, [LEVEL] * 3, limits, measured_mask(noise.cell_at(there.y0, there.x0), there.size))
    none = np.zeros(there.size, np.float32)
    estimates = [LightEstimate(E, none), None, None if alone is None else LightEstimate(alone, none, False)]
    return UnmeasuredColours.fit(noise, there, risk, estimates)


def verdict(share, like):
    return MotionCheck(np.full((1, *like.shape[1:]), share, np.float32), np.zeros_like(like), (0,))


def test_of_noise_alone_nothing_is_taken(burst):
    x, X, noise = burst
    model = fitted(noise, X, x)
    assert model.correction.mean() < 0.02
    picture = model.mix(verdict(1.0, x), [x, None, None], X)
    assert np.square(picture - x).mean() < 0.002 * np.square(X - x).mean()


def test_what_was_lost_over_many_pixels_is_taken_whole(burst):
    """An estimate of no light at all, and one that shows something else."""
    x, X, noise = burst
    for wrong in (np.zeros_like(x), x + np.float32(0.2)):
        model = fitted(noise, X, wrong)
        assert model.correction.mean() > 0.9
        elsewhere = ~model.measured
        error = np.square(model.mix(verdict(0.0, x), [wrong, None, None], X) - x)
        assert error[elsewhere].mean() < 1.15 * np.square(X - x)[elsewhere].mean()


def test_samples_have_the_shares_they_had_and_all_is_linear(burst):
    x, X, noise = burst
    E, mask = x + np.float32(0.01), verdict(0.7, x)
    model = fitted(noise, X, E)
    picture = model.mix(mask, [E, None, None], X)
    np.testing.assert_allclose(picture[model.measured], (0.7 * E + 0.3 * X)[model.measured], atol=1e-6)
    np.testing.assert_allclose(model.mix(mask, [3 * E, None, None], 3 * X), 3 * picture, atol=1e-5)


@pytest.mark.parametrize(("excess", "share"), [(0.25, 0), (0.75, 0.5), (4, 1)])
def test_of_another_scene_the_filtered_reference_is_taken(burst, excess, share):
    """By as much as the square of a step's height exceeds the variance of the noise, of uniform light."""
    x, _, noise = burst
    x = np.full_like(x, 0.3)
    X = noise.interpolate_samples(LEVEL.sample(x, np.random.default_rng(2)))
    E = x + np.float32((excess * LEVEL.variance(0.3)) ** 0.5)
    model = fitted(noise, X, E, alone=x)
    assert model.alone.mean() == pytest.approx(share, abs=0.05)
    assert not fitted(noise, X, x, alone=E).alone.any()
    picture, elsewhere = model.mix(verdict(0.5, x), [E, None, x], X), ~model.measured
    if share == 1:
        np.testing.assert_allclose(picture[elsewhere], 0.3, atol=1e-6)


def test_a_window_gives_what_the_whole_gives_there(burst):
    x, X, noise = burst
    E, there = x + np.float32(0.01), Window(32, 96, 64, 132)
    part = (slice(None), slice(32, 96), slice(64, 132))
    whole = fitted(noise, X, E).mix(verdict(0.5, x), [E, None, None], X)[part]
    cut = fitted(noise, X[part], E[part], there).mix(verdict(0.5, x[part]), [E[part], None, None], X[part])
    np.testing.assert_allclose(cut[:, 16:-16, 16:-16], whole[:, 16:-16, 16:-16], atol=1e-5)


def test_where_it_is_clipped_the_reference_stays(burst):
    x, X, noise = burst
    clipped = MotionCheck(np.ones((1, *SIZE), np.float32), np.ones_like(x), (0,))
    np.testing.assert_allclose(fitted(noise, X, x).mix(clipped, [x, None, None], X), X, atol=1e-6)
