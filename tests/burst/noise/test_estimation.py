"""Blind estimates against the noise that was put in, on textured photographs, still and shaken."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.noise import estimation
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry, grey_light, rgb_light, scenes
from klarsicht.burst.synthesis.synthesis import Recipe, draw_burst
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel
from klarsicht.numerics.imaging.tone import inverse_tone_curve, tone_curve


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
    ramp = np.broadcast_to(np.linspace(0, 1.6, 512, dtype=np.float32), (4, 1, 384, 512))
    level = NoiseLevel(0.02, 2e-3)
    clipped = np.minimum(level.sample(ramp, np.random.default_rng(0)), 1)
    light = np.linspace(0.05, 0.95, 20)
    np.testing.assert_allclose(estimation.estimate([clipped]).noise.variance(light), level.variance(light), rtol=0.1)


@pytest.mark.parametrize(("frames", "tolerance"), [(1, 0.12), (3, 0.06)])
def test_blown_highlights_of_a_photograph_tell_read_and_shot_noise(frames, tolerance):
    """Of which the blocks near white once took all noise for leaked texture: read was infinite."""
    level, light = NoiseLevel(0.0851, 0.0331), 1.5 * rgb_light(data.coffee())[:, :320, :480]
    rng = np.random.default_rng(0)
    bright = np.stack([np.clip(level.sample(light, rng), 0, 1) for _ in range(frames)])
    codes = inverse_tone_curve(np.rint(255 * tone_curve(bright)) / 255).astype(np.float32)
    assert np.mean(codes == 1) > 0.06
    found = estimation.estimate([codes]).noise
    assert found.read == pytest.approx(level.read, rel=tolerance)
    assert found.shot == pytest.approx(level.shot, rel=tolerance)


def lamps(frames, level, rng):
    """A ramp, below it a white wall with grey dots of one pixel in each block, which is three quarters of the frame."""
    light = np.full((1, 1, 512, 256), 3, np.float32)
    light[..., ::8, ::8] = 0.6
    light[..., :128, :] = np.linspace(0, 0.9, 256, dtype=np.float32)
    return np.minimum(level.sample(np.broadcast_to(light, (frames, *light.shape[1:])), rng), 1)


@pytest.mark.parametrize("frames", [1, 4])
def test_blocks_that_are_white_in_part_are_no_quiet_ones(frames):
    level, light = NoiseLevel(0.03, 5e-3), np.linspace(0.05, 0.95, 20)
    found = estimation.estimate([lamps(frames, level, np.random.default_rng(3))])
    np.testing.assert_allclose(found.noise.variance(light), level.variance(light), rtol=0.15)


def test_where_nearly_all_is_white_there_is_an_estimate():
    """Of a frame without a single flat block away from white: the highest that the noise may be is not exceeded."""
    level = NoiseLevel(0.03, 5e-3)
    white = lamps(3, level, np.random.default_rng(3))[:, :, 128:]
    found = estimation.estimate([white]).noise
    assert np.isfinite([found.read, found.shot]).all()
    assert found.variance(1.0) < white.var()


def test_frames_that_were_scaled_are_clipped_where_they_are():
    """Every second frame was darker by a fifth, and its white is above 1 since it was evened out."""
    ramp, level = np.linspace(0, 1.6, 512, dtype=np.float32), NoiseLevel(0.02, 2e-3)
    frames = level.sample(np.broadcast_to(ramp, (4, 1, 384, 512)), np.random.default_rng(0))
    frames = np.minimum(frames, np.float32([1, 1.2, 1, 1.2])[:, None, None, None])
    light = np.linspace(0.05, 0.95, 20)
    np.testing.assert_allclose(estimation.estimate([frames]).noise.variance(light), level.variance(light), rtol=0.1)


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
