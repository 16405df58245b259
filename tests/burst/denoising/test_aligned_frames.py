"""Aligned frames in their store: what the warp of whole frames gives, and after a stop only what is missing."""

import json

import numpy as np
import pytest
import torch

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.tile_grid import Mesh, warp
from klarsicht.burst.data import frame_store
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.aligned_frames import ALIGNED_STATS, store_aligned

SIZE, TILE = (150, 170), 64


@pytest.fixture
def spool(tmp_path):
    light = np.random.default_rng(1).random((4, 3, *SIZE), np.float32)
    made = FrameStore(tmp_path / "frames.f32", light.shape)
    made.allocate()
    for i, one in enumerate(light):
        made.write_frame(i, one)
    return made


@pytest.fixture
def placement():
    rng, shape = np.random.default_rng(0), Mesh(*SIZE, TILE).shape
    fine = rng.uniform(-9, 9, (3, *shape, 2)).astype(np.float32)
    fine[0] = 0
    turns = np.zeros((*fine.shape, 2), np.float32)
    return Placement(fine, np.rint(fine).astype(np.int64), np.ones((3, *shape), bool), np.zeros((3, 2)), turns)


def test_they_are_those_of_the_whole_warp(spool, placement, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_store, "STRIP", 3 * SIZE[1] * 70)  # strips of two steps
    aligned, order = store_aligned(spool, placement, [2, 0, 3], tmp_path), [2, 0, 3]
    frames = torch.from_numpy(spool.read_windows(order, Window(0, SIZE[0], 0, SIZE[1])))[None]
    whole = warp(frames, torch.from_numpy(placement.fine)[None], Mesh(*SIZE, TILE))[0].numpy()
    found = aligned.read_windows(range(3), Window(0, SIZE[0], 0, SIZE[1]))
    np.testing.assert_allclose(found, whole, atol=1e-5)
    np.testing.assert_array_equal(found[0], frames[0, 0])  # the reference is not resampled


def test_after_a_stop_only_what_is_missing_is_read(spool, placement, tmp_path, monkeypatch):
    whole = store_aligned(spool, placement, [2, 0, 3], tmp_path).path.read_bytes()
    (tmp_path / ALIGNED_STATS).write_text(json.dumps({"frames": 2}))
    seen, read = [], FrameStore.read_window
    monkeypatch.setattr(FrameStore, "read_window", lambda store, i, window: seen.append(i) or read(store, i, window))
    assert store_aligned(spool, placement, [2, 0, 3], tmp_path).path.read_bytes() == whole and set(seen) == {3}
