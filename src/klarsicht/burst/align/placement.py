"""Placement of a burst's frames over the reference, tile by tile, and reading of frames as they are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.align.warp_tiles import STEP, TILE_SIDE, accumulate_agreement, warp_frame
from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes

READS = 2  # pixels on each side that subpixel interpolation reads
SNAPPED, SNAPPED_TILE, SNAPPED_OUTLIER = 0.15, 0.35, 0.5
"""Pixels from whole ones: of a frame on a tripod, of most of its tiles, and of those that did not move by themselves.
Of 13 bursts of 192 x 192 pixels of a camera at rest, all but one at gain 8 and one at gain 4 lie within."""
COINCIDING_TILES = 0.8  # share of a frame's tiles


@dataclass(frozen=True, eq=False)
class Placement:
    """The alignment of a burst. fine: (N, Y, X, 2), aligned frames show at p what the frame shows at p + fine; shifts:
    in whole pixels. agrees: (N, Y, X), whether the tile shows what the reference shows. rest: (N, 2), the part of the
    frame's shift that rounding removed. turns: (N, Y, X, 2, 2), the change of `fine` from a tile's centre."""

    fine: npt.NDArray[np.float32]
    shifts: npt.NDArray[np.int64]
    agrees: npt.NDArray[np.bool_]
    rest: npt.NDArray[np.float64]
    turns: npt.NDArray[np.float32]

    def select(self, frames: Sequence[int]) -> Placement:
        """Return the placement of some of the frames."""
        return Placement(**{name: values[list(frames)] for name, values in vars(self).items()})

    @property
    def is_turned(self) -> bool:
        """Whether any frame is turned, zoomed or tilted."""
        return bool(self.turns.any())

    @property
    def coincides(self) -> bool:
        """Whether all frames but the reference are read mostly without interpolation."""
        return len(self.fine) > 1 and bool(self._uninterpolated[1:].mean((1, 2)).min() >= COINCIDING_TILES)

    @property
    def _uninterpolated(self) -> npt.NDArray[np.bool_]:
        """Whether each tile (N, Y, X) is read without interpolation."""
        return (self.fine == self.shifts).all(-1) & ~self.turns.any((-2, -1))

    def snap_to_pixels(self) -> Placement:
        """Round all shifts to whole pixels if the frames coincide on the sensor, as on a tripod: each within SNAPPED
        pixels of a whole shift, and most of its tiles within SNAPPED_TILE. A tile that is further off moved by itself
        and stays. Rounding keeps noise white and loses no detail to interpolation."""
        whole = np.rint(np.median(self.fine, (1, 2)))[:, None, None]
        off = np.abs(self.fine - whole).max(-1)
        near = (off <= SNAPPED_TILE).mean((1, 2)) >= COINCIDING_TILES
        if self.is_turned or not (near & (np.abs(self.rest).max(-1) <= SNAPPED)).all():
            return self
        fine = np.where((off <= SNAPPED_OUTLIER)[..., None], whole, self.fine).astype(np.float32)
        return replace(self, fine=fine, shifts=np.rint(fine).astype(np.int64))

    def double_resolution(self, size: tuple[int, int]) -> Placement:
        """Return the same placement for frames of twice the resolution, of that size, with tiles as large in their
        pixels. A tile between others takes their mean where they differ by less than SNAPPED_OUTLIER, else one of them,
        and agrees if all do."""
        rows, columns = (np.arange(n) / 2 for n in Mesh(*size, TILE_SIDE).shape)  # in tiles of this placement
        shifts, agrees = [], []
        for y, x in product((np.floor(rows), np.ceil(rows)), (np.floor(columns), np.ceil(columns))):
            tiles = (slice(None), y.astype(np.int64)[:, None], x.astype(np.int64))
            off = STEP * np.stack(np.broadcast_arrays((rows - y)[:, None], columns - x), -1)
            shifts.append(self.fine[tiles] + np.einsum("nyxij,yxj->nyxi", self.turns[tiles], off))
            agrees.append(self.agrees[tiles])
        alike = np.ptp(shifts, 0).max(-1, keepdims=True) < SNAPPED_OUTLIER
        fine = (2 * np.where(alike, np.mean(shifts, 0), shifts[0])).astype(np.float32)
        turns = self.turns[:, rows.astype(np.int64)[:, None], columns.astype(np.int64)]
        rest = 2 * self.rest - np.rint(2 * self.rest)
        return Placement(fine, np.rint(fine).astype(np.int64), np.all(agrees, 0), rest, turns)

    def agreement_share(self, frame: int) -> float:
        """Return the share of tiles in which a frame agrees with the reference."""
        return float(self.agrees[frame].mean())

    def read_aligned(self, spool: FrameStore, frames: Sequence[int], window: Window) -> Frames:
        """Read a window (n, C, h, w) of aligned frames, interpolated between pixels; it must begin at multiples of
        STEP. frames: the indices in the store of this placement's frames, in its order."""
        return np.stack([self._read(spool, i, self.fine[k], window, self.turns[k]) for k, i in enumerate(frames)])

    def read_whole_pixels(self, spool: FrameStore, frame: int, k: int, window: Window) -> Planes:
        """Read a window (C, h, w) of the k-th frame aligned by whole pixels, which keeps its noise white."""
        return self._read(spool, frame, self.shifts[k].astype(np.float32), window)

    def interpolate_noise(self, noise: Planes, k: int, window: Window) -> Planes:
        """Apply the subpixel interpolation of the k-th frame's window to white noise (C, h, w)."""
        mesh, part = _mesh(window)
        fraction, turns = (self.fine[k] - self.shifts[k])[part], self.turns[k][part]
        reach = _reach(turns) + READS
        wide = np.pad(noise, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
        return warp_frame(wide, (fraction + np.float32(reach)).astype(np.float32), mesh, turns)

    def agreement(self, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Compute the agreement (N, h, w) in [0, 1], blended between tiles; 0 outside a frame of that size."""
        return self._blend_tiles(self.agrees, window, size)

    def coincidence(self, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Compute the agreement (N, h, w) of those tiles that are read without interpolation."""
        return self._blend_tiles(self.agrees & self._uninterpolated, window, size)

    def _blend_tiles(
        self, chosen: npt.NDArray[np.bool_], window: Window, size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        mesh, part = _mesh(window)
        out = np.empty((len(chosen), *window.size), np.float32)
        below, right = (mesh.fade_weights(axis, 1, torch.device("cpu")).numpy() for axis in (0, 1))
        for shifts, agrees, one in zip(self.shifts[:, *part], chosen[:, *part], out, strict=True):
            accumulate_agreement(agrees, shifts + np.array([window.y0, window.x0]), below, right, size, one)
        return out

    def _read(
        self,
        spool: FrameStore,
        frame: int,
        shifts: npt.NDArray[np.float32],
        window: Window,
        turns: npt.NDArray[np.float32] | None = None,
    ) -> Planes:
        """Read a window of one frame, warped by shifts (Y, X, 2) and turns (Y, X, 2, 2) of the whole mesh."""
        mesh, part = _mesh(window)
        here, turned = shifts[part], None if turns is None else turns[part]
        middle = np.rint(np.median(here, (0, 1))).astype(np.int64)
        reach = int(np.ceil(np.abs(here - middle).max())) + READS + _reach(turned)
        seen = spool.read_window(frame, window.translate(*middle.tolist()).grow(reach))
        return warp_frame(seen, (here - middle + reach).astype(np.float32), mesh, turned)


def _reach(turns: npt.NDArray[np.float32] | None) -> int:
    """Return by how many pixels at most turns (..., 2, 2) move a pixel of a tile."""
    return 0 if turns is None else int(np.ceil(STEP * np.abs(turns).sum(-1).max(initial=0)))


def _mesh(window: Window) -> tuple[Mesh, tuple[slice, slice]]:
    """Return the mesh over a window, and the slices of its tiles in the whole frame's mesh."""
    assert window.y0 % STEP == window.x0 % STEP == 0
    mesh = Mesh(*window.size, TILE_SIDE)
    Y, X = mesh.shape
    y, x = window.y0 // STEP, window.x0 // STEP
    return mesh, (slice(y, y + Y), slice(x, x + X))
