"""Synthetic bursts against a slow literal rewrite of the recipe, moments of the noise, and sameness of bytes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.data.cokriging import MOSAICS, interpolate_mosaic, take_samples, white_variance
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import KPN, Geometry, rgb_light, scenes
from klarsicht.burst.synthesis.synthesis import (
    CAMERA_COLOURS,
    KINDS,
    NOISES,
    Recipe,
    draw_batch,
    draw_burst,
    measure_texture,
    random_crop,
)
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SMALL = Geometry(scale=2, height=32, width=32, reach=4)


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def grey(astronaut):
    return scenes([astronaut, astronaut[::-1]], KINDS["grey"].light)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_frames_are_box_means_of_shifted_windows(astronaut):
    """From the photograph, by hand: gamma, grey, window, blocks; shifts read off the displacements."""
    light = ((astronaut / 255) ** 2.2).mean(-1)
    library = scenes([astronaut], KINDS["grey"].light)
    geometry = Geometry(scale=4, height=96, width=96, reach=16)  # 512 pixels: the whole photograph
    made = draw_burst(library, Recipe(geometry=geometry), rng(3))
    for frame, displacement in zip(made.clean.frames, made.clean.displacements, strict=True):
        y, x = (64 - 4 * displacement).astype(int)
        window = light[y : y + 384, x : x + 384]
        np.testing.assert_allclose(frame[0], window.reshape(96, 4, 96, 4).mean((1, 3)), rtol=1e-5)
    np.testing.assert_allclose(made.truth, made.clean.frames[0] * made.exposure, rtol=1e-6)


@pytest.mark.parametrize(("noise", "read", "shot"), [("kpn", (-3, -1.5), (-2, -1)), ("wide", (-3, -1), (-2, -0.7))])
def test_noise_levels_fill_their_ranges(noise, read, shot):
    levels = [NOISES[noise](rng(seed)) for seed in range(500)]
    for values, (low, high) in (([x.read for x in levels], read), ([x.shot_deviation for x in levels], shot)):
        exponents = np.log10(values)
        assert (
            low <= exponents.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < exponents.max() <= high
        )
        assert exponents.mean() == pytest.approx((low + high) / 2, abs=5 * (high - low) / math.sqrt(12 * 500))


def test_exposures_fill_their_range(grey):
    w = np.log10(draw_batch(grey, Recipe(geometry=SMALL, frames=1, min_frames=1), rng(), 300).exposure)
    assert -1 <= w.min() < -0.95 and -0.05 < w.max() <= 0 and w.mean() == pytest.approx(-0.5, abs=0.09)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_a_burst_has_its_variance(astronaut, kind):
    """Residuals over their predicted deviation are standard normal, in every kind and unclipped."""
    made = draw_burst(scenes([astronaut], KINDS[kind].light), Recipe(kind=KINDS[kind], geometry=SMALL), rng(1))
    clean = made.clean.frames * made.exposure
    level = made.burst.noise
    z = (made.burst.frames - clean) / np.sqrt(level.read**2 + level.shot * clean)
    assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(z.size))
    assert z.var() == pytest.approx(1, abs=5 * math.sqrt(2 / z.size))
    channels, side = {"grey": (1, 32), "rgb": (3, 32), "mosaic": (4, 16)}[kind]
    assert made.burst.frames.shape == (8, channels, side, side) and made.burst.frames.dtype == np.float32


@pytest.mark.parametrize("motion", MOTIONS)
def test_same_seed_same_bytes(grey, motion):
    recipe = Recipe(motion=MOTIONS[motion], geometry=SMALL, min_frames=1, orientations=8, noise=NOISES["wide"])
    one, two, other = (draw_batch(grey, recipe, rng(seed), 3) for seed in (5, 5, 6))
    for mine, again in zip(one, two, strict=True):
        assert mine.tobytes() == again.tobytes()
    assert one.frames.tobytes() != other.frames.tobytes()


def test_the_path_of_moving_things_is_given(grey):
    """Without shifts between them, clean frames differ from the reference on the path only."""
    recipe = Recipe(motion=MOTIONS["occluded"], geometry=Geometry(scale=2, height=64, width=64, reach=0))
    paths = 0
    for seed in range(8):
        made = draw_burst(grey, recipe, rng(seed))
        differ = (made.clean.frames != made.clean.frames[0]).any((0, 1))
        assert not (differ & ~made.clean.path).any()
        assert differ.sum() >= 0.5 * made.clean.path.sum()
        paths += made.clean.path.any()
    assert paths >= 7


def test_missing_frames_are_zero_and_marked(grey):
    batch = draw_batch(grey, Recipe(geometry=SMALL, min_frames=1), rng(), 40)
    assert batch.valid[:, 0].all() and set(batch.valid.sum(1)) == set(range(1, 9))
    assert not batch.frames[~batch.valid].any()
    assert np.abs(batch.frames[batch.valid]).max((1, 2, 3)).min() > 0


def test_turned_crops_of_oblong_frames_fit(grey):
    oblong = Recipe(geometry=Geometry(scale=2, height=16, width=40, reach=2), orientations=8)
    shapes = {random_crop(grey[0], oblong, rng(seed)).shape for seed in range(20)}
    assert shapes == {(1, 40, 88)}


def test_small_photographs_and_impossible_recipes_are_refused(astronaut):
    with pytest.raises(ImageError, match="512 x 512"):
        draw_burst(scenes([astronaut], rgb_light), Recipe(kind=KINDS["rgb"], geometry=KPN), rng())
    with pytest.raises(UsageError, match="min_frames"):
        Recipe(min_frames=9)


def test_textured_crops_come_of_the_textured_scene():
    """Of a smooth scene and a chequered one: with a share of 1, a burst is smooth only if all four of its crops are."""
    chequered = np.kron(np.indices((60, 60)).sum(0) % 2, np.ones((2, 2)))[None].astype(np.float32)
    smooth = np.full_like(chequered, 0.5)
    geometry = Geometry(scale=1, height=32, width=32, reach=4)
    library, recipe = (smooth, chequered), Recipe(geometry=geometry, frames=1, min_frames=1)

    def share(textured):
        drawn = (draw_burst(library, replace(recipe, textured=textured), rng(seed)) for seed in range(400))
        return np.mean([np.ptp(made.clean.frames[0]) > 0.1 for made in drawn])

    assert share(1.0) == pytest.approx(1 - 1 / 16, abs=0.05)
    assert share(0.5) == pytest.approx((1 - 1 / 16 + 1 / 2) / 2, abs=0.1)


def test_texture_is_the_mean_difference_of_roots():
    """Columns of light 0 and 1 in turn, of two pixels of the photograph: sqrt differs by 1 along x, by 0 along y."""
    geometry = Geometry(scale=2, height=8, width=8, reach=1)
    columns = np.zeros((1, *geometry.crop), np.float32)
    columns[..., np.arange(geometry.crop[1]) // 2 % 2 == 0] = 1
    assert measure_texture(columns, geometry) == pytest.approx(1)
    assert measure_texture(np.full_like(columns, 0.3), geometry) == pytest.approx(0, abs=1e-6)


def test_small_scenes_are_used_at_a_smaller_scale(astronaut):
    small = scenes([astronaut[:90, :90]], KINDS["grey"].light)
    geometry = Geometry(scale=4, height=32, width=32, reach=4)  # 160 pixels; 80 at scale 2
    with pytest.raises(ImageError, match="too small"):
        draw_burst(small, Recipe(geometry=geometry), rng())
    made = draw_burst(small, Recipe(geometry=geometry, smallest_scale=2), rng())
    assert made.truth.shape == (1, 32, 32)
    with pytest.raises(ImageError, match="too small"):
        draw_burst(small, Recipe(geometry=geometry, smallest_scale=3), rng())


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_frames_behind_a_mosaic_keep_the_noisy_samples_and_are_otherwise_interpolated(astronaut, cell):
    """With the same generator as frames of which each pixel has all colours: samples come back to rounding, other
    pixels do not, and the noise is told as many times as strong as white noise of that strength at low frequencies."""
    library = scenes([astronaut], CAMERA_COLOURS.light)
    recipe = Recipe(kind=CAMERA_COLOURS, geometry=SMALL, noise=NOISES["camera"], frames=3, min_frames=3)
    whole, sampled = (draw_burst(library, replace(recipe, mosaic=one), rng(6)) for one in (None, cell))
    for a, b in zip(whole.burst.frames, sampled.burst.frames, strict=True):
        np.testing.assert_allclose(take_samples(b, cell), take_samples(a, cell), atol=1e-6)
        assert np.abs(a - b).max() > 0.02
    np.testing.assert_array_equal(whole.truth, sampled.truth)
    assert sampled.burst.noise.shot == pytest.approx(white_variance(cell) * whole.burst.noise.shot)
    assert sampled.burst.noise.read**2 == pytest.approx(white_variance(cell) * whole.burst.noise.read**2)
    assert sampled.burst.colour_filter == cell and whole.burst.colour_filter is None


def test_samples_are_balanced_by_the_gains_of_the_drawn_camera():
    """A grey scene of fine detail has fewer false colours than where the samples are taken to be balanced."""
    detail = np.random.default_rng(1).uniform(0.1, 0.6, (1, 120, 120)).astype(np.float32)
    recipe = Recipe(kind=CAMERA_COLOURS, geometry=SMALL, frames=1, min_frames=1, noise=lambda rng: NoiseLevel(0.0, 0.0))
    made = draw_burst((np.repeat(detail, 3, 0),), replace(recipe, mosaic=MOSAICS["bayer"]), rng(2))
    gains = np.array(made.clean.balance, np.float32)[:, None, None]
    unbalanced = interpolate_mosaic(take_samples(made.truth, "RGGB"), "RGGB")
    assert np.ptp(made.truth * gains, 0).max() < 1e-5 and made.burst.balance == made.clean.balance != (1, 1, 1)
    false_colours = [np.ptp(gains * light[:, 4:-4, 4:-4], 0).mean() for light in (made.burst.frames[0], unbalanced)]
    assert false_colours[0] < 0.85 * false_colours[1]
