"""Samples of a raw burst behind a mosaic, Bayer or X-Trans, with their placement and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.cokriging import cell_side, colour_numbers, take_samples
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SAME_PARTS = (
    0.9  # resultant of the parts of a pixel by which frames shift, from which they are alike: 0.07 pixels apart
)


@dataclass(frozen=True)
class MosaicFrames(FrameStore):
    """Mosaics (N, 1, H, W) of the frames of another store: of Bayer planes, or of colours interpolated behind X-Trans,
    which keep what was measured. cell: letters of the mosaic."""

    source: FrameStore
    cell: str

    @classmethod
    def of(cls, source: FrameStore, cell: str) -> MosaicFrames:
        N, C, H, W = source.shape
        factor = 2 if C == 4 else 1
        return cls(source.path, (N, 1, factor * H, factor * W), source, cell)

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        if self.source.shape[1] != 4:
            light = self.source.read_window(frame, inside)
            return take_samples(light, self.cell, inside.y0, inside.x0)[None]
        cells = Window(inside.y0 // 2, -(-inside.y1 // 2), inside.x0 // 2, -(-inside.x1 // 2))
        mosaic = to_mosaic(self.source.read_window(frame, cells), self.cell)
        there = inside.slices_in(Window(2 * cells.y0, 2 * cells.y1, 2 * cells.x0, 2 * cells.x1))
        return np.ascontiguousarray(mosaic[there])[None]


@dataclass(frozen=True, eq=False)
class SampledBurst:
    """Samples of frames and where they lie. spool: mosaics of all frames of a burst. frames: the numbers of those used,
    the reference first, in the order of the placement. gains: the factor on each of these. noise: of samples of R, G
    and B at gain 1. neutral: (3,), R, G and B of a grey surface, the largest being 1."""

    spool: MosaicFrames
    placement: Placement
    frames: Sequence[int]
    gains: Sequence[float]
    noise: Sequence[NoiseLevel]
    neutral: npt.NDArray[np.float32]

    @property
    def colours(self) -> npt.NDArray[np.int64]:
        """The colour of each place of a cell, 0 to 2."""
        return colour_numbers(self.spool.cell)

    @property
    def shifts_by_parts(self) -> bool:
        """Whether the frames shift by different parts of a pixel, so that their samples lie between each other: by the
        median over tiles of the resultant of these parts, as directions, along rows or columns."""
        parts = np.exp(2j * np.pi * self.placement.fine.astype(np.float64))
        return bool(np.median(np.abs(parts.mean(0)), (0, 1)).min() < SAME_PARTS)

    def with_placement(self, placement: Placement) -> SampledBurst:
        """Return the same samples, placed otherwise."""
        return replace(self, placement=placement)

    def frame_noise(self, k: int) -> npt.NDArray[np.float64]:
        """Return read variance and shot coefficient (3, 2) of the k-th frame's samples."""
        levels = [level.scale_by_gain(self.gains[k]) for level in self.noise]
        return np.array([(level.read**2, level.shot) for level in levels])

    def colours_in(self, window: Window) -> npt.NDArray[np.int64]:
        """Return the colours (h, w) of the samples of a window."""
        side = cell_side(self.spool.cell)
        rows, columns = np.arange(window.y0, window.y1), np.arange(window.x0, window.x1)
        return self.colours[rows[:, None] % side, columns % side]

    def locate_window(self, k: int, window: Window) -> Window:
        """Return the window of the k-th frame, inside it, whose samples may show a window of the reference."""
        ends = []
        for first, last, count in zip(
            (window.y0, window.x0), (window.y1, window.x1), self.placement.fine.shape[1:3], strict=True
        ):
            begin = min(max((2 * first + 1) // (2 * STEP), 0), count - 2)
            ends.append(slice(begin, min(max(-(-last // STEP), 0), count - 2) + 2))
        fine, turns = (part[k][ends[0], ends[1]] for part in (self.placement.fine, self.placement.turns))
        around = 1 + 2 * STEP * np.abs(turns).sum(-1).max((0, 1))
        low, high = np.floor(fine.min((0, 1)) - around).astype(int), np.ceil(fine.max((0, 1)) + around).astype(int)
        return Window(
            window.y0 + int(low[0]), window.y1 + int(high[0]), window.x0 + int(low[1]), window.x1 + int(high[1])
        ).clip_to(self.spool.size)


def neutral_colours(header: Header) -> npt.NDArray[np.float32]:
    """Return R, G and B of a grey surface, by the white balance; the largest is 1."""
    return (1 / np.array(header.rendering.gains)).astype(np.float32)
