"""Frames of a Bayer burst that become RGB when they are read, by `cokriging`; and the alignment of interpolated frames,
whose noise is not white: as means of 2 x 2 pixels, where it nearly is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klarsicht.burst.align import tiled
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.cokriging import grey_variance, interpolate_mosaic, white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Planes
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

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


@dataclass(frozen=True)
class InterpolatedFrames(FrameStore):
    """Frames (N, 3, 2 h, 2 w) in the camera's colours, without white balance, interpolated from the planes of another
    store when they are read. whites: the clipped value of each frame."""

    source: FrameStore
    header: Header
    whites: tuple[float, ...]

    @classmethod
    def of(cls, burst: LoadedBurst) -> InterpolatedFrames:
        N, _, h, w = burst.spool.shape
        whites = tuple(frame.gain for frame in burst.frames)
        return cls(burst.spool.path, (N, 3, 2 * h, 2 * w), burst.spool, burst.header, whites)

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        cells = Window(inside.y0 // 2, -(-inside.y1 // 2), inside.x0 // 2, -(-inside.x1 // 2))
        light = interpolate_window(self.source, frame, cells, self.header, self.whites[frame])
        there = inside.slices_in(Window(2 * cells.y0, 2 * cells.y1, 2 * cells.x0, 2 * cells.x1))
        return np.ascontiguousarray(light[:, *there])


def interpolate_burst(burst: LoadedBurst) -> LoadedBurst:
    """Return a Bayer burst as RGB frames, which its headers say."""
    headers = tuple(replace(header, colour="rgb") for header in burst.headers)
    return replace(burst, headers=headers, spool=InterpolatedFrames.of(burst))


def interpolate_window(spool: FrameStore, frame: int, cells: Window, header: Header, white: float = 1.0) -> Planes:
    """Interpolate a window of cells of a frame's planes, which are cut off at white, to RGB (3, 2 h, 2 w)."""
    assert header.sensor is not None
    planes = spool.read_window(frame, cells.grow(CELLS_AROUND))[:4]
    mosaic = to_mosaic(planes, header.sensor.pattern)
    around = 2 * CELLS_AROUND
    light = interpolate_mosaic(mosaic, header.sensor.pattern, header.rendering.gains, white)
    return light[:, around:-around, around:-around]
