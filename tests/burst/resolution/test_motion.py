"""Motion that is measured once more: planted errors of the placement are found, whatever the frames look like."""

from dataclasses import replace

import numpy as np
import pytest

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.resolution.enlarged_frames import EnlargedFrames
from klarsicht.burst.resolution.motion import MOST_WINDOWS, choose_windows, refine_motion
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE = (96, 128)
SHIFTS, TURNS = [(0, 0), (1.3, -0.6), (-2.4, 5.1)], [np.zeros((2, 2)), [[0, 0.004], [-0.004, 0]], np.zeros((2, 2))]
TURNED = [[0, 0.002], [0.001, 0]]


def scene(y, x):
    return 0.3 + 0.1 * np.sin(y / 2.1 + x / 5) + 0.1 * np.cos(x / 1.9 - y / 7)


@pytest.mark.parametrize("cell", ["bayer", "x-trans"])
def test_an_error_of_shift_and_turn_is_found(draw, cell):
    drawn = draw(cell, SIZE, SHIFTS, TURNS, scene, NoiseLevel(0.003, 1e-4))
    burst = drawn.burst()
    y, x = np.indices(SIZE).astype(float)
    light = EnlargedFrames.of(drawn.store(drawn.at(y, x)))
    true = burst.placement
    fine, turns = true.fine.copy(), true.turns.copy()
    fine[1] += (0.3, -0.2)
    turns[2] += TURNED
    fine[2] += drawn.centres @ np.transpose(TURNED)
    found = refine_motion(burst.with_placement(replace(true, fine=fine, turns=turns)), light, 1.0).placement
    before, after = (np.abs(one - true.fine)[1:].max() for one in (fine, found.fine))
    assert before > 0.25 and after < 0.05
    assert np.abs(found.turns - true.turns).max() < 5e-4
    np.testing.assert_array_equal(found.fine[0], true.fine[0])


def test_a_motion_beyond_reason_is_left_out(draw):
    """A frame of noise moves nowhere, or hardly."""
    drawn = draw("bayer", SIZE, SHIFTS[:2], TURNS[:2], lambda y, x: 0.3 + 0 * y * x, NoiseLevel(0.05, 0.01))
    burst = drawn.burst()
    light = EnlargedFrames.of(drawn.store(drawn.at(*np.indices(SIZE).astype(float))))
    moved = refine_motion(burst, light, 1.0).placement
    assert np.abs(moved.fine - burst.placement.fine).max() < 12


def test_windows_of_large_pictures_are_spread_and_bounded():
    windows = list(choose_windows((4096, 6144)))
    assert len(windows) == MOST_WINDOWS
    assert {(w.y0 // 2048, w.x0 // 2048) for w in windows} == {(y, x) for y in range(2) for x in range(3)}
    assert list(choose_windows((300, 200))) == [Window(0, 256, 0, 200), Window(256, 300, 0, 200)]
