"""Alignment of frames of any size in bounded memory: whole frames at reduced size, then tiles, region by region.

The method is that of `alignment`. The regions do not depend on the available memory, so the result does not either.

Axes: N frames, C channels, H W pixels, Y X tiles of the mesh; n, h, w the counts of one read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import avg_pool2d

from klarsicht.burst.align.alignment import COARSE, GlobalShifts, align_tiles, align_whole_frames, stabilised_grey
from klarsicht.burst.align.tile_grid import Mesh, cubic_taps
from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

TILE_SIDE = 64  # of a tile
STEP = TILE_SIDE // 2
READS = 2  # pixels on each side that subpixel interpolation reads
SNAPPED, SNAPPED_TILE, SNAPPED_OUTLIER = 0.15, 0.35, 0.5
"""Pixels from whole ones: of a frame on a tripod, of most of its tiles, and of those that did not move by themselves.
Of 13 bursts of 192 x 192 pixels of a camera at rest, all but one at gain 8 and one at gain 4 lie within."""
COINCIDING_TILES = 0.8  # share of a frame's tiles
REGION, REGION_MARGIN = 24 * STEP, 2 * STEP  # pixels: side of a region that is aligned at once, and its margin
REGION_FRAMES, MIN_REGION = (
    16,
    4 * STEP,
)  # frames of a full region; with more, regions shrink, down to this side


@dataclass(frozen=True, eq=False)
class Placement:
    """The alignment of a burst. fine: (N, Y, X, 2), aligned frames show at p what the frame shows at p + fine; shifts:
    the same in whole pixels. agrees: (N, Y, X), whether the tile shows what the reference shows. rest: (N, 2), the part
    of the whole frame's shift that rounding removed."""

    fine: npt.NDArray[np.float32]
    shifts: npt.NDArray[np.int64]
    agrees: npt.NDArray[np.bool_]
    rest: npt.NDArray[np.float64]

    def select(self, frames: Sequence[int]) -> Placement:
        """Return the placement of some of the frames."""
        chosen = list(frames)
        return Placement(self.fine[chosen], self.shifts[chosen], self.agrees[chosen], self.rest[chosen])

    @property
    def coincides(self) -> bool:
        """Whether all frames but the reference are read mostly without interpolation."""
        return len(self.fine) > 1 and bool(self._uninterpolated[1:].mean((1, 2)).min() >= COINCIDING_TILES)

    @property
    def _uninterpolated(self) -> npt.NDArray[np.bool_]:
        """Whether each tile (N, Y, X) is read without interpolation."""
        whole: npt.NDArray[np.bool_] = (self.fine == self.shifts).all(-1)
        return whole

    def snap_to_pixels(self) -> Placement:
        """Round all shifts to whole pixels, if the frames coincide with the reference on the sensor, as on a tripod:
        each within SNAPPED pixels of a whole shift as a whole, and in most of its tiles within SNAPPED_TILE. A tile that
        is further off moved by itself and stays. Rounding keeps noise white and loses no detail to interpolation;
        hand-held bursts hardly ever are so near, and stay as they are."""
        whole = np.rint(np.median(self.fine, (1, 2)))[:, None, None]
        off = np.abs(self.fine - whole).max(-1)
        near = (off <= SNAPPED_TILE).mean((1, 2)) >= COINCIDING_TILES
        if not (near & (np.abs(self.rest).max(-1) <= SNAPPED)).all():
            return self
        fine = np.where((off <= SNAPPED_OUTLIER)[..., None], whole, self.fine).astype(np.float32)
        return replace(self, fine=fine, shifts=np.rint(fine).astype(np.int64))

    def agreement_share(self, frame: int) -> float:
        """Return the share of tiles in which a frame agrees with the reference."""
        return float(self.agrees[frame].mean())

    def read_aligned(self, spool: FrameStore, frames: Sequence[int], window: Window) -> Frames:
        """Read a window (n, C, h, w) of aligned frames, interpolated between pixels; the window must begin at multiples
        of STEP. frames: the indices in the store of this placement's frames, in its order."""
        return np.stack([self._read(spool, i, self.fine[k], window) for k, i in enumerate(frames)])

    def read_whole_pixels(self, spool: FrameStore, frame: int, k: int, window: Window) -> Planes:
        """Read a window (C, h, w) of the k-th frame aligned by whole pixels, which keeps its noise white."""
        return self._read(spool, frame, self.shifts[k].astype(np.float32), window)

    def interpolate_noise(self, noise: Planes, k: int, window: Window) -> Planes:
        """Apply the subpixel interpolation of the k-th frame's window to white noise (C, h, w)."""
        mesh, part = _mesh(window)
        fraction = (self.fine[k] - self.shifts[k])[part]
        wide = np.pad(noise, ((0, 0), (READS, READS), (READS, READS)), mode="reflect")
        return _warp_frame(wide, fraction + np.float32(READS), mesh)

    def agreement(self, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Compute the agreement (N, h, w) in [0, 1], blended from tile to tile; 0 where the shift leads outside a frame
        of that size."""
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
            _accumulate_agreement(agrees, shifts + np.array([window.y0, window.x0]), below, right, size, one)
        return out

    def _read(self, spool: FrameStore, frame: int, shifts: npt.NDArray[np.float32], window: Window) -> Planes:
        """Read a window of one frame, warped by shifts (Y, X, 2) of the whole mesh."""
        mesh, part = _mesh(window)
        here = shifts[part]
        middle = np.rint(np.median(here, (0, 1))).astype(np.int64)
        reach = int(np.ceil(np.abs(here - middle).max())) + READS
        seen = spool.read_window(frame, window.translate(*middle.tolist()).grow(reach))
        return _warp_frame(seen, (here - middle + reach).astype(np.float32), mesh)


def _mesh(window: Window) -> tuple[Mesh, tuple[slice, slice]]:
    """Return the mesh over a window, and the slices of its tiles in the whole frame's mesh."""
    assert window.y0 % STEP == window.x0 % STEP == 0
    mesh = Mesh(*window.size, TILE_SIDE)
    Y, X = mesh.shape
    y, x = window.y0 // STEP, window.x0 // STEP
    return mesh, (slice(y, y + Y), slice(x, x + X))


def _warp_frame(seen: Planes, shifts: npt.NDArray[np.float32], mesh: Mesh) -> Planes:
    """Compute tile_grid.warp of one frame (C, ...), whose shifts (Y, X, 2) count from its top left corner and stay
    inside it."""
    first = np.floor(shifts)
    taps = cubic_taps(torch.from_numpy(shifts - first)).numpy()
    below, right = (mesh.fade_weights(axis, 1, torch.device("cpu")).numpy() for axis in (0, 1))
    out = np.empty((seen.shape[0], mesh.height, mesh.width), np.float32)
    _accumulate_tiles(seen, first.astype(np.int64), taps, below, right, out)
    return out


@njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def _accumulate_tiles(
    seen: npt.NDArray[np.float32],
    first: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Warp by row of a cell, because its pixels share the shifts and taps of their four tiles: first down, then
    across."""
    C, H, W = out.shape
    line = np.empty(STEP + 3, np.float32)
    for y in range(H):
        r, a = y // STEP, below[y]
        for x0 in range(0, W, STEP):
            q, n = x0 // STEP, min(STEP, W - x0)
            out[:, y, x0 : x0 + n] = 0
            for i in range(2):
                for j in range(2):
                    down, across = taps[r + i, q + j]
                    v, u = y + first[r + i, q + j, 0] - 1, x0 + first[r + i, q + j, 1] - 1
                    weight = a if i else 1 - a
                    for c in range(C):
                        line[:] = 0
                        for k in range(4):
                            if down[k]:
                                for x in range(n + 3):
                                    line[x] += weight * down[k] * seen[c, v + k, u + x]
                        for x in range(n):
                            b = right[x0 + x] if j else 1 - right[x0 + x]
                            value = across[0] * line[x] + across[1] * line[x + 1]
                            value += across[2] * line[x + 2] + across[3] * line[x + 3]
                            out[c, y, x0 + x] += b * value


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _accumulate_agreement(
    agrees: npt.NDArray[np.bool_],
    shifts: npt.NDArray[np.int64],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    size: tuple[int, int],
    out: npt.NDArray[np.float32],
) -> None:
    """Compute Mesh.blend of the tiles that agree and lie inside; shifts count from the frame's corner."""
    for y in range(out.shape[0]):
        r, a = y // STEP, below[y]
        for x in range(out.shape[1]):
            q, b = x // STEP, right[x]
            total = np.float32(0)
            for i in range(2):
                for j in range(2):
                    v, u = y + shifts[r + i, q + j, 0], x + shifts[r + i, q + j, 1]
                    if agrees[r + i, q + j] and 0 <= v < size[0] and 0 <= u < size[1]:
                        total += (a if i else 1 - a) * (b if j else 1 - b)
            out[y, x] = total


def align_frames(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> Placement:
    """Align the frames of a store whose indices are given, the first of which is the reference. noise: of each frame of
    the store."""
    if len(frames) == 1:
        shape = Mesh(*spool.size, TILE_SIDE).shape
        nowhere = np.zeros((1, *shape, 2), np.int64)
        return Placement(nowhere.astype(np.float32), nowhere, np.ones((1, *shape), bool), np.zeros((1, 2)))
    whole = whole_shifts(spool, noise, frames)
    start = whole.shifts[0].round()
    fine = np.zeros((len(frames), *Mesh(*spool.size, TILE_SIDE).shape, 2), np.float32)
    agrees = np.ones(fine.shape[:-1], bool)
    parts = regions(spool.size, len(frames))
    for region in track(parts, len(parts), "alignment"):
        outer = region.grow(REGION_MARGIN).clip_to(spool.size)
        light = torch.stack(
            [
                _guide(spool.read_window(i, outer.translate(int(dy), int(dx))), noise[i])
                for i, (dy, dx) in zip(frames, start.tolist(), strict=True)
            ]
        )[None]
        valid = torch.ones(light.shape[:2], dtype=torch.bool)
        found = align_tiles(
            light, valid, GlobalShifts(whole.shifts - start, whole.confidence), Mesh(*outer.size, TILE_SIDE)
        )
        here, there = _tiles_of(region, outer, spool.size)
        fine[:, *here] = (found.fine[0, :, *there] + start[:, None, None]).numpy()
        agrees[:, *here] = found.agrees[0, :, *there].numpy()
    rest = (whole.shifts[0] - start).numpy().astype(np.float64)
    return Placement(fine, np.rint(fine).astype(np.int64), agrees, rest)


def regions(size: tuple[int, int], frames: int) -> list[Window]:
    """Return windows that cover a picture, and that with their margins hold about as many pixels of all frames
    together, however many frames there are."""
    outer = (REGION + 2 * REGION_MARGIN) * min(1.0, REGION_FRAMES / frames) ** 0.5
    (H, W), side = size, max(MIN_REGION, int(outer - 2 * REGION_MARGIN) // STEP * STEP)
    return [Window(y, min(y + side, H), x, min(x + side, W)) for y in range(0, H, side) for x in range(0, W, side)]


def _tiles_of(region: Window, outer: Window, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the tiles of the whole mesh that a region determines (each region its first ones, the last
    region also the last), and their slices in the outer window's own mesh."""
    here, there = [], []
    for start, stop, first, end in (
        (region.y0, region.y1, outer.y0, size[0]),
        (region.x0, region.x1, outer.x0, size[1]),
    ):
        a, b = start // STEP, -(-stop // STEP) + (stop == end)
        here.append(slice(a, b))
        there.append(slice(a - first // STEP, b - first // STEP))
    return (here[0], here[1]), (there[0], there[1])


def whole_shifts(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> GlobalShifts:
    """Estimate the shifts of whole frames at a reduced size that fits into memory. noise: of each frame of the store,
    selected or not."""
    shrink = 1
    while max(spool.size) > COARSE * shrink:
        shrink *= 2
    small = torch.stack([_shrunk_guide(spool, i, noise[i], shrink) for i in frames])[None]
    whole = align_whole_frames(small, torch.ones(small.shape[:2], dtype=torch.bool))
    return GlobalShifts(whole.shifts * shrink, whole.confidence)


def _shrunk_guide(spool: FrameStore, frame: int, noise: NoiseLevel, shrink: int) -> Tensor:
    """Return a reduced grey picture (h, w) with noise of deviation 1; a remainder at the right and bottom is
    dropped."""
    parts = [_guide(light, noise) for _, light in spool.read_strips(frame, shrink)]
    return torch.cat([avg_pool2d(part[None], shrink)[0] * shrink for part in parts if len(part) >= shrink])


def _guide(light: npt.NDArray[np.float32], noise: NoiseLevel) -> Tensor:
    """Convert (C, h, w) to one grey picture (h, w) with noise of deviation 1."""
    read, shot = torch.tensor([max(noise.read, 1e-6)]), torch.tensor([max(noise.shot, 1e-9)])
    return stabilised_grey(torch.from_numpy(light)[None, None], read, shot)[0, 0]
