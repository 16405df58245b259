"""Shifts that are known, moves that have a closed form, and frames that are missing."""

import numpy as np
import pytest
from skimage import data

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.evaluation.phase_correlation import aligned_mean, estimate_shifts, shift_frame
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

QUIET = NoiseLevel(1e-3, 1e-4)
KNOWN = np.array([[0, 0], [3, -5], [-12, 7], [16, 16]])


def scene():
    return (data.astronaut()[:200, 100:340].mean(-1) / 255).astype(np.float32) ** 2.2


def looking(scene, shift, size=(120, 160), margin=20):
    """What a frame sees in which things are displaced by that much."""
    y, x = margin - np.asarray(shift)
    return scene[None, y : y + size[0], x : x + size[1]]


def burst(level=QUIET, valid=None):
    clean = np.stack([looking(scene(), d) for d in KNOWN])
    return Burst(level.sample(clean, np.random.default_rng(0)), level, valid if valid is not None else np.ones(4, bool))


@pytest.mark.parametrize("level", [QUIET, NoiseLevel(10**-1.8, 10**-2.21)])
def test_known_shifts_are_found(level):
    np.testing.assert_allclose(estimate_shifts(burst(level)), KNOWN, atol=0.1)


def test_half_a_pixel_is_found():
    """Frames of 2 x 2 means, an odd number of fine pixels apart."""
    fine = (data.astronaut()[:, 100:500].mean(-1) / 255).astype(np.float32) ** 2.2
    known = np.array([[0, 0], [0.5, -1.5], [-2.5, 3]])
    look = [looking(fine, (2 * d).astype(int), (400, 320), 40)[0] for d in known]
    frames = np.stack([f.reshape(200, 2, 160, 2).mean((1, 3))[None] for f in look]).astype(np.float32)
    np.testing.assert_allclose(estimate_shifts(Burst(frames, QUIET)), known, atol=0.12)


def test_a_wave_moves_by_any_fraction():
    """The closed form of a wave that is whole in the mirrored frame is far from the edge what it is everywhere."""
    x = np.arange(96)
    wave = lambda at: np.tile(np.cos(2 * np.pi * at / 12), (40, 1))[None].astype(np.float32)  # noqa: E731
    moved, _ = shift_frame(wave(x), np.array([0.0, 2.3]))
    np.testing.assert_allclose(moved[..., 24:-24], wave(x + 2.3)[..., 24:-24], atol=0.02)


def test_whole_moves_are_exact_and_say_what_was_seen():
    frame = np.random.default_rng(0).normal(size=(2, 9, 11)).astype(np.float32)
    moved, inside = shift_frame(frame, np.array([2.0, -3.0]))
    np.testing.assert_array_equal(moved[:, :7, 3:], frame[:, 2:, :8])
    expected = np.zeros((9, 11))
    expected[:7, 3:] = 1
    np.testing.assert_array_equal(inside, expected)


def test_aligned_frames_without_noise_give_the_reference():
    clean = Burst(np.stack([looking(scene(), d) for d in KNOWN]), QUIET)
    np.testing.assert_allclose(aligned_mean(clean, KNOWN.astype(float)), clean.reference, atol=1e-6)


def test_missing_frames_are_left_out():
    """One that is not valid holds zeros, and changes nothing."""
    b = burst(valid=np.array([True, True, False, False]))
    b.frames[2:] = 0
    found = estimate_shifts(b)
    assert not found[2:].any()
    two = Burst(b.frames[:2], QUIET)
    np.testing.assert_array_equal(aligned_mean(b, found), aligned_mean(two, estimate_shifts(two)))
