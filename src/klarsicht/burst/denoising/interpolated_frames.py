"""Interpolation of a Bayer burst to RGB, frame by frame and strip by strip, by `cokriging`; and the alignment of
interpolated frames, whose noise is not white: as means of 2 x 2 pixels, where it nearly is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from klarsicht.burst.align import tiled
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.cokriging import grey_variance, interpolate_mosaic, white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Planes
from klarsicht.burst.files.loading import LoadedBurst, count_stored
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

RGB_FRAMES, RGB_STATS = "rgb.f32", "rgb.json"
CELLS_AROUND = 2  # cells of 2 x 2 beside a strip, which the filters read


@dataclass(frozen=True)
class HalvedFrames(FrameStore):
    """Means of 2 x 2 pixels of the frames of another store; beyond an odd side the border is repeated."""

    source: FrameStore

    @classmethod
    def of(cls, source: FrameStore) -> HalvedFrames:
        N, C, H, W = source.shape
        return cls(source.path, (N, C, -(-H // 2), -(-W // 2)), source)

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        h, w = inside.size
        light = self.source.read_window(frame, Window(2 * inside.y0, 2 * inside.y1, 2 * inside.x0, 2 * inside.x1))
        return light.reshape(len(light), h, 2, w, 2).mean((2, 4))


def align_loaded_frames(
    burst: LoadedBurst, level: NoiseLevel, gains: Sequence[float], order: Sequence[int]
) -> Placement:
    """Align the frames of a burst whose numbers are given, the reference first. level: the mean of the noise over the
    channels, of a frame of gain 1. gains: of all frames."""
    spool = burst.spool
    if cell := burst.header.cell:
        level = level.scale_variance(grey_variance(cell) / white_variance(cell) / 4)
        spool = HalvedFrames.of(spool)
    placement = tiled.align_frames(spool, [level.scale_by_gain(gain) for gain in gains], order)
    return placement.double_resolution(burst.spool.size) if cell else placement


def interpolate_burst(burst: LoadedBurst, folder: Path) -> LoadedBurst:
    """Interpolate the frames of a Bayer burst to RGB in the camera's colours, without white balance, as folder/rgb.f32;
    frames stored before an interruption are not interpolated again. The headers say so."""
    N, _, h, w = burst.spool.shape
    spool = FrameStore(folder / RGB_FRAMES, (N, 3, 2 * h, 2 * w))
    spool.allocate()
    known = count_stored(folder / RGB_STATS)
    for i in track(range(known, N), N - known, "interpolating"):
        for cells in burst.spool.strip_windows():
            light = interpolate_window(burst.spool, i, cells, burst.header, burst.frames[i].gain)
            spool.write_window(i, Window(2 * cells.y0, 2 * cells.y1, 0, 2 * w), light)
        write_atomically(folder / RGB_STATS, json.dumps({"frames": i + 1}).encode())
    return replace(burst, headers=tuple(replace(header, colour="rgb") for header in burst.headers), spool=spool)


def interpolate_window(spool: FrameStore, frame: int, cells: Window, header: Header, white: float = 1.0) -> Planes:
    """Interpolate a window of cells of a frame's planes, which are cut off at white, to RGB (3, 2 h, 2 w)."""
    assert header.sensor is not None
    planes = spool.read_window(frame, cells.grow(CELLS_AROUND))[:4]
    mosaic = to_mosaic(planes, header.sensor.pattern)
    around = 2 * CELLS_AROUND
    light = interpolate_mosaic(mosaic, header.sensor.pattern, header.rendering.gains, white)
    return light[:, around:-around, around:-around]
