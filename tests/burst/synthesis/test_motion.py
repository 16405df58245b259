"""Motion against scipy's affine transform, the protocol's probabilities, and what occlusion must mean."""

import math

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from klarsicht.burst.synthesis.motion import (
    MOTIONS,
    TRAINING_MOTIONS,
    CameraPath,
    Mover,
    composite_movers,
    draw_mover,
    ellipse,
    partly_visible,
    path_mask,
    protocol_camera,
    render_frame,
    shaken_camera,
)
from klarsicht.burst.synthesis.scenes import KPN, Geometry

SMALL = Geometry(scale=2, height=12, width=16, reach=4)


def scene(geometry=SMALL, channels=1, seed=0):
    return np.random.default_rng(seed).random((channels, *geometry.crop), dtype=np.float32)


def path(dy=0.0, dx=0.0, angle=0.0):
    return CameraPath(np.array([[0.0, 0.0], [dy, dx]]), np.array([0.0, angle]))


def block_mean(image, scale):
    height, width = image.shape
    return image.reshape(height // scale, scale, width // scale, scale).mean((1, 3))


def test_the_reference_looks_at_the_centre():
    picture = scene()
    np.testing.assert_allclose(
        render_frame(picture, path(), 0, SMALL)[0], block_mean(picture[0, 8:32, 8:40], 2), rtol=1e-5
    )


def test_a_whole_shift_is_a_slice():
    picture = scene()
    seen = render_frame(picture, path(3, -5), 1, SMALL)[0]
    np.testing.assert_allclose(seen, block_mean(picture[0, 11:35, 3:35], 2), rtol=1e-5)


@pytest.mark.parametrize(("dy", "dx", "angle"), [(0.5, -1.25, 0.0), (0.0, 0.0, 0.05), (2.3, 1.7, -0.08)])
def test_any_pose_is_scipys_bilinear_transform(dy, dx, angle):
    picture = scene(channels=2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle, frame_middle = np.array([39, 47]) / 2, np.array([23, 31]) / 2
    offset = middle + np.array([dy, dx]) - turn @ frame_middle
    for channel, seen in zip(picture, render_frame(picture, path(dy, dx, angle), 1, SMALL), strict=True):
        exact = affine_transform(channel.astype(float), turn, offset, output_shape=(24, 32), order=1)
        np.testing.assert_allclose(seen, block_mean(exact, 2), atol=2e-5)


@pytest.mark.parametrize("angle", [0.0, 0.04])
def test_displacement_says_where_the_centre_went(angle):
    """A bright spot at the centre of the reference, found again in the frame as its centre of mass."""
    geometry = Geometry(scale=2, height=41, width=41, reach=8)
    y, x = (np.arange(side) - (side - 1) / 2 for side in geometry.crop)
    spot = np.exp(-(y[:, None] ** 2 + x**2) / 50)[None].astype(np.float32)
    camera = path(5, -9, angle)
    seen = render_frame(spot, camera, 1, geometry)[0]
    found = [(seen.sum(1 - axis) * (np.arange(41) - 20)).sum() / seen.sum() for axis in (0, 1)]
    np.testing.assert_allclose(camera.displacements(2)[1], found, atol=0.02)
    np.testing.assert_array_equal(camera.displacements(2)[0], [0, 0])


def test_protocol_shifts_follow_its_probabilities():
    """A frame goes far with probability E min(P/8, 1), P Poisson(1.5), then leaves +-2 with probability
    1-(17/129)^2."""
    bursts = [protocol_camera(np.random.default_rng(seed), 8, KPN).shifts for seed in range(2000)]
    shifts = np.stack(bursts)
    assert not shifts[:, 0].any() and np.abs(shifts).max() == 64 and (shifts == shifts.astype(int)).all()
    p = sum(min(k / 8, 1) * math.exp(-1.5) * 1.5**k / math.factorial(k) for k in range(40))
    far = (np.abs(shifts[:, 1:]) > 8).any(-1)
    expected = p * (1 - (17 / 129) ** 2)
    assert far.mean() == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 2000 / 2))
    rate = far.mean(1)
    assert rate.var() > 1.5 * expected * (1 - expected) / 7  # one p for the whole burst: more spread than independent


def test_a_shaken_camera_stays_within_the_crop():
    for seed in range(200):
        hand = shaken_camera(np.random.default_rng(seed), 8, KPN)
        reach = np.abs(hand.shifts).max(1) + 4 * np.abs(np.sin(hand.angles)) * math.hypot(128, 128) / 2
        assert reach.max() < KPN.margin and hand.shifts[0].any() == 0 == hand.angles[0]
        assert (hand.shifts[1:] % 1).any() and hand.angles[1:].any()


def mover(corners, visible, value=1.0):
    light, cover = np.full((1, 6, 6), value, np.float32), np.ones((6, 6), np.float32)
    return Mover(light, cover, np.array(corners), np.array(visible))


def test_what_is_in_front_hides_what_is_behind():
    picture = scene()
    thing = mover([[10, 10], [14, 20]], [True, True])
    for frame, (y, x) in enumerate(thing.corners):
        seen = composite_movers(picture, (thing,), frame)
        assert (seen[0, y : y + 6, x : x + 6] == 1).all()
        seen[0, y : y + 6, x : x + 6] = picture[0, y : y + 6, x : x + 6]
        np.testing.assert_array_equal(seen, picture)


def test_things_may_leave_the_scene():
    picture = scene()
    outside = mover([[-3, 37], [100, 0], [-50, -50]], [True, True, True])
    seen = composite_movers(picture, (outside,), 0)
    np.testing.assert_array_equal(seen[0, :3, 37:43], np.ones((3, 6)))
    np.testing.assert_array_equal(composite_movers(picture, (outside,), 1), picture)
    np.testing.assert_array_equal(composite_movers(picture, (outside,), 2), picture)


def test_the_path_is_where_frames_differ():
    """With the camera at rest, frames differ from the empty scene exactly on the path."""
    empty = np.zeros((1, *SMALL.crop), np.float32)
    thing = mover([[9, 9], [15, 21], [20, 30]], [True, False, True])
    still = CameraPath(np.zeros((3, 2)), np.zeros(3))
    frames = [render_frame(composite_movers(empty, (thing,), i), still, i, SMALL)[0] for i in range(3)]
    np.testing.assert_array_equal(path_mask((thing,), SMALL), np.max(frames, 0) > 0)
    assert not path_mask((), SMALL).any()


def test_an_ellipse_has_its_area():
    assert ellipse(200, 120).sum() == pytest.approx(math.pi / 4 * 200 * 120, rel=0.05)
    assert ellipse(200, 120)[100, 60] == 1 and ellipse(200, 120)[0, 0] == 0


def test_passing_things_hide_from_some_frames_only():
    for seed in range(50):
        here = partly_visible(np.random.default_rng(seed), 8)
        assert 0 < here.sum() < 8 and (here[1:] != here[:-1]).sum() == 1


def test_movers_cross_the_frame():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        thing = draw_mover(rng, scene(KPN), 8, KPN, np.ones(8, bool))
        steps = np.linalg.norm(np.diff(thing.corners, axis=0), axis=1) / KPN.scale
        assert (steps > 0.5).all() and (steps < 4.5).all() and np.ptp(steps) < 0.5
        assert path_mask((thing,), KPN).any()


def test_registry():
    assert list(MOTIONS) == ["still", "shaken", "moving", "occluded"]


def test_on_a_tripod_all_frames_are_the_reference():
    view, still = scene(), TRAINING_MOTIONS["tripod"].draw_path(np.random.default_rng(0), 4, SMALL)
    frames = [render_frame(view, still, i, SMALL) for i in range(4)]
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_frames_on_whole_pixels_are_the_reference_displaced():
    """By np.roll, away from the border; and they do move."""
    view, moved = scene(), TRAINING_MOTIONS["whole"].draw_path(np.random.default_rng(1), 8, SMALL)
    first, most = render_frame(view, moved, 0, SMALL)[0], SMALL.reach
    shifts = moved.displacements(SMALL.scale)
    assert np.abs(shifts).max() >= 2
    inside = (slice(most, SMALL.height - most), slice(most, SMALL.width - most))
    for i, shift in enumerate(shifts):
        assert (shift == np.rint(shift)).all()
        rolled = np.roll(first, shift.astype(int), (0, 1))
        np.testing.assert_array_equal(render_frame(view, moved, i, SMALL)[0][inside], rolled[inside])
