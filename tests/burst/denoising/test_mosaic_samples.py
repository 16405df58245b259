"""Hot pixels behind X-Trans: neighbours by a literal search, planted pixels found as behind Bayer, stars and lines
left, and colours interpolated from the mosaic with replaced samples."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.burst.data import frame_store
from klarsicht.burst.data.cokriging import interpolate_mosaic, white_variance
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import hot_pixels
from klarsicht.burst.denoising.mosaic_samples import (
    SampleFrames,
    interpolate_replaced,
    nearest_samples,
)
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import loading
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

CELL = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"
LETTERS = np.array(list(CELL)).reshape(6, 6)
GAINS = np.array([2.0, 1.0, 1.5], np.float32)
LEVEL = NoiseLevel(0.01, 4e-4)
TOLD = [LEVEL.scale_variance(white_variance(CELL))] * 3
SHIFTS = ((0, 0), (12, -16), (-8, 4), (20, 8), (5, 13), (0, 0))
REACH, SIZE = 24, (161, 220)


@pytest.fixture(scope="module")
def scene():
    """Smooth light, wider than a frame."""
    texture = np.random.default_rng(0).standard_normal((SIZE[0] + 2 * REACH, SIZE[1] + 2 * REACH))
    smooth = gaussian_filter(texture, 12)
    return (0.3 + 0.05 * smooth / smooth.std()).astype(np.float32)


def colours():
    return np.array(["RGB".index(c) for c in CELL]).reshape(6, 6)[
        np.arange(SIZE[0])[:, None] % 6, np.arange(SIZE[1]) % 6
    ]


def loaded(scene, shifts, folder, dng, seed=1, hot=0.0):
    """Noisy X-Trans frames of a camera that moves, whose red is half and whose blue two thirds of green, read."""
    folder.mkdir(exist_ok=True)
    rng, H, W = np.random.default_rng(seed), *SIZE
    for i, (y, x) in enumerate(shifts):
        light = scene[REACH + y : REACH + y + H, REACH + x : REACH + x + W] / GAINS[colours()]
        noisy = LEVEL.sample(light, rng) + hot
        counts = np.clip(np.rint(noisy * 15783 + 600), 0, 16383)
        dng(folder / f"{i}.dng", counts, CELL, profile=(LEVEL.shot, LEVEL.read**2))
    return loading.load_frames(sorted(folder.glob("*.dng")), folder, "1")


def planted(seed):
    """Heights (H, W) of twenty hot pixels and five dead ones, far from one another; four lie at the border."""
    rng, heights = np.random.default_rng(seed), np.zeros(SIZE, np.float32)
    cells = rng.choice([(y, x) for y in range(16, 140, 16) for x in range(16, 200, 16)], 21, replace=False)
    for k, (y, x) in enumerate(cells):
        heights[y + rng.integers(0, 4), x + rng.integers(0, 4)] = -0.12 if k < 5 else rng.uniform(0.1, 0.6)
    heights[0, 60] = heights[160, 90] = heights[77, 219] = heights[3, 150] = 0.3
    return heights


def found_places(burst):
    return {tuple(place) for place in hot_pixels.find_hot_pixels(burst, TOLD).tolist()}


def planted_places(heights):
    return {(int(colours()[y, x]), y, x) for y, x in np.argwhere(heights != 0).tolist()}


@pytest.mark.parametrize("cell", [CELL, "".join(np.roll(LETTERS, (2, 5), (0, 1)).ravel()), "RGGB"])
def test_nearest_samples_are_those_of_a_literal_search(cell):
    """By the distance, which leaves open the order of equals."""
    side = int(len(cell) ** 0.5)
    offsets = nearest_samples(cell, 9)
    for y in range(side):
        for x in range(side):
            lengths = sorted(
                v * v + u * u
                for v in range(-9, 10)
                for u in range(-9, 10)
                if cell[(y + v) % side * side + (x + u) % side] == cell[y * side + x]
            )
            got = [tuple(one) for one in offsets[y, x].tolist()]
            assert [v * v + u * u for v, u in got] == lengths[:9] and len(set(got)) == 9 and got[0] == (0, 0)
            assert {cell[(y + v) % side * side + (x + u) % side] for v, u in got} == {cell[y * side + x]}


def test_neighbourhoods_are_read_by_sample_and_around_borders_from_whole_cells(scene, tmp_path, dng):
    burst = loaded(scene, SHIFTS[:1], tmp_path, dng)
    light = burst.spool.read_window(0, Window(0, SIZE[0], 0, SIZE[1]))
    places = np.array([(1, 0, 0), (0, 0, 2), (2, 160, 219), (1, 80, 100), (0, 159, 0)])
    places[:, 0] = colours()[places[:, 1], places[:, 2]]
    got = SampleFrames.of(burst).read_neighbourhoods(0, places)
    for (c, y, x), values in zip(places.tolist(), got, strict=True):
        wanted = []
        for v, u in nearest_samples(CELL, 9)[y % 6, x % 6]:
            row, column = y + v, x + u
            while row < 0:
                row += 6
            while row >= SIZE[0]:
                row -= 6
            while column < 0:
                column += 6
            while column >= SIZE[1]:
                column -= 6
            assert LETTERS[row % 6, column % 6] == "RGB"[c]
            wanted.append(light[c, row, column])
        assert values[1, 1] == light[c, y, x] and sorted(values.ravel()) == sorted(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_planted_pixels_are_found_and_no_others(scene, tmp_path, dng, monkeypatch, seed):
    """As behind Bayer; in strips of 30 rows."""
    monkeypatch.setattr(frame_store, "STRIP", 3 * SIZE[1] * 30)
    heights = planted(seed)
    assert found_places(loaded(scene, SHIFTS, tmp_path, dng, seed, heights)) == planted_places(heights)


def test_in_one_frame_nothing_is_called_hot(scene, tmp_path, dng):
    loaded(scene, ((0, 0),), tmp_path, dng, hot=planted(0))
    assert not found_places(loading.load_frames([tmp_path / "0.dng"], tmp_path))


@pytest.mark.parametrize("width", [0.0, 0.5, 0.8])
def test_stars_and_lines_are_not_hot(scene, tmp_path, dng, width):
    """Stars everywhere where the camera moves to, of one pixel or blurred by a lens; lines along which it moves."""
    sky = np.zeros_like(scene)
    sky[::12, ::16] = 0.5
    sky[101, :] += 0.4
    sky[:, 77] += 0.4
    sky = gaussian_filter(sky, width) if width else sky
    burst = loaded(scene + sky, ((0, 0), (0, 16), (12, 0), (12, 16), (0, 8)), tmp_path, dng)
    assert not found_places(burst)


def test_colours_are_those_of_the_mosaic_with_replaced_samples(scene, tmp_path, dng, monkeypatch):
    """Also where hot samples were cut off at white, which made other pixels white; each frame by its own gain."""
    monkeypatch.setattr(frame_store, "STRIP", 3 * SIZE[1] * 30)
    heights = planted(1) * 3
    burst = loaded(scene, SHIFTS[:2], tmp_path, dng, hot=heights)
    burst.spool.write_frame(1, 0.5 * burst.spool.read_window(1, Window(0, *SIZE[:1], 0, SIZE[1])))
    burst = replace(burst, frames=(burst.frames[0], replace(burst.frames[1], gain=0.5)))
    places = np.array(sorted(planted_places(heights)))
    values = np.random.default_rng(2).uniform(0.1, 0.3, (2, len(places))).astype(np.float32)
    spool = interpolate_replaced(burst, places, values)
    everywhere = Window(0, SIZE[0], 0, SIZE[1])
    for i, gain in enumerate((1.0, 0.5)):
        mosaic = np.take_along_axis(burst.spool.read_window(i, everywhere), colours()[None], 0)[0]
        mosaic[places[:, 1], places[:, 2]] = values[i]
        wanted = interpolate_mosaic(mosaic, CELL, burst.header.rendering.gains, gain)
        np.testing.assert_allclose(spool.read_window(i, everywhere), wanted, atol=1e-6)


def test_the_replaced_sample_is_the_median_of_healthy_neighbours(scene, tmp_path, dng):
    burst = loaded(scene, SHIFTS[:2], tmp_path, dng)
    places = np.array([(0, 0, 0), (0, 50, 60), (0, 50, 61), (0, 51, 60), (0, 160, 219)])
    places[:, 0] = colours()[places[:, 1], places[:, 2]]
    got = hot_pixels.correct_frames(burst, places)
    listed = {(y, x) for _, y, x in places.tolist()}
    everywhere = Window(0, SIZE[0], 0, SIZE[1])
    for i in range(2):
        before, after = burst.spool.read_window(i, everywhere), got.read_window(i, everywhere)
        for c, y, x in places.tolist():
            around = []
            for v, u in nearest_samples(CELL, 9)[y % 6, x % 6].tolist():
                row = y + v + 6 * (y + v < 0) - 6 * (y + v >= SIZE[0])
                column = x + u + 6 * (x + u < 0) - 6 * (x + u >= SIZE[1])
                if (row, column) not in listed:
                    around.append(before[c, row, column])
            assert after[c, y, x] == pytest.approx(np.median(around), abs=1e-6)


def test_without_hot_pixels_the_burst_is_the_same_file(scene, tmp_path, dng):
    burst = loaded(scene, SHIFTS, tmp_path, dng)
    before = burst.spool.path.read_bytes()
    got, count = hot_pixels.replace_hot_pixels(burst, TOLD, tmp_path)
    assert got is burst and count == 0 and burst.spool.path.read_bytes() == before


@pytest.mark.slow
def test_the_command_replaces_them(scene, tmp_path, dng, monkeypatch):
    """Where they were, the result is as near to the light as elsewhere."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    heights = planted(4)
    loaded(scene, SHIFTS[:4], tmp_path / "burst", dng, hot=heights)
    (tmp_path / "burst" / loading.FRAMES).unlink()
    files = sorted((tmp_path / "burst").glob("*.dng"))
    with denoise_frames(files, tmp_path / "o.dng", DenoiseSettings(reference="1", threads=1)) as found:
        picture = found.spool.read_window(0, Window(0, SIZE[0], 0, SIZE[1]))[:3]
    assert found.hot == (heights != 0).sum()
    truth = scene[REACH : REACH + SIZE[0], REACH : REACH + SIZE[1]] / GAINS[:, None, None]
    there = gaussian_filter((heights != 0).astype(float), 1) > 0.01
    error = np.square(picture - truth).mean(0)
    assert error[there].mean() < 1.5 * error[~there].mean()
