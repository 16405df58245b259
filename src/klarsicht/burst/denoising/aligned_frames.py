"""Aligned frames of a burst, resampled once and stored, as the filter, the mean and the tests all read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.burst import REFERENCE
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.files.loading import count_stored
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.progress import track

ALIGNED_FRAMES, ALIGNED_STATS = "aligned.f32", "aligned.json"


def store_aligned(spool: FrameStore, placement: Placement, frames: Sequence[int], folder: Path) -> FrameStore:
    """Store frames of a store as a placement has them, strip by strip, in folder/aligned.f32, (n, C, H, W); those that
    an interrupted run has stored are kept. frames: their numbers in the store, in the order of the placement, the
    reference first, which is stored as it is. Raises DiskFull, StoreError."""
    n, (C, H, W) = len(frames), spool.shape[1:]
    copy = FrameStore(folder / ALIGNED_FRAMES, (n, C, H, W))
    copy.allocate()
    known = count_stored(folder / ALIGNED_STATS)
    for k in track(range(known, n), n - known, "resampling"):
        own = placement.select([k])
        for window in copy.strip_windows(STEP):
            if k == REFERENCE:
                light = spool.read_window(frames[k], window)
            else:
                light = own.read_aligned(spool, [frames[k]], window)[0]
            copy.write_window(k, window, light)
        write_atomically(folder / ALIGNED_STATS, json.dumps({"frames": k + 1}).encode())
    return copy
