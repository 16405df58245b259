"""Hot pixels of bursts that do not move: planted ones are found, images of points, as optics spread them, are not."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from klarsicht.burst.data.bayer import cell_offsets, to_planes
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising import hot_pixels, pipeline
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.denoising.point_images import MOST_SPREAD, EdgeNeighbours, find_edge_neighbours
from klarsicht.burst.files import loading, reading
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.001, 2e-5)
X_TRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"
SIZE, N = (160, 224), 6


@pytest.fixture(scope="module")
def scene():
    """Smooth light."""
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal(SIZE), 12)
    return (0.2 + 0.01 * smooth / smooth.std()).astype(np.float32)


def share_of(middle, deviation, count):
    """The share of a Gaussian point's light that each of so many pixels in a row has."""
    edges = ndtr((np.arange(count + 1) - 0.5 - middle) / deviation)
    return np.diff(edges)


def point_images(spread, cell, colours, seed, drift=0.0):
    """Forty points (N, H, W), everywhere within a pixel, far from each other, seen behind a mosaic of letters; their
    light has the colours given for R, G, B, and the brightest pixel .5. drift: pixels a frame."""
    rng, (H, W) = np.random.default_rng(seed), SIZE
    seen = np.array([colours["RGB".index(letter)] for letter in cell]).reshape(2 * [int(len(cell) ** 0.5)])
    passed = seen[np.arange(H)[:, None] % len(seen), np.arange(W) % len(seen)]
    out = np.zeros((N, H, W), np.float32)
    cells = rng.choice([(y, x) for y in range(12, 140, 16) for x in range(12, 200, 16)], 40, replace=False)
    for y, x in cells + rng.uniform(0, 4, (40, 2)):
        for i in range(N):
            light = np.outer(share_of(y + i * drift, spread, H), share_of(x + i * drift, spread, W)) * passed
            out[i] += light * (0.5 / light.max())
    return out


def read(mosaics, folder, dng, cell="RGGB", seed=1):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for i, light in enumerate(mosaics):
        counts = np.clip(np.rint(LEVEL.sample(light, rng) * 15783 + 600), 0, 16383)
        dng(folder / f"{i}.dng", counts, cell, profile=(LEVEL.shot, LEVEL.read**2))
    return loading.load_frames(sorted(folder.glob("*.dng")), folder, "1")


def planted(seed):
    """Heights (H, W) of twenty hot pixels and five dead ones, far from one another."""
    rng, heights = np.random.default_rng(seed), np.zeros(SIZE, np.float32)
    cells = rng.choice([(y, x) for y in range(12, 140, 16) for x in range(12, 200, 16)], 25, replace=False)
    for k, (y, x) in enumerate(cells):
        heights[y + rng.integers(0, 4), x + rng.integers(0, 4)] = -0.17 if k < 5 else rng.uniform(0.25, 0.6)
    return heights


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_planted_pixels_of_a_burst_that_does_not_move_are_found_and_no_others(scene, tmp_path, dng, pattern):
    heights = planted(len(pattern))
    burst = read([scene + heights] * N, tmp_path, dng, pattern)
    got = hot_pixels.find_hot_pixels(burst, [LEVEL] * 4)
    wanted = np.argwhere(to_planes(heights[None], pattern)[0] != 0)
    assert {tuple(place) for place in got.tolist()} == {tuple(place) for place in wanted.tolist()}


def test_planted_samples_of_an_x_trans_burst_that_does_not_move_are_found_and_no_others(scene, tmp_path, dng):
    heights = planted(3)
    burst = read([scene + heights] * N, tmp_path, dng, X_TRANS)
    got = hot_pixels.find_hot_pixels(burst, [LEVEL.scale_variance(1.8)] * 3)
    assert {(y, x) for _, y, x in got.tolist()} == {tuple(place) for place in np.argwhere(heights != 0).tolist()}


@pytest.mark.parametrize(
    ("spread", "colours", "drift"),
    [
        (0.5, (1, 1, 1), 0),
        (0.4, (1, 1, 1), 0),
        (0.5, (1, 0.15, 0.15), 0),
        (0.5, (0.2, 0.3, 1), 0),
        (0.5, (1, 1, 1), 0.7),
    ],
)
def test_images_of_points_are_no_hot_pixels(scene, tmp_path, dng, spread, colours, drift):
    """White, red and blue points, still and drifting as stars do over a tripod."""
    images = point_images(spread, "RGGB", colours, 0, drift)
    burst = read(scene + images, tmp_path, dng)
    assert not len(hot_pixels.find_hot_pixels(burst, [LEVEL] * 4))


def test_images_of_points_behind_x_trans_are_no_hot_pixels(scene, tmp_path, dng):
    burst = read(scene + point_images(0.5, X_TRANS, (1, 1, 1), 0), tmp_path, dng, X_TRANS)
    assert not len(hot_pixels.find_hot_pixels(burst, [LEVEL.scale_variance(1.8)] * 3))


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_edge_neighbours_are_those_of_the_mosaic(pattern):
    """Oracle: a mosaic of its own row and column numbers, split into planes."""
    rows, columns = (to_planes(grid[None], pattern)[0] for grid in np.mgrid[:12, :16])
    places = np.array([(c, 2, 3) for c in range(4)])
    beside = find_edge_neighbours(places, pattern)
    for (c, y, x), four in zip(places, beside, strict=True):
        at, near = (rows[c, y, x], columns[c, y, x]), [(rows[tuple(k)], columns[tuple(k)]) for k in four]
        assert near == [(at[0] - 1, at[1]), (at[0], at[1] - 1), (at[0], at[1] + 1), (at[0] + 1, at[1])]


def middle_point(folder, spread):
    """The neighbours of a grey point in the middle of a pixel, without noise and in flat light; and its height."""
    mosaic = np.full((40, 40), 0.1) + 0.5 * np.outer(share_of(20, spread, 40), share_of(20, spread, 40))
    planes = to_planes(mosaic.astype(np.float32), "RGGB")
    store = FrameStore(folder / "s", (1, *planes.shape))
    store.allocate()
    store.write_frame(0, planes)
    args = (store, [0], "RGGB", np.array([(0, 10, 10)]), [NoiseLevel(0, 0)] * 4)
    return args, np.array([planes[0, 10, 10] - 0.1], np.float32)


@pytest.mark.parametrize("spread", [0.25, 0.3, 0.35, 0.4, 0.5])
def test_what_can_be_a_point_follows_the_closed_form(tmp_path, spread):
    """A point is excluded, or shown, as its neighbour's share of light, by the normal distribution, is below the
    bound."""
    args, height = middle_point(tmp_path, spread)
    tail = [1 - ndtr(0.5 / spread), 1 - ndtr(1.5 / spread)]
    share = (tail[0] - tail[1]) / (1 - 2 * tail[0])
    beside = EdgeNeighbours.measure(*args, 1.0)
    # a little of the point lies in the pixels around
    np.testing.assert_allclose(beside.excess, share * height[0], rtol=5e-3, atol=1e-6)
    assert beside.exclude_points(height)[0] == (share < MOST_SPREAD)
    assert beside.show_points(height)[0] == (share > MOST_SPREAD)


def test_neighbours_at_white_exclude_nothing(tmp_path):
    args, height = middle_point(tmp_path, 0.25)
    assert not EdgeNeighbours.measure(*args, 0.1).exclude_points(height)[0]


def test_points_stay_where_shifts_are_wrong(scene, tmp_path, dng, monkeypatch):
    """In light of hardly any texture frames that did not move may be found shifted; a point is not there, then."""
    monkeypatch.setattr(hot_pixels, "measure_shifts", lambda *given: np.array([(0, 0), *[(2, 3)] * (N - 1)]))
    burst = read(scene + point_images(0.5, "RGGB", (1, 1, 1), 0), tmp_path, dng)
    assert not len(hot_pixels.find_hot_pixels(burst, [LEVEL] * 4))


def test_a_dark_outlier_at_an_odd_place_of_cells_keeps_its_planes():
    """Planes of a pattern are numbered R, G, G, B, wherever they lie in the cell."""
    for pattern in ("RGGB", "GBRG"):
        offsets = cell_offsets(pattern)
        beside = find_edge_neighbours(np.array([(0, 5, 5)]), pattern)[0]
        assert set(beside[:, 0]) == {1, 2}
        y, x = 10 + offsets[0][0], 10 + offsets[0][1]
        there = {(2 * v + offsets[c][0], 2 * u + offsets[c][1]) for c, v, u in beside.tolist()}
        assert there == {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)}


class StopError(Exception):
    pass


@pytest.mark.parametrize("keep", [False, True])
def test_the_option_keeps_them(scene, tmp_path, dng, monkeypatch, keep):
    """Oracle: the samples that were read, or those that replaced them, are what is aligned."""
    heights = planted(5)
    read([scene + heights] * N, tmp_path / "burst", dng)
    (tmp_path / "burst" / loading.FRAMES).unlink()
    files, aligned = reading.list_frames([tmp_path / "burst"]), []

    def stop(burst, noise, folder):
        aligned.append(burst.spool.read_window(2, Window(0, 80, 0, 112)))
        raise StopError

    monkeypatch.setattr(pipeline, "_place_frames", stop)
    settings = DenoiseSettings(reference="1", keep_hot_pixels=keep)
    with pytest.raises(StopError), denoise_frames(files, tmp_path / "o.dng", settings):
        pass
    there = to_planes(heights[None])[0] != 0
    error = np.abs(aligned[0] - to_planes(scene[None])[0])[there]
    assert (error > 0.1).all() if keep else (error < 0.02).all()
