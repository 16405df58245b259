"""Hot pixels: those that were planted are found, stars, lines and one frame's are not, and what replaces them."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.burst.denoising import hot_pixels
from klarsicht.burst.denoising.hot_pixels import CorrectedFrames
from klarsicht.burst.denoising.outputs import report
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import loading, reading
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 4e-4)
SHIFTS = ((0, 0), (6, -8), (-4, 2), (10, 4), (2, 6), (0, 0))
STILL = ((0, 0),) * 6
REACH, SIZE = 16, (160, 224)


@pytest.fixture(scope="module")
def scene():
    """A mosaic of smooth texture, wider than a frame."""
    texture = np.random.default_rng(0).standard_normal((SIZE[0] + 2 * REACH, SIZE[1] + 2 * REACH))
    smooth = gaussian_filter(texture, 6)
    return (0.3 + 0.05 * smooth / smooth.std()).astype(np.float32)


def seen(scene, shifts):
    """Frames (N, H, W) of a camera that moves."""
    return np.stack([scene[REACH + y : REACH + y + SIZE[0], REACH + x : REACH + x + SIZE[1]] for y, x in shifts])


def wound(mosaics, folder, dng, seed=1, hot=0.0):
    """Noisy raw frames, read."""
    rng = np.random.default_rng(seed)
    for i, light in enumerate(mosaics):
        noisy = LEVEL.sample(light, rng) + hot
        counts = np.clip(np.rint(noisy * 15783 + 600), 0, 16383)
        dng(folder / f"{i}.dng", counts, profile=(LEVEL.shot, LEVEL.read**2))
    return loading.load_frames(sorted(folder.glob("*.dng")), folder, "1")


def planted(seed):
    """Heights (H, W) of twenty hot pixels and five dead ones, far from one another."""
    rng, heights = np.random.default_rng(seed), np.zeros(SIZE, np.float32)
    cells = rng.choice([(y, x) for y in range(8, 150, 16) for x in range(8, 210, 16)], 25, replace=False)
    for k, (y, x) in enumerate(cells):
        heights[y + rng.integers(0, 4), x + rng.integers(0, 4)] = -0.2 if k < 5 else rng.uniform(0.1, 0.6)
    return heights


def places_of(heights):
    return {tuple(place) for place in np.argwhere(to_planes(heights[None])[0] != 0).tolist()}


@pytest.mark.parametrize("seed", range(3))
def test_planted_pixels_are_found_and_no_others(scene, tmp_path, dng, seed):
    heights = planted(seed)
    burst = wound(seen(scene, SHIFTS), tmp_path, dng, seed, heights)
    got = hot_pixels.find_hot_pixels(burst, [LEVEL] * 4)
    assert {tuple(place) for place in got.tolist()} == places_of(heights)


def test_a_hot_pixel_of_a_developed_file_shows_in_all_its_colours(scene, tmp_path):
    """None was isolated among its own colours. A star, which moves with the scene, is not hot."""
    heights, sky = planted(0), scene.copy()
    sky[20::40, 24::48] += np.float32(0.3)
    rng = np.random.default_rng(4)
    for i, light in enumerate(seen(sky, SHIFTS)):
        noisy = LEVEL.sample(np.stack([light] * 3, -1), rng) + heights[..., None]
        tifffile.imwrite(tmp_path / f"{i}.tif", np.clip(noisy, 0, None).astype(np.float32), photometric="rgb")
    burst = loading.load_frames(sorted(tmp_path.glob("*.tif")), tmp_path, "1", ReadSettings(linear=True))
    got = {tuple(place) for place in hot_pixels.find_hot_pixels(burst, [LEVEL] * 3).tolist()}
    assert got == {(c, y, x) for y, x in np.argwhere(heights).tolist() for c in range(3)}


def test_a_frame_that_cannot_serve_does_not_count(scene, tmp_path, dng):
    """It used to be taken for another one, or to end the search with an IndexError."""
    heights = planted(0)
    burst = wound(seen(scene, SHIFTS), tmp_path, dng, 0, heights)
    frames = [replace(frame, rejection="too dark") if k == 1 else frame for k, frame in enumerate(burst.frames)]
    got = hot_pixels.find_hot_pixels(replace(burst, frames=tuple(frames)), [LEVEL] * 4)
    assert {tuple(place) for place in got.tolist()} == places_of(heights)


def test_in_one_frame_nothing_is_called_hot(scene, tmp_path, dng):
    wound(seen(scene, STILL), tmp_path, dng, hot=planted(0))
    alone = loading.load_frames([tmp_path / "0.dng"], tmp_path)
    assert not len(hot_pixels.find_hot_pixels(alone, [LEVEL] * 4))


def test_stars_and_lines_are_not_hot(scene, tmp_path, dng):
    """Points of one pixel, everywhere where the camera moves to, and a line along which it moves."""
    sky = scene.copy()
    sky[::12, ::16] += np.float32(0.5)
    sky[101, :] += np.float32(0.4)
    sky[:, 77] += np.float32(0.4)
    burst = wound(seen(sky, ((0, 0), (0, 16), (12, 0), (12, 16), (0, 4))), tmp_path, dng)
    assert not len(hot_pixels.find_hot_pixels(burst, [LEVEL] * 4))


def test_a_hot_pixel_becomes_the_median_of_its_healthy_neighbours(tmp_path):
    light = np.random.default_rng(3).random((2, 3, 20, 30), np.float32)
    spool = FrameStore(tmp_path / "s", light.shape)
    spool.allocate()
    for i in range(2):
        spool.write_frame(i, light[i])
    places = [(2, 9, 9), (0, 5, 6), (0, 5, 7), (1, 0, 0), (0, 19, 29)]
    mended = CorrectedFrames.of(spool, np.array(places))
    wanted = light.copy()
    for i in range(2):
        for c, y, x in places:
            around = [
                light[i, c, min(max(v, 0), 19), min(max(u, 0), 29)]
                for v in range(y - 1, y + 2)
                for u in range(x - 1, x + 2)
                if (c, min(max(v, 0), 19), min(max(u, 0), 29)) not in places
            ]
            wanted[i, c, y, x] = np.median(around)
    for i in range(2):
        np.testing.assert_array_equal(mended.read_window(i, Window(0, 20, 0, 30)), wanted[i])
        np.testing.assert_array_equal(mended.read_window(i, Window(4, 12, 7, 21)), wanted[i, :, 4:12, 7:21])
        beyond = np.pad(wanted[i], ((0, 0), (3, 0), (0, 4)), "edge")
        np.testing.assert_array_equal(mended.read_window(i, Window(-3, 20, 0, 34)), beyond)
        np.testing.assert_array_equal(np.concatenate([s for _, s in mended.read_strips(i)], 1), wanted[i])


@pytest.mark.slow
def test_the_burst_is_trusted_around_them_and_told(scene, tmp_path, dng, monkeypatch):
    monkeypatch.setattr(
        "klarsicht.burst.network.pretrained.find_weights", lambda colour: None
    )  # the mean: its trust is known
    (tmp_path / "burst").mkdir()
    heights, truth = planted(4), to_planes(seen(scene, SHIFTS)[:1])[0]
    wound(seen(scene, SHIFTS), tmp_path / "burst", dng, hot=heights)
    (tmp_path / "burst" / loading.FRAMES).unlink()
    with denoise_frames(
        reading.list_frames([tmp_path / "burst"]), tmp_path / "o.dng", DenoiseSettings(reference="1")
    ) as found:
        picture = found.spool.read_window(0, Window(0, 80, 0, 112))
    there = to_planes(heights[None])[0] != 0
    assert f"hot pixels of the sensor: {there.sum()} replaced by the median of neighbours" in found.lines
    assert report(found)["hot pixels"] == there.sum()
    assert found.shares["burst"] > 0.98
    error = (picture[:4] - truth)[there]
    assert np.square(error).mean() < LEVEL.variance(truth).mean()
