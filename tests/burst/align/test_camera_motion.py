"""Camera motion against derivatives by differences, polynomials that Keys' taps repeat, and motions that are known."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from klarsicht.burst.align.alignment import stabilised_grey
from klarsicht.burst.align.camera_motion import CameraMotion, fit_camera_motion
from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.align.tiled import _place_by_motion, align_frames
from klarsicht.burst.align.warp_tiles import warp_frame
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.synthesis.motion import CameraPath, render_frame
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.numerics.imaging.sensor_noise import GAINS

GEOMETRY = Geometry(scale=2, height=160, width=224, reach=14)
SIZE = (GEOMETRY.height, GEOMETRY.width)


def test_turns_are_the_derivatives_of_the_shifts():
    numbers = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, (3, 8)))
    motion, places = CameraMotion(numbers, (90, 130)), torch.tensor([[3.0, 5.0], [80.0, 20.0]], dtype=torch.float64)
    for axis in (0, 1):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = 1e-4
        slope = (motion.shifts(places + step) - motion.shifts(places - step)) / 2e-4
        np.testing.assert_allclose(motion.turns(places)[..., axis], slope, atol=1e-9)


def test_a_small_pan_is_a_shift_and_a_tilt():
    """A camera of focal length f that turns by t about its upright axis: x goes to f tan(atan(x / f) + t)."""
    f, t, size = 200.0, 0.01, (101, 141)
    motion = CameraMotion.from_shifts(torch.tensor([[0.0, f * t]]), size)
    motion.numbers[0, 7] = motion.unit * t / f
    y, x = torch.tensor([-50.0, 0, 50])[:, None].expand(3, 3), torch.tensor([-70.0, 0, 70]).expand(3, 3)
    turned = np.arctan(x.numpy() / f) + t
    across = f * np.tan(turned) - x.numpy()
    down = y.numpy() * (np.cos(np.arctan(x.numpy() / f)) / np.cos(turned) - 1)
    places = torch.stack((y + 50, x + 70), -1).double()
    np.testing.assert_allclose(motion.shifts(places)[0], np.stack((down, across), -1), atol=0.02)


@pytest.mark.parametrize("own", [0.0, 0.3])
def test_a_turned_tile_shows_what_stands_there(own):
    """A polynomial of second degree, which Keys' convolution repeats: the blend of what the four tiles of a pixel
    say."""
    rng, mesh = np.random.default_rng(1), Mesh(96, 130, 64)
    Y, X = mesh.shape
    turns = np.broadcast_to(np.array([[0.01, -0.03], [0.035, 0.008]], np.float32), (Y, X, 2, 2)).copy()
    r, q = np.arange(Y)[:, None] * 32 - 0.5, np.arange(X) * 32 - 0.5
    centres = np.stack(np.broadcast_arrays(r, q), -1)
    shifts = 12 + np.einsum("yxij,yxj->yxi", turns, centres) + own * rng.uniform(-1, 1, (Y, X, 2))

    def light(y, x):
        return 1e-4 * y**2 - 2e-4 * x * y + 3e-4 * x**2 + 0.01 * y - 0.02 * x

    y, x = np.mgrid[:130, :170].astype(np.float64)
    got = warp_frame(light(y, x)[None].astype(np.float32), shifts.astype(np.float32), mesh, turns)[0]
    expected = np.zeros((96, 130))
    y, x = np.mgrid[:96, :130].astype(np.float64)
    weights = [[mesh.fade_weights(axis, k, torch.device("cpu")).numpy() for k in (0, 1)] for axis in (0, 1)]
    for i in (0, 1):
        for j in (0, 1):
            a, b = (y // 32).astype(int) + i, (x // 32).astype(int) + j
            off = np.stack((y, x), -1) - centres[a, b]
            at = np.stack((y, x), -1) + shifts[a, b] + np.einsum("yxij,yxj->yxi", turns[a, b], off)
            expected += weights[0][i][:, None] * weights[1][j] * light(at[..., 0], at[..., 1])
    np.testing.assert_allclose(got, expected, atol=2e-4)


def moved(angles, zooms, shifts, geometry=GEOMETRY):
    """Frames (N, 1, H, W) of a photograph by the renderer of the synthetic bursts, and their motion by its definition:
    frame k shows at q the scene at z R q + shift."""
    picture = (data.retina()[200:, 200:].mean(-1, dtype=np.float32) / 255) ** 2.2
    height, width = geometry.crop
    path = CameraPath(np.array(shifts, float) * geometry.scale, np.array(angles), np.array(zooms))
    frames = np.stack([render_frame(picture[None, :height, :width], path, k, geometry) for k in range(len(angles))])
    motion = CameraMotion.from_shifts(torch.zeros(len(angles), 2), (geometry.height, geometry.width))
    for k, (angle, zoom, shift) in enumerate(zip(angles, zooms, shifts, strict=True)):
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * zoom
        back = np.linalg.inv(turn)
        (dy, dx), J = -back @ np.array(shift) / motion.unit, back - np.eye(2)
        motion.numbers[k] = torch.tensor([dy, *J[0], dx, *J[1], 0, 0])
    return frames, motion


@pytest.fixture(scope="module")
def turned():
    return moved([0, 0.034, -0.02, 0.01], [1, 1.01, 0.99, 1], [(0, 0), (1.2, -2), (-1, 0.5), (3, 3)])


def corners(size=SIZE):
    y, x = torch.meshgrid(torch.tensor([0.0, size[0] - 1]), torch.tensor([0.0, size[1] - 1]), indexing="ij")
    return torch.stack((y, x), -1).double()


def test_turns_and_zooms_are_found(turned):
    frames, motion = turned
    level = GAINS[1]
    noisy = torch.from_numpy(level.sample(frames, np.random.default_rng(2)))[None]
    light = stabilised_grey(noisy, torch.tensor([level.read]), torch.tensor([level.shot]))[0]
    found = fit_camera_motion(light, torch.zeros(len(frames), 2), 1, SIZE)
    np.testing.assert_allclose(found.shifts(corners()), motion.shifts(corners()), atol=0.3)
    assert found.is_shift.tolist() == [True, False, False, False]


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_turn_of_half_a_pixel_is_found(seed):
    """Corners of 160 x 224 pixels move by 0.55 pixels; a shift alone leaves all of that."""
    frames, motion = moved([0, 0.004, -0.004, 0.004], [1, 1, 1, 1], [(0, 0), (1.2, -2), (-1.5, 0.5), (3, 3)])
    level = GAINS[1]
    noisy = torch.from_numpy(level.sample(frames, np.random.default_rng(seed)))[None]
    light = stabilised_grey(noisy, torch.tensor([level.read]), torch.tensor([level.shot]))[0]
    found = fit_camera_motion(light, torch.tensor([[0.0, 0], [-1, 2], [1.5, -0.5], [-3, -3]]), 1, SIZE)
    assert found.is_shift.tolist() == [True, False, False, False]
    np.testing.assert_allclose(found.shifts(corners()), motion.shifts(corners()), atol=0.3)


@pytest.mark.parametrize("gain", [1, 4, 8])
def test_what_is_only_shifted_stays_shifted(gain):
    frames, _ = moved([0, 0, 0, 0], [1, 1, 1, 1], [(0, 0), (1, -2), (-1.5, 0.5), (3, 3)])
    level = GAINS[gain]
    noisy = torch.from_numpy(level.sample(frames, np.random.default_rng(2)))[None]
    light = stabilised_grey(noisy, torch.tensor([level.read]), torch.tensor([level.shot]))[0]
    whole = torch.tensor([[0.0, 0], [-1, 2], [1.5, -0.5], [-3, -3]])
    found = fit_camera_motion(light, whole, 1, SIZE)
    assert found.is_shift.all()
    np.testing.assert_allclose(found.shifts(corners())[:, 0, 0], whole, atol=1e-5)


def test_a_large_frame_is_placed_by_coarse_pixels():
    """More than FINEST_PIXELS: fitted at half of the size, from shifts that are half a pixel and more off."""
    size = (320, 448)
    frames, motion = moved([0, 0.006], [1, 1], [(0, 0), (2.4, -3.2)], Geometry(2, *size, reach=14))
    level = GAINS[1]
    noisy = torch.from_numpy(level.sample(frames, np.random.default_rng(5)))[None]
    light = stabilised_grey(noisy, torch.tensor([level.read]), torch.tensor([level.shot]))[0]
    found = fit_camera_motion(light, torch.tensor([[0.0, 0], [-2.0, 4.0]]), 1, size)
    np.testing.assert_allclose(found.shifts(corners(size)), motion.shifts(corners(size)), atol=0.2)


def test_tiles_of_turned_frames_lie_where_they_should(turned, tmp_path):
    frames, motion = turned
    level = GAINS[1]
    spool = FrameStore(tmp_path / "f", frames.shape)
    spool.allocate()
    for i, frame in enumerate(level.sample(frames, np.random.default_rng(3))):
        spool.write_frame(i, frame)
    found, true = align_frames(spool, [level] * 4, range(4)), _place_by_motion(motion, SIZE)
    off = np.linalg.norm(found.fine - true.fine, axis=-1)[:, 1:-1, 1:-1]
    assert np.quantile(off, 0.9) < 0.2
    assert found.agrees[:, 1:-1, 1:-1].mean() > 0.95
    np.testing.assert_allclose(found.turns[1:, 2, 3], true.turns[1:, 2, 3], atol=2e-3)
