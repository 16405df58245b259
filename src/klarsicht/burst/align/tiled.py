"""Where frames of any size lie on the reference: whole frames at a small size, then tiles, region by region.

`alignment` says how; here it is done in bounded memory. Regions are always the same, whatever memory there is, so that
the result does not depend on it. Axes: N frames, C channels, H W pixels, Y X tiles of the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch.nn.functional import avg_pool2d

from klarsicht.burst.align.alignment import COARSE, Whole, guide, tiles, whole_frames
from klarsicht.burst.align.tile_grid import Mesh, cubic_taps
from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIDE = 64  # of a tile
STEP = SIDE // 2
REACH = 2  # pixels beside it that a place between pixels reads
REGION, MARGIN = 24 * STEP, 2 * STEP  # pixels: of a region that is aligned at once, and around it
MANY, LEAST = 16, 4 * STEP  # frames that such a region is for; of more, regions are smaller, down to a side of LEAST


@dataclass(frozen=True, eq=False)
class Placement:
    """fine: (N, Y, X, 2), aligned frames show at p what the frame shows at p + fine; shifts: the same in whole pixels.
    agrees: (N, Y, X), where that is what the reference shows. rest: (N, 2), what rounding took off the shift of the
    whole frame."""

    fine: npt.NDArray[np.float32]
    shifts: npt.NDArray[np.int64]
    agrees: npt.NDArray[np.bool_]
    rest: npt.NDArray[np.float64]

    def only(self, frames: Sequence[int]) -> Placement:
        chosen = list(frames)
        return Placement(self.fine[chosen], self.shifts[chosen], self.agrees[chosen], self.rest[chosen])

    def share(self, frame: int) -> float:
        """Of the tiles in which a frame shows what the reference shows."""
        return float(self.agrees[frame].mean())

    def aligned(self, spool: FrameStore, frames: Sequence[int], window: Window) -> Frames:
        """(len(frames), C, h, w): the window, which begins at multiples of STEP, of frames laid over the reference and
        read between pixels; `frames` counts those of the spool."""
        return np.stack([self._read(spool, i, self.fine[k], window) for k, i in enumerate(frames)])

    def copied(self, spool: FrameStore, frame: int, k: int, window: Window) -> Planes:
        """(C, h, w): the same of the k-th frame by whole pixels: its noise stays white."""
        return self._read(spool, frame, self.shifts[k].astype(np.float32), window)

    def between(self, noise: Planes, k: int, window: Window) -> Planes:
        """White noise (C, h, w) as reading between pixels leaves it in the window of the k-th frame."""
        mesh, part = _mesh(window)
        fraction = (self.fine[k] - self.shifts[k])[part]
        wide = np.pad(noise, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
        return _faded(wide, fraction + np.float32(REACH), mesh)

    def agreement(self, window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """(N, h, w) in [0, 1], faded from tile to tile; 0 where a frame of that size does not reach."""
        mesh, part = _mesh(window)
        out = np.empty((len(self.agrees), *window.size), np.float32)
        below, right = (mesh.faded(axis, 1, torch.device("cpu")).numpy() for axis in (0, 1))
        for shifts, agrees, one in zip(self.shifts[:, *part], self.agrees[:, *part], out, strict=True):
            _agree(agrees, shifts + np.array([window.y0, window.x0]), below, right, size, one)
        return out

    def _read(self, spool: FrameStore, frame: int, shifts: npt.NDArray[np.float32], window: Window) -> Planes:
        mesh, part = _mesh(window)
        here = shifts[part]
        middle = np.rint(np.median(here, (0, 1))).astype(np.int64)
        reach = int(np.ceil(np.abs(here - middle).max())) + REACH
        seen = spool.window(frame, window.moved(*middle.tolist()).grown(reach))
        return _faded(seen, (here - middle + reach).astype(np.float32), mesh)


def _mesh(window: Window) -> tuple[Mesh, tuple[slice, slice]]:
    """The mesh over a window, and which of the whole frame's tiles are its."""
    assert window.y0 % STEP == window.x0 % STEP == 0
    mesh = Mesh(*window.size, SIDE)
    Y, X = mesh.shape
    y, x = window.y0 // STEP, window.x0 // STEP
    return mesh, (slice(y, y + Y), slice(x, x + X))


def _faded(seen: Planes, shifts: npt.NDArray[np.float32], mesh: Mesh) -> Planes:
    """mesh.warp of one frame (C, ...), whose shifts (Y, X, 2) count from its top left corner and stay inside it."""
    first = np.floor(shifts)
    taps = cubic_taps(torch.from_numpy(shifts - first)).numpy()
    below, right = (mesh.faded(axis, 1, torch.device("cpu")).numpy() for axis in (0, 1))
    out = np.empty((seen.shape[0], mesh.height, mesh.width), np.float32)
    _fade(seen, first.astype(np.int64), taps, below, right, out)
    return out


@njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def _fade(
    seen: npt.NDArray[np.float32],
    first: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """A row of a cell at a time, whose pixels share their four tiles' places and taps: down, then across."""
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
def _agree(
    agrees: npt.NDArray[np.bool_],
    shifts: npt.NDArray[np.int64],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    size: tuple[int, int],
    out: npt.NDArray[np.float32],
) -> None:
    """mesh.spread of what agrees and lies inside; shifts count from the frame's corner."""
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


def place(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> Placement:
    """Of the frames of a spool that are named, the first of which is the reference; noise: of each frame of the
    spool."""
    if len(frames) == 1:
        shape = Mesh(*spool.size, SIDE).shape
        nowhere = np.zeros((1, *shape, 2), np.int64)
        return Placement(nowhere.astype(np.float32), nowhere, np.ones((1, *shape), bool), np.zeros((1, 2)))
    whole = whole_shifts(spool, noise, frames)
    start = whole.shifts[0].round()
    fine = np.zeros((len(frames), *Mesh(*spool.size, SIDE).shape, 2), np.float32)
    agrees = np.ones(fine.shape[:-1], bool)
    parts = regions(spool.size, len(frames))
    for region in track(parts, len(parts), "alignment"):
        outer = region.grown(MARGIN).within(spool.size)
        light = torch.stack(
            [
                _guide(spool.window(i, outer.moved(int(dy), int(dx))), noise[i])
                for i, (dy, dx) in zip(frames, start.tolist(), strict=True)
            ]
        )[None]
        valid = torch.ones(light.shape[:2], dtype=torch.bool)
        found = tiles(light, valid, Whole(whole.shifts - start, whole.sureness), Mesh(*outer.size, SIDE))
        here, there = _tiles_of(region, outer, spool.size)
        fine[:, *here] = (found.fine[0, :, *there] + start[:, None, None]).numpy()
        agrees[:, *here] = found.agrees[0, :, *there].numpy()
    rest = (whole.shifts[0] - start).numpy().astype(np.float64)
    return Placement(fine, np.rint(fine).astype(np.int64), agrees, rest)


def regions(size: tuple[int, int], frames: int) -> list[Window]:
    """That cover a picture, and with their margins hold about as many pixels of all frames, however many those are."""
    outer = (REGION + 2 * MARGIN) * min(1.0, MANY / frames) ** 0.5
    (H, W), side = size, max(LEAST, int(outer - 2 * MARGIN) // STEP * STEP)
    return [Window(y, min(y + side, H), x, min(x + side, W)) for y in range(0, H, side) for x in range(0, W, side)]


def _tiles_of(region: Window, outer: Window, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Which tiles of the whole mesh a region decides (each region its first ones, the last region also the last), and
    which of the outer window's own they are."""
    here, there = [], []
    for start, stop, first, end in (
        (region.y0, region.y1, outer.y0, size[0]),
        (region.x0, region.x1, outer.x0, size[1]),
    ):
        a, b = start // STEP, -(-stop // STEP) + (stop == end)
        here.append(slice(a, b))
        there.append(slice(a - first // STEP, b - first // STEP))
    return (here[0], here[1]), (there[0], there[1])


def whole_shifts(spool: FrameStore, noise: Sequence[NoiseLevel], frames: Sequence[int]) -> Whole:
    """Of whole frames, at a size that fits into memory. noise: of each frame of the spool, named or not."""
    shrink = 1
    while max(spool.size) > COARSE * shrink:
        shrink *= 2
    small = torch.stack([_small(spool, i, noise[i], shrink) for i in frames])[None]
    whole = whole_frames(small, torch.ones(small.shape[:2], dtype=torch.bool))
    return Whole(whole.shifts * shrink, whole.sureness)


def _small(spool: FrameStore, frame: int, noise: NoiseLevel, shrink: int) -> Tensor:
    """(h, w), noise of deviation 1; what is left over at the right and below is not seen."""
    parts = [_guide(light, noise) for _, light in spool.strips(frame, shrink)]
    return torch.cat([avg_pool2d(part[None], shrink)[0] * shrink for part in parts if len(part) >= shrink])


def _guide(light: npt.NDArray[np.float32], noise: NoiseLevel) -> Tensor:
    """(C, h, w) as one grey picture (h, w) whose noise has deviation 1."""
    read, shot = torch.tensor([max(noise.read, 1e-6)]), torch.tensor([max(noise.shot, 1e-9)])
    return guide(torch.from_numpy(light)[None, None], read, shot)[0, 0]
