"""Placement in pieces against the mesh's own warp of whole frames, and against shifts that are known."""

import numpy as np
import pytest
import torch
from skimage import data

from klarsicht.burst.align import tiled
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.tile_grid import Mesh, warp
from klarsicht.burst.align.tiled import align_frames
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.numerics.imaging.sensor_noise import GAINS

SHIFTS = [(0, 0), (11, -7), (-20, 33)]


def spooled(frames, path):
    spool = FrameStore(path, frames.shape)
    spool.allocate()
    for i, frame in enumerate(frames):
        spool.write_frame(i, frame)
    return spool


def unturned(fine):
    return np.zeros((*fine.shape, 2), np.float32)


@pytest.fixture(scope="module")
def random_placement():
    rng = np.random.default_rng(0)
    shape = Mesh(150, 170, 64).shape
    shifts = rng.integers(-9, 10, (2, *shape, 2)) + np.array([[[[0, 0]]], [[[20, -31]]]])
    fine = (shifts + rng.uniform(-0.5, 0.5, shifts.shape)).astype(np.float32)
    return Placement(fine, shifts, rng.random((2, *shape)) < 0.7, np.zeros((2, 2)), unturned(fine))


@pytest.mark.parametrize("window", [(0, 150, 0, 170), (32, 101, 64, 170), (128, 150, 160, 170)])
def test_a_window_is_that_of_the_whole_warp(random_placement, tmp_path, window):
    frames = np.random.default_rng(1).random((2, 3, 150, 170), np.float32)
    spool, mesh = spooled(frames, tmp_path / "f"), Mesh(150, 170, 64)
    given = torch.from_numpy(frames)[None]
    fine, whole = (
        warp(given, torch.from_numpy(shifts)[None], mesh)[0].numpy()
        for shifts in (random_placement.fine, random_placement.shifts)
    )
    y0, y1, x0, x1 = window
    got = random_placement.read_aligned(spool, [0, 1], Window(*window))
    np.testing.assert_allclose(got, fine[:, :, y0:y1, x0:x1], atol=1e-5)
    copied = random_placement.read_whole_pixels(spool, 1, 1, Window(*window))
    np.testing.assert_allclose(copied, whole[1, :, y0:y1, x0:x1], atol=1e-6)


def test_noise_between_pixels_is_that_of_the_taps():
    """Half a pixel down, a quarter to the right: the variance is the sum of squares of Keys' taps, all over."""
    fine = np.full((1, *Mesh(256, 256, 64).shape, 2), (0.5, 0.25), np.float32)
    placement = Placement(
        fine, np.rint(fine).astype(np.int64), np.ones(fine.shape[:-1], bool), np.zeros((1, 2)), unturned(fine)
    )
    white = np.random.default_rng(0).standard_normal((3, 256, 256), np.float32)
    half = np.square([-1, 9, 9, -1]).sum() / 16**2
    quarter = np.square([-9, 111, 29, -3]).sum() / 128**2
    ours = placement.interpolate_noise(white, 0, Window(0, 256, 0, 256))
    assert ours.var() == pytest.approx(half * quarter, rel=0.02)


def test_agreement_fades_and_ends_where_a_frame_ends(random_placement):
    mesh = Mesh(150, 170, 64)
    ones = torch.ones(1, 2, 1, 150, 170)
    inside = np.zeros((2, 150, 170))
    for i in range(2):  # slowly: each pixel's four tiles
        for below, right, weight in mesh.layers(torch.device("cpu")):
            s, a = (mesh.layer(torch.from_numpy(np.moveaxis(v, -1, 0) if v.ndim == 3 else v), below, right).numpy()
                    for v in (random_placement.shifts[i], random_placement.agrees[i]))  # fmt: skip
            y, x = np.arange(150)[:, None] + s[0], np.arange(170) + s[1]
            inside[i] += weight.numpy() * a * ((y >= 0) & (y < 150) & (x >= 0) & (x < 170))
    assert ones.shape[-2:] == inside.shape[1:]
    window = Window(32, 150, 64, 170)
    np.testing.assert_allclose(random_placement.agreement(window, (150, 170)), inside[:, 32:, 64:], atol=1e-6)


@pytest.mark.slow
def test_known_shifts_are_found_across_regions(tmp_path, monkeypatch):
    monkeypatch.setattr(tiled, "REGION", 8 * STEP)
    picture = data.retina()[:700, :700].mean(-1, dtype=np.float32) / 255
    frames = np.stack([picture[100 + dy : 600 + dy, 100 + dx : 612 + dx][None] for dy, dx in SHIFTS])
    level = GAINS[1]
    spool = spooled(level.sample(frames, np.random.default_rng(0)), tmp_path / "f")
    found = align_frames(spool, [level] * 3, [0, 1, 2])
    inner = found.shifts[:, 2:-2, 2:-2]
    assert (inner == -np.array(SHIFTS)[:, None, None]).all(-1).mean() > 0.97
    assert all(found.agreement_share(i) > 0.8 for i in range(3))
    np.testing.assert_allclose(found.rest, 0, atol=0.2)


@pytest.mark.parametrize("frames", [1, 8, 16, 32, 100])
def test_regions_cover_a_picture_and_do_not_grow_with_the_frames(frames):
    seen, margins = np.zeros((1500, 2000), int), 2 * tiled.REGION_MARGIN
    for w in tiled.regions(seen.shape, frames):
        seen[w.y0 : w.y1, w.x0 : w.x1] += 1
        assert w.y0 % STEP == w.x0 % STEP == 0
        assert frames * (w.size[0] + margins) * (w.size[1] + margins) <= 16 * 896**2
    assert (seen == 1).all()


def test_one_frame_stays(tmp_path):
    spool = spooled(np.ones((1, 1, 64, 64), np.float32), tmp_path / "f")
    assert not align_frames(spool, [GAINS[1]], [0]).shifts.any()


def placed_near(whole, spread, frames=4):
    """A placement whose tiles lie around whole frames' shifts."""
    rng = np.random.default_rng(3)
    fine = np.array(whole, np.float32)[:, None, None] + rng.uniform(-spread, spread, (frames, 12, 12, 2))
    fine[0] = 0
    shifts = np.rint(fine).astype(np.int64)
    rest = np.array(whole) - np.rint(whole)
    return Placement(fine.astype(np.float32), shifts, np.ones((frames, 12, 12), bool), rest, unturned(fine))


def test_frames_that_nearly_coincide_are_read_at_whole_pixels():
    placement = placed_near([(0, 0), (0.05, -0.1), (3.1, 0.02), (0, -2)], 0.2)
    placement.fine[2, 4, 5] += (6.3, 0)  # something that moved by itself
    snapped = placement.snap_to_pixels()
    for frame, whole in enumerate([(0, 0), (0, 0), (3, 0), (0, -2)]):
        there = np.ones((12, 12), bool)
        there[4, 5] = frame != 2
        assert (snapped.fine[frame][there] == whole).all()
    np.testing.assert_array_equal(snapped.fine[2, 4, 5], placement.fine[2, 4, 5])
    assert snapped.coincides and not placement.coincides


@pytest.mark.parametrize(("whole", "spread"), [([(0, 0), (0, 0), (0.3, 0)], 0.1), ([(0, 0), (0, 0), (0, 0.1)], 0.9)])
def test_a_burst_of_which_one_frame_is_between_pixels_stays_as_it_is(whole, spread):
    placement = placed_near(whole, spread, 3)
    assert placement.snap_to_pixels() is placement


def test_only_tiles_that_agree_and_lie_on_whole_pixels_coincide():
    placement = placed_near([(0, 0), (0, 0)], 0.1, 2).snap_to_pixels()
    placement.fine[1, :, 6:] = 0.25
    placement.agrees[1, :3] = False
    there = placement.coincidence(Window(0, 320, 0, 320), (320, 320))[1]
    assert there[100:, :150].min() == 1 and there[:60].max() == 0 and there[:, 200:].max() == 0


@pytest.mark.parametrize("size", [(300, 340), (299, 321)])
def test_at_twice_the_resolution_a_placement_tells_the_same_field(size):
    """A field that is affine in the place: of each tile at its centre, in pixels twice as small."""
    half = tuple(-(-side // 2) for side in size)
    turn, shift = np.array([[0.01, -0.02], [0.015, 0.005]]), np.array([3.3, -7.1])

    def field(shape, scale):
        """Centres of tiles, half a pixel before multiples of STEP, in pixels of the smaller frames."""
        y, x = ((np.arange(n) * STEP - 0.5 + 0.5) * scale - 0.5 for n in shape)
        places = np.stack(np.broadcast_arrays(y[:, None], x), -1)
        return (shift + places @ turn.T)[None].repeat(2, 0).astype(np.float32)

    small, large = (Mesh(*one, 64).shape for one in (half, size))
    turns = np.broadcast_to(turn, (2, *small, 2, 2)).astype(np.float32)
    fine, agrees = field(small, 1), np.ones((2, *small), bool)
    agrees[1, 2, 3] = False
    rest = np.array([[0.0, 0.0], [0.3, -0.4]])
    found = Placement(fine, np.rint(fine).astype(np.int64), agrees, rest, turns).double_resolution(size)
    np.testing.assert_allclose(found.fine, 2 * field(large, 0.5), atol=1e-4)
    np.testing.assert_array_equal(found.shifts, np.rint(found.fine))
    np.testing.assert_allclose(found.rest[1], [-0.4, 0.2])
    np.testing.assert_allclose(found.turns, np.broadcast_to(turn, found.turns.shape), rtol=1e-6)
    expected = np.ones((2, *large), bool)
    expected[1, 3:6, 5:8] = False
    np.testing.assert_array_equal(found.agrees, expected)


def test_a_tile_between_two_that_moved_apart_follows_one_of_them():
    fine = np.zeros((1, *Mesh(64, 64, 64).shape, 2), np.float32)
    fine[0, :, 1:] = 4.25
    found = Placement(
        fine, np.rint(fine).astype(np.int64), np.ones(fine.shape[:3], bool), np.zeros((1, 2)), unturned(fine)
    ).double_resolution((128, 128))
    np.testing.assert_array_equal(found.fine[0, :, :, 0], [[0, 0, 8.5, 8.5, 8.5]] * 5)
