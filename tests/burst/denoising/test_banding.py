"""Offsets of rows and columns: planted ones are known, and without any nothing is found, whatever the scene."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising import banding
from klarsicht.burst.denoising.banding import OffsetFrames, difference_matrix, measure_offsets
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 1e-3)
SIZE = (192, 256)
SHIFTS = np.array([(0, 0), (3, -5), (-7, 2), (11, 6), (-4, -13), (2, 9), (-12, 4), (6, -3)])


def store(path, scene, planted, seed, part=0.0):
    """Frames of a scene that moves by SHIFTS, and by a part of a pixel more, with planted rows and columns."""
    rng, (H, W) = np.random.default_rng(seed), SIZE
    rows, columns = planted
    spool = FrameStore(path, (len(SHIFTS), 1, H, W))
    spool.allocate()
    for i, (dy, dx) in enumerate(SHIFTS):
        here = [scene[20 - dy + k : 20 - dy + k + H, 20 - dx : 20 - dx + W] for k in (0, 1)]
        between = part * rng.uniform()
        light = ((1 - between) * here[0] + between * here[1]).astype(np.float32)
        spool.write_frame(i, (LEVEL.sample(light, rng) + rows[:, None] + columns).astype(np.float32)[None])
    return spool


def found(spool):
    return [one[0] for one in measure_offsets(spool, range(len(SHIFTS)), SHIFTS, [LEVEL])]


def photograph():
    return (data.camera()[100:340, 100:400] / 255.0) ** 2.2


def test_planted_rows_of_a_deviation_go_down_to_a_tenth(tmp_path):
    rng = np.random.default_rng(0)
    sigma = float(LEVEL.deviation(photograph().mean()))
    planted = rng.normal(0, sigma, SIZE[0]), np.zeros(SIZE[1])
    rows, columns = found(store(tmp_path / "a", photograph(), planted, 1, part=0.5))
    left = planted[0] - rows
    assert (left - left.mean()).std() < 0.1 * sigma
    assert not columns.any()


def test_slow_offsets_are_told_from_exposures_by_all_pairs():
    """Without noise, offsets with a slow part are met, though exposures differ by hundredths; differences to the
    reference alone, without exposures, leave most of the slow part."""
    rng, n, shifts, exposures = np.random.default_rng(6), 80, np.array([0, 3, -4, 6]), np.array([0, 0.02, -0.03, 0.01])
    y = np.arange(-20, n + 20)
    light, b = 0.4 + 0.3 * np.cos(y / 11), np.r_[rng.normal(0, 0.01, n)] + 0.02 * np.sin(np.arange(n) / 12)
    pairs = []
    for k in range(3):
        here = light[20 - shifts[k] : 20 - shifts[k] + n]
        others = shifts[k + 1 :] - shifts[k]
        scene = [(exposures[k] - one) * here for one in exposures[k + 1 :]]
        means = np.stack([one + difference_matrix(n, s) @ b for one, s in zip(scene, others, strict=True)])
        inside = np.stack([(np.arange(n) + s >= 0) & (np.arange(n) + s < n) for s in others])
        counts = np.broadcast_to(1e6 * inside, (1, 2, *means.shape))
        pairs.append(banding.Differences(means * counts, counts, here * counts, others))

    def left(fitted):
        return (b - fitted - (b - fitted).mean()).std() / b.std()

    assert left(banding.fit_by_pairs(pairs, 0, 0, 0.02)) < 0.05
    assert left(pairs[0].fit(0, 0, slice(None), 0.02)) > 0.3


def test_where_one_plane_is_sure_another_needs_less(monkeypatch, tmp_path):
    """Six deviations by default, three beside a plane that has six, and none below."""
    found_agreements = iter([6.5, 6.5, 2.5, 9.0, 3.5, 3.5, 9.0, 5.9])
    monkeypatch.setattr(banding.Differences, "agreement", lambda *_: next(found_agreements))
    sums = np.ones((4, 2, 4, 9))
    differences = banding.Differences(sums, sums, sums, np.array([2, -3, 4, 1]))
    assert banding.find_sure_planes(differences, [1.0] * 4) == [0, 2, 3]


def test_planted_columns_are_found_and_taken_off(tmp_path):
    rng = np.random.default_rng(2)
    planted = np.zeros(SIZE[0]), rng.normal(0, 0.3 * LEVEL.read, SIZE[1])
    spool = store(tmp_path / "a", photograph(), planted, 3)
    rows, columns = found(spool)
    assert not rows.any()
    left = planted[1] - columns
    assert (left - left.mean()).std() < 0.4 * planted[1].std()
    clean = OffsetFrames(spool.path, spool.shape, spool, *(x[None].astype(np.float32) for x in (rows, columns)))
    window, places = Window(5, 40, 7, 90), np.array([[0, 3, 0], [0, 100, 200]])
    expected = spool.read_window(2, window) - columns[7:90].astype(np.float32)
    np.testing.assert_allclose(clean.read_window(2, window), expected, atol=1e-7)
    for values, (_, y, x) in zip(clean.read_neighbourhoods(2, places), places, strict=True):
        assert values[1, 1] == clean.read_window(2, Window(y, y + 1, x, x + 1))[0, 0, 0]


def level_lines():
    """A scene of level lines and edges across the whole picture, as of a facade or blinds."""
    y = np.arange(240)[:, None]
    return np.broadcast_to(0.3 + 0.1 * (y // 7 % 2) + 0.002 * y / 2, (240, 300))


@pytest.mark.parametrize("scene", [photograph, level_lines, lambda: np.full((240, 300), 0.05)])
def test_nothing_is_found_where_nothing_was_planted(scene, tmp_path):
    none = np.zeros(SIZE[0]), np.zeros(SIZE[1])
    for seed in range(3):
        assert not any(one.any() for one in found(store(tmp_path / f"{seed}", scene(), none, seed, part=0.9)))


def test_a_tripod_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SHIFTS", np.zeros_like(SHIFTS))
    planted = np.random.default_rng(0).normal(0, 0.02, SIZE[0]), np.zeros(SIZE[1])
    assert not found(store(tmp_path / "a", photograph(), planted, 1))[0].any()


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_differences_are_those_of_a_loop(shift):
    b = np.random.default_rng(0).normal(size=9)
    expected = [b[y] - b[y + shift] if 0 <= y + shift < 9 else 0.0 for y in range(9)]
    np.testing.assert_allclose(difference_matrix(9, shift) @ b, expected)


@pytest.mark.slow
def test_a_burst_with_banding_is_said_to_have_it_and_comes_out_without(dng, tmp_path, monkeypatch):
    """Through the command; without banding, the same frames come out as if nobody had looked, to the bit. With five
    other frames of 160 rows, an eighth is left at most, where half of the offsets was left before."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    rng, (H, W) = np.random.default_rng(4), (320, 384)
    scene = np.tile((data.camera() / 255.0) ** 2.2, (1, 1))
    planted = rng.normal(0, LEVEL.read, H)[:, None]

    def frames(name, offsets, seed=5):
        (tmp_path / name).mkdir()
        noise = np.random.default_rng(seed)
        for i, (dy, dx) in enumerate(2 * SHIFTS[:6]):
            light = scene[60 - dy : 60 - dy + H, 60 - dx : 60 - dx + W]
            counts = 600 + 15783 * (LEVEL.sample(light.astype(np.float32), noise) + offsets)
            dng(tmp_path / name / f"{i}.dng", np.clip(np.rint(counts), 0, 16383), profile=(LEVEL.shot, LEVEL.read**2))
        return tmp_path / name

    def result(folder):
        settings = DenoiseSettings(threads=1, reference="0.dng", bayer="planes")
        with denoise_frames(reading.list_frames([folder]), tmp_path / "out.dng", settings) as found:
            return found.spool.read_window(0, Window(0, *found.spool.size[:1], 0, found.spool.size[1]))[:4], found.bands

    truth = to_planes(scene[60 : 60 + H, 60 : 60 + W].astype(np.float32), "RGGB")

    def rows_left(picture):
        return (picture - truth)[:, 8:-8, 8:-8].mean(2).std()

    clean, none = result(frames("clean", 0))
    monkeypatch.setattr(banding, "find_offsets", lambda *_: None)
    unasked, _ = result(tmp_path / "clean")
    banded, _ = result(frames("banded", planted))
    monkeypatch.undo()
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    corrected, bands = result(tmp_path / "banded")
    assert none == 0 and bands == 2 * H
    np.testing.assert_array_equal(clean, unasked)
    assert rows_left(banded) - rows_left(clean) > 0.3 * LEVEL.read
    assert rows_left(corrected) - rows_left(clean) < 0.12 * LEVEL.read
