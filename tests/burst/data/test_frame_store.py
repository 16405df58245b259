"""Frames on disk against the same frames in memory, padded by numpy."""

import errno
import os

import numpy as np
import pytest

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.ground.errors import DiskFull


@pytest.fixture
def frames():
    return np.random.default_rng(0).random((3, 2, 37, 53), np.float32)


@pytest.fixture
def spool(frames, tmp_path):
    made = FrameStore(tmp_path / "frames.f32", frames.shape)
    made.allocate()
    for i, frame in enumerate(frames):
        made.write_frame(i, frame)
    return made


@pytest.mark.parametrize(
    "window", [(0, 37, 0, 53), (5, 9, 40, 53), (-7, 12, -3, 60), (30, 70, 50, 90), (-40, -30, 60, 70)]
)
def test_windows_repeat_the_border_outside(spool, frames, window):
    y0, y1, x0, x1 = window
    wide = np.pad(frames, ((0, 0), (0, 0), (100, 100), (100, 100)), "edge")
    wanted = wide[:, :, 100 + y0 : 100 + y1, 100 + x0 : 100 + x1]
    np.testing.assert_array_equal(spool.read_windows([0, 1, 2], Window(*window)), wanted)


def test_strips_cover_a_frame_once(spool, frames, monkeypatch):
    monkeypatch.setattr("klarsicht.burst.data.frame_store.STRIP", 2 * 53 * 9)
    parts = list(spool.read_strips(1, multiple=4))
    assert [y for y, _ in parts] == [0, 8, 16, 24, 32]
    np.testing.assert_array_equal(np.concatenate([light for _, light in parts], 1), frames[1])


def test_a_window_is_written_where_it_belongs(spool, frames):
    spool.write_window(2, Window(3, 8, 10, 12), np.full((2, 5, 2), 7, np.float32))
    frames[2, :, 3:8, 10:12] = 7
    np.testing.assert_array_equal(spool.read_windows([0, 1, 2], Window(0, 37, 0, 53)), frames)
    assert spool.path.stat().st_size == spool.bytes == frames.nbytes


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve")
def test_a_full_disk_says_so_before_anything_is_written(tmp_path, monkeypatch):
    spool = FrameStore(tmp_path / "s", (2, 3, 200, 300))
    spool.allocate()
    assert spool.path.stat().st_blocks * 512 >= spool.bytes  # not a sparse file

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFull, match=r"no space left.*it takes 1\.4 MB"):
        FrameStore(tmp_path / "t", (2, 3, 200, 300)).allocate()
    assert (tmp_path / "t").stat().st_size == 0  # what it could reserve is free again
    with pytest.raises(DiskFull):
        spool.allocate()
    assert spool.path.stat().st_size == spool.bytes  # what an interrupted run has written stays
