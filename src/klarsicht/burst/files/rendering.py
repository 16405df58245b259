"""A denoised picture from its spool to what a viewer shows: colours, white balance, tone, upright, strip by strip.

Axes: C channels, H W pixels of the picture as stored; rows are those of the upright one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import to_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header, Planes
from klarsicht.burst.files import demosaic
from klarsicht.ground.images import to_uint16
from klarsicht.numerics.imaging.tone import tone_curve

Shown = npt.NDArray[np.float32]  # H W C in [0, 1]

ROWS = 256  # of a strip
BRIGHT = 0.995  # of the light of a raw frame is made to lie below white
MOST_LIFT = 8.0
SAMPLE = 512  # side of the small picture that decides how bright


@dataclass(frozen=True, eq=False)
class Renderer:
    """How one picture of a spool is developed. lift: what light is multiplied by first."""

    spool: FrameStore
    header: Header
    lift: float = 1.0
    frame: int = 0

    @classmethod
    def of(cls, spool: FrameStore, header: Header) -> Renderer:
        """Raw light is brightened until its brightest parts are white, at most 8 times; pictures are left as they
        were."""
        room = cls(spool, header)
        return room.brightened if header.colour == "mosaic" else room

    @property
    def to_look_at(self) -> Renderer:
        """The same, but that linear codes, which files keep, are developed as raw light is."""
        if self.header.colour == "mosaic" or self.header.curve != "none":
            return self
        return replace(self, header=replace(self.header, curve="srgb")).brightened

    @property
    def brightened(self) -> Renderer:
        light = self.small(SAMPLE, toned=False)
        top = float(np.quantile(light[..., 1] if self.header.colour == "mosaic" else light.max(-1), BRIGHT))
        return replace(self, lift=float(np.clip(1 / max(top, 1e-6), 1.0, MOST_LIFT)))

    @property
    def size(self) -> tuple[int, int]:
        """Of the upright picture."""
        height, width = self.header.size
        return (width, height) if self.header.orientation >= 5 else (height, width)

    @property
    def channels(self) -> int:
        return 1 if self.header.colour == "grey" else 3

    def strips(self) -> Iterator[npt.NDArray[np.uint16]]:
        """(rows, W, C) from top to bottom, 16 bits."""
        for first in range(0, self.size[0], ROWS):
            window = stored(first, min(first + ROWS, self.size[0]), self.header.size, self.header.orientation)
            yield to_uint16(turned(self.part(window), self.header.orientation))

    def part(self, window: Window) -> Shown:
        """(h, w, C) of a window of the stored picture, as it is shown but not upright."""
        return self.toned(self.light(window))

    def light(self, window: Window) -> Planes:
        """(C, h, w): linear, of the camera's colours for a mosaic."""
        if self.header.sensor is None:
            return self.spool.window(self.frame, window)[: self.channels]
        cells = Window(window.y0 // 2, -(-window.y1 // 2), window.x0 // 2, -(-window.x1 // 2)).grown(
            demosaic.MARGIN // 2
        )
        mosaic = to_mosaic(self.spool.window(self.frame, cells)[:4], self.header.sensor.pattern)
        rgb = demosaic.demosaiced(mosaic, self.header.sensor.pattern)
        y, x = window.y0 - 2 * cells.y0, window.x0 - 2 * cells.x0
        return rgb[:, y : y + window.size[0], x : x + window.size[1]]

    def toned(self, light: Planes) -> Shown:
        """Balanced, in sRGB's primaries, under its curve; white stays white."""
        rendering = self.header.rendering
        if self.header.colour == "mosaic":
            gains = np.array(rendering.gains, np.float32)[:, None, None] * np.float32(self.lift)
            balanced = np.clip(light * gains, 0, 1)
            light = np.einsum("ij,jhw->ihw", np.array(rendering.matrix, np.float32), balanced)
        else:
            light = light * np.float32(self.lift)
        if self.header.colour != "mosaic" and self.header.curve == "none":
            return np.moveaxis(np.clip(light, 0, 1), 0, -1)
        shown: Shown = np.moveaxis(tone_curve(np.clip(light, 0, 1)), 0, -1).astype(np.float32)
        return shown

    def beside(self, spool: FrameStore, frame: int, gain: float) -> Renderer:
        """The same development of another picture, which was multiplied by a gain."""
        return replace(self, spool=spool, frame=frame, lift=self.lift / gain)

    def trust(self, side: int) -> npt.NDArray[np.float32]:
        """(h, w) in [0, 1], at most `side` large, upright: how far the burst was trusted, the spool's last channel."""
        block = max(1, -(-max(self.spool.size) // side))
        rows = [_blocks(light[-1:], block)[0] for _, light in self.spool.strips(0, block)]
        upright: npt.NDArray[np.float32] = turned(np.concatenate(rows), self.header.orientation)
        return upright

    def small(self, side: int, toned: bool = True) -> Shown:
        """(h, w, C), at most `side` large, upright: means of blocks, of a mosaic its planes."""
        block = max(1, -(-max(self.spool.size) // side))
        planes = 4 if self.header.colour == "mosaic" else self.channels
        rows = [_blocks(light[:planes], block) for _, light in self.spool.strips(self.frame, block)]
        light = np.concatenate([row for row in rows if row.shape[1]], 1)
        if planes == 4:
            light = np.stack([light[0], light[1:3].mean(0), light[3]])
        shown = self.toned(light) if toned else np.moveaxis(light, 0, -1)
        upright: Shown = turned(shown, self.header.orientation)
        return upright


def _blocks(light: Planes, side: int) -> Planes:
    C, H, W = light.shape
    Y, X = H // side, W // side
    means: Planes = light[:, : Y * side, : X * side].reshape(C, Y, side, X, side).mean((2, 4))
    return means


def stored(first: int, last: int, size: tuple[int, int], orientation: int) -> Window:
    """Where rows of the upright picture lie in the stored one, whose size is given."""
    H, W = size
    if orientation in (1, 2):
        return Window(first, last, 0, W)
    if orientation in (3, 4):
        return Window(H - last, H - first, 0, W)
    if orientation in (5, 6):
        return Window(0, H, first, last)
    return Window(0, H, W - last, W - first)


def turned(picture: Any, orientation: int) -> Any:
    """(h, w, ...) as stored, upright: TIFF's eight ways."""
    flips = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    down, right = flips.get(orientation, (0, 0))
    upright = np.swapaxes(picture, 0, 1) if orientation >= 5 else picture
    return upright[:: -1 if down else 1, :: -1 if right else 1]
