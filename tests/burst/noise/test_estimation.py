"""Blind estimates against the noise that was put in, on textured photographs, still and shaken."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.noise import estimation
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry, grey_light, scenes
from klarsicht.burst.synthesis.synthesis import Recipe, draw_burst
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel


@pytest.fixture(scope="module")
def library():
    return scenes([data.astronaut()], grey_light)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("motion", ["still", "shaken"])
def test_the_variance_curve_is_within_a_tenth(library, gain, motion):
    level = GAINS[gain]
    recipe = Recipe(
        motion=MOTIONS[motion], noise=lambda rng: level, geometry=Geometry(2, 240, 240, reach=6), exposures=(0, 0)
    )
    made = draw_burst(library, recipe, np.random.default_rng(gain))
    found = estimation.estimate([made.burst.frames])
    light = np.linspace(*np.quantile(made.truth, [0.05, 0.95]), 30)
    np.testing.assert_allclose(found.noise.variance(light), level.variance(light), rtol=0.1)


def test_one_flat_frame_suffices():
    ramp = np.broadcast_to(np.linspace(0, 1, 256, dtype=np.float32), (1, 1, 256, 256))
    level = NoiseLevel(0.01, 1e-3)
    found = estimation.estimate([level.sample(ramp, np.random.default_rng(0))])
    light = np.linspace(0.05, 0.95, 20)
    np.testing.assert_allclose(found.noise.variance(light), level.variance(light), rtol=0.1)
    assert found.read_known


def test_bright_frames_do_not_tell_the_read_noise():
    level = NoiseLevel(0.001, 1e-2)
    bright = level.sample(np.full((4, 1, 128, 128), 0.5, np.float32), np.random.default_rng(0))
    assert not estimation.estimate([bright]).read_known


def test_clipped_values_do_not_count():
    """The sun: two fifths of the frame is at white, without noise."""
    ramp = np.broadcast_to(np.linspace(0, 1.6, 256, dtype=np.float32), (4, 1, 256, 256))
    level = NoiseLevel(0.02, 2e-3)
    clipped = np.minimum(level.sample(ramp, np.random.default_rng(0)), 1)
    light = np.linspace(0.05, 0.95, 20)
    np.testing.assert_allclose(estimation.estimate([clipped]).noise.variance(light), level.variance(light), rtol=0.1)


@pytest.mark.parametrize("frames", [1, 4])
def test_what_is_cut_off_at_black_still_tells_the_noise(frames):
    """A ramp of which a third lies within two deviations of black."""
    ramp = np.broadcast_to(np.linspace(0, 0.6, 256, dtype=np.float32), (frames, 1, 256, 256))
    level = NoiseLevel(0.06, 0.01)
    cut = np.maximum(level.sample(ramp, np.random.default_rng(0)), 0)
    light, found = np.linspace(0, 0.55, 20), estimation.estimate([cut])
    np.testing.assert_allclose(found.noise.variance(light), level.variance(light), rtol=0.12)
    assert found.read_known


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("motion", ["still", "shaken"])
def test_a_dark_burst_cut_off_at_black_is_within_a_fifth(library, gain, motion):
    level = GAINS[gain]
    recipe = Recipe(
        motion=MOTIONS[motion], noise=lambda rng: level, geometry=Geometry(2, 240, 240, reach=6), exposures=(-0.7, -0.7)
    )
    made = draw_burst(library, recipe, np.random.default_rng(gain))
    frames = np.rint(np.maximum(made.burst.frames, 0) * 65535) / np.float32(65535)
    assert np.mean(frames == 0) > 0.05
    light = np.linspace(*np.quantile(made.truth, [0.05, 0.95]), 30)
    np.testing.assert_allclose(estimation.estimate([frames]).noise.variance(light), level.variance(light), rtol=0.2)


def test_pixels_of_no_light_at_all_say_nothing_of_the_noise():
    """A black border, as of a file that was cropped by painting over it."""
    ramp = np.broadcast_to(np.linspace(0, 0.6, 256, dtype=np.float32), (4, 1, 256, 256))
    level = NoiseLevel(0.06, 0.01)
    cut = np.maximum(level.sample(ramp, np.random.default_rng(0)), 0)
    cut[..., :100, :] = 0
    light = np.linspace(0.05, 0.55, 20)
    np.testing.assert_allclose(estimation.estimate([cut]).noise.variance(light), level.variance(light), rtol=0.2)


def test_pairs_are_those_that_lie_closest():
    rest = np.array([[0, 0], [0.4, 0.4], [0.01, 0], [0.4, 0.41], [-0.4, 0], [0.1, 0.2]])
    assert estimation.closest_pairs(rest) in ([(1, 3), (0, 2)], [(0, 2), (1, 3)])


def test_too_little_is_said():
    with pytest.raises(InputError, match="--noise"):
        estimation.estimate([np.ones((1, 1, 16, 16), np.float32)])
