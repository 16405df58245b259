"""Brackets before they are merged: exposures and motion that the test gave them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.burst.align.tiled import _unmoved_placement
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.denoising.bracket import align_by_pairs, measure_exposures, scale_frames
from klarsicht.burst.files.loading import Frame, LoadedBurst
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 1e-3)
TIMES, OFF = (1.0, 0.25, 4.0), (1.0, 1.04, 0.95)  # exposures beside the reference's, and errors of their gains
SIZE = (192, 256)


def burst_of(tmp_path, moves, off=OFF):
    """Frames of a scene that moved by so much (y, x), clipped at their whites and scaled to the reference, wrongly."""
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((SIZE[0] + 32, SIZE[1] + 32)), 2)
    scene = np.clip(0.15 + 0.08 * texture / texture.std(), 0.01, 1).astype(np.float32)
    spool = FrameStore(tmp_path / "s", (len(TIMES), 1, *SIZE))
    spool.allocate()
    for i, (t, (dy, dx), wrong) in enumerate(zip(TIMES, moves, off, strict=True)):
        there = scene[16 + dy : 16 + dy + SIZE[0], 16 + dx : 16 + dx + SIZE[1]]
        taken = np.minimum(LEVEL.sample(there * np.float32(t), np.random.default_rng(i)), 1)
        spool.write_frame(i, taken[None] * np.float32(wrong / t))
    frames = tuple(Frame(f"{i}", wrong / t, 1.0) for i, (t, wrong) in enumerate(zip(TIMES, off, strict=True)))
    headers = tuple(Header(tmp_path / f"{i}", "grey", SIZE, 65535) for i in range(len(TIMES)))
    return LoadedBurst(headers, spool, frames, 0)


def test_exposures_are_right_to_a_few_thousandths_once_frames_lie_on_one_another(tmp_path):
    """Pixels that are white in one frame, a fifth of the longest one, do not count."""
    burst = burst_of(tmp_path, [(0, 0)] * 3)
    refined = scale_frames(burst, measure_exposures(burst, _unmoved_placement(3, SIZE), [0, 1, 2]))
    assert [frame.gain * t for frame, t in zip(refined.frames, TIMES, strict=True)] == pytest.approx([1] * 3, rel=4e-3)
    one, other = (store.read_window(2, Window(0, 8, 0, 8)) for store in (refined.spool, burst.spool))
    np.testing.assert_allclose(one, other / np.float32(0.95), rtol=4e-3)


def test_frames_of_other_exposures_are_aligned_though_much_is_white_in_one(tmp_path):
    moves = [(0, 0), (3, -4), (-5, 2)]
    placement = align_by_pairs(burst_of(tmp_path, moves, (1, 1, 1)), LEVEL)
    wanted = -np.array(moves)[:, None, None]
    assert np.abs(placement.fine - wanted)[:, 1:-1, 1:-1].max() < 0.3
    assert placement.agrees[:, 1:-1, 1:-1].mean() > 0.9
