"""Rendering of a denoised picture in a frame store for display, strip by strip: corrections of the lens, demosaicking,
white balance, colours, tone curve, orientation. Rows of strips are those of the upright picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import PLANE_CHANNELS, to_mosaic
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.lens_corrections import LensCorrections
from klarsicht.burst.data.photograph import Header, Planes
from klarsicht.burst.files import demosaic
from klarsicht.burst.files.corrected_light import apply_gains, colour_gains, correct_colours, plane_gains
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.pixel_depths import to_uint16
from klarsicht.numerics.imaging.tone import tone_curve

Shown = npt.NDArray[np.float32]  # H W C in [0, 1]

ROWS = 256  # of a strip
WHITE_QUANTILE = 0.995  # of the brightest colours, mapped to white: brightening takes hardly any highlight
MAX_BRIGHTENING = 8.0
SAMPLE = 512  # side of the thumbnail from which the brightening is computed


@dataclass(frozen=True, eq=False)
class Renderer:
    """The rendering of one frame of a store. brightening: the factor that light is multiplied by first."""

    spool: FrameStore
    header: Header
    brightening: float = 1.0
    frame: int = 0

    @classmethod
    def from_header(cls, spool: FrameStore, header: Header) -> Renderer:
        """Create a renderer. Raw light is brightened until its brightest parts are white, at most 8 times."""
        renderer = cls(spool, header)
        return renderer.with_brightening if header.is_raw else renderer

    @property
    def for_display(self) -> Renderer:
        """The same renderer, except that linear codes are brightened and tone-mapped as raw light is."""
        if self.header.is_raw or self.header.curve != "none":
            return self
        return replace(self, header=replace(self.header, curve="srgb")).with_brightening

    @property
    def with_brightening(self) -> Renderer:
        """The same renderer with the brightening, from 1 to 8, that makes the 99.5 % quantile of the brightest colours
        white."""
        top = float(np.quantile(self._brightest_colours, WHITE_QUANTILE))
        return replace(self, brightening=float(np.clip(1 / max(top, 1e-6), 1.0, MAX_BRIGHTENING)))

    @property
    def _brightest_colours(self) -> npt.NDArray[np.float32]:
        """Compute the brightest colour (h, w) of the thumbnail before brightening, balanced or converted to sRGB."""
        balanced = self.thumbnail(SAMPLE, developed=False) * np.array(self.header.rendering.gains, np.float32)
        converted = balanced @ np.array(self.header.rendering.matrix, np.float32).T
        return np.maximum(balanced.max(-1), converted.max(-1))

    @property
    def lines(self) -> tuple[str, ...]:
        """The line for the user on what brightening does to the picture; none where it is not brightened."""
        if self.brightening == 1:
            return ()
        before = self._brightest_colours
        lost = float(np.mean((before <= 1) & (before * self.brightening > 1)))
        return (f"picture: light times {self.brightening:.2f}, which makes {lost:.1%} of it white; a DNG keeps all",)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright picture."""
        height, width = self.header.size
        return (width, height) if self.header.orientation >= 5 else (height, width)

    @property
    def channels(self) -> int:
        """The number of channels of the rendered picture: 1 for grey, else 3."""
        return 1 if self.header.colour == "grey" else 3

    def render_strips(self) -> Iterator[npt.NDArray[np.uint16]]:
        """Yield upright strips (rows, W, C) from top to bottom, 16 bits."""
        for first in range(0, self.size[0], ROWS):
            window = stored_window(first, min(first + ROWS, self.size[0]), self.header.size, self.header.orientation)
            yield to_uint16(turn_upright(self.render_window(window), self.header.orientation))

    def render_window(self, window: Window) -> Shown:
        """Render a window (h, w, C) of the picture as stored, not turned upright."""
        return self.develop(self.linear_window(window))

    def linear_window(self, window: Window) -> Planes:
        """Read a window (C, h, w) of linear light, corrected for the lens, demosaicked to the camera's colours; what a
        correction lifts above white is not cut off."""
        return correct_colours(self.header.lens, window, self._camera_window, self.header.size)

    def _camera_window(self, window: Window) -> Planes:
        """Read a window (C, h, w) of colours before the corrections for colours. A mosaic is balanced for the filters,
        which take a grey surface to have equal samples, and the result is not."""
        if self.header.sensor is None or self.header.colour != "mosaic":
            return self._stored_window(window)
        cells = Window(window.y0 // 2, -(-window.y1 // 2), window.x0 // 2, -(-window.x1 // 2)).grow(
            demosaic.MARGIN // 2
        )
        gains = np.array(self.header.rendering.gains, np.float32)[:, None, None]
        planes = self._stored_window(cells) * gains[list(PLANE_CHANNELS)]
        mosaic = to_mosaic(planes, self.header.sensor.pattern)
        rgb = demosaic.interpolate_colours(mosaic, self.header.sensor.pattern) / gains
        y, x = window.y0 - 2 * cells.y0, window.x0 - 2 * cells.x0
        return rgb[:, y : y + window.size[0], x : x + window.size[1]]

    def _stored_window(self, window: Window) -> Planes:
        """Read a window of the store, planes (4, h, w) or colours (C, h, w), with the gains for the mosaic."""
        planes = 4 if self.header.colour == "mosaic" else self.channels
        light = self.spool.read_window(self.frame, window)[:planes]
        return apply_gains(light, self.sample_gains(window)) if self.header.lens.on_samples else light

    def sample_gains(self, window: Window) -> Planes:
        """Compute the gains of the mosaic's samples in a window of the store, as `_stored_window` applies them."""
        if not self.header.lens.on_samples:
            return np.ones((self.channels, *window.size), np.float32)
        assert self.header.sensor is not None
        gains_of = plane_gains if self.header.colour == "mosaic" else colour_gains
        return gains_of(self.header.lens, window, self.spool.size, self.header.sensor.pattern)

    def develop(self, light: Planes) -> Shown:
        """Apply white balance, the conversion to sRGB's primaries and its tone curve to light (C, h, w); white stays
        white. Linear codes (curve "none") are only clipped."""
        rendering = self.header.rendering
        if self.header.is_raw:
            gains = np.array(rendering.gains, np.float32)[:, None, None] * np.float32(self.brightening)
            balanced = np.clip(light * gains, 0, 1)
            light = np.einsum("ij,jhw->ihw", np.array(rendering.matrix, np.float32), balanced)
        else:
            light = light * np.float32(self.brightening)
        if not self.header.is_raw and self.header.curve == "none":
            return np.moveaxis(np.clip(light, 0, 1), 0, -1)
        return np.moveaxis(tone_curve(np.clip(light, 0, 1)), 0, -1).astype(np.float32)

    def for_other_frame(self, spool: FrameStore, frame: int, gain: float) -> Renderer:
        """Return the same rendering of a frame of another store, whose light was multiplied by a gain."""
        return replace(self, spool=spool, frame=frame, brightening=self.brightening / gain)

    def trust_map(self, side: int) -> npt.NDArray[np.float32]:
        """Return the store's last channel, the trust in the burst, as means (h, w), upright, at most `side` large."""
        block = max(1, -(-max(self.spool.size) // side))
        rows = [_blocks(light[-1:], block) for _, light in self.spool.read_strips(0, block)]
        trust = np.repeat(np.concatenate(rows, 1), 3, 0)
        return turn_upright(
            self._correct_blocks(trust, self.header.lens.warps_alone, block)[1], self.header.orientation
        )

    def _correct_blocks(self, light: Planes, lens: LensCorrections, block: int) -> Planes:
        """Apply the corrections for colours to means (3, h, w) of blocks of the store's pixels."""
        size = (light.shape[1], light.shape[2])
        step = 2 * block if self.header.colour == "mosaic" else block

        def read(window: Window) -> Planes:
            return light[:, window.y0 : window.y1, window.x0 : window.x1]

        return correct_colours(lens, Window(0, size[0], 0, size[1]), read, size, step)

    def thumbnail(self, side: int, developed: bool = True) -> Shown:
        """Return a reduced upright picture (h, w, C), at most `side` large, from means of blocks, of a mosaic those of
        its planes. developed: apply `develop`; otherwise it is linear."""
        block = max(1, -(-max(self.spool.size) // side))
        rows = [_blocks(self._stored_window(window), block) for window in self.spool.strip_windows(block)]
        light = np.concatenate([row for row in rows if row.shape[1]], 1)
        if len(light) == 4:
            light = np.stack([light[0], light[1:3].mean(0), light[3]])
        light = self._correct_blocks(light, self.header.lens, block)
        shown = self.develop(light) if developed else np.moveaxis(light, 0, -1)
        return turn_upright(shown, self.header.orientation)


def _blocks(light: Planes, side: int) -> Planes:
    """Average (C, H, W) over blocks of side x side."""
    C, H, W = light.shape
    Y, X = H // side, W // side
    return light[:, : Y * side, : X * side].reshape(C, Y, side, X, side).mean((2, 4))


def stored_window(first: int, last: int, size: tuple[int, int], orientation: int) -> Window:
    """Return the window of the stored picture of that size that holds rows first to last of the upright picture."""
    H, W = size
    if orientation in (1, 2):
        return Window(first, last, 0, W)
    if orientation in (3, 4):
        return Window(H - last, H - first, 0, W)
    if orientation in (5, 6):
        return Window(0, H, first, last)
    return Window(0, H, W - last, W - first)
