"""Warping of a window of one frame by a displacement that is affine in each tile, compiled.

Tile (r, q) of a window's mesh (`tile_grid`) shows at pixel p what the frame shows at p + shift + turn (p - c), c the
tile's centre. Keys' cubic convolution (1981) reads between pixels. Where no tile turns, its row of pixels shares its
taps; where the four tiles of a pixel agree to a thousandth of a pixel, it is read once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from klarsicht.burst.align.tile_grid import Mesh, cubic_taps
from klarsicht.burst.data.photograph import Planes

TILE_SIDE = 64  # of a tile
STEP = TILE_SIDE // 2
SAME = 1e-3  # pixels


def warp_frame(
    frame: Planes, shifts: npt.NDArray[np.float32], mesh: Mesh, turns: npt.NDArray[np.float32] | None = None
) -> Planes:
    """Compute tile_grid.warp of one frame (C, ...), whose shifts (Y, X, 2) count from its corner and change by turns
    (Y, X, 2, 2) with the place. All that is read must lie inside it."""
    out = np.empty((frame.shape[0], mesh.height, mesh.width), np.float32)
    below, right = (mesh.fade_weights(axis, 1, torch.device("cpu")).numpy() for axis in (0, 1))
    if turns is not None and turns.any():
        accumulate_turned_tiles(frame, shifts, turns, below, right, out)
        return out
    first = np.floor(shifts)
    taps = cubic_taps(torch.from_numpy(shifts - first)).numpy()
    accumulate_tiles(frame, first.astype(np.int64), taps, below, right, out)
    return out


@njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def accumulate_turned_tiles(
    seen: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    turns: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Warp pixel by pixel."""
    C, H, W = out.shape
    at = np.empty((4, 2), np.float32)
    weights = np.empty(4, np.float32)
    taps = np.empty((2, 4), np.float32)
    for y in range(H):
        r = y // STEP
        for x in range(W):
            q = x // STEP
            for k in range(4):
                i, j = k // 2, k % 2
                v, u = np.float32(y - (r + i) * STEP + 0.5), np.float32(x - (q + j) * STEP + 0.5)
                turn, shift = turns[r + i, q + j], shifts[r + i, q + j]
                at[k, 0] = shift[0] + turn[0, 0] * v + turn[0, 1] * u
                at[k, 1] = shift[1] + turn[1, 0] * v + turn[1, 1] * u
                weights[k] = (below[y] if i else 1 - below[y]) * (right[x] if j else 1 - right[x])
            parts = 4
            if np.abs(at[1:] - at[0]).max() < SAME:
                parts, weights[0] = 1, np.float32(1)
            out[:, y, x] = 0
            for k in range(parts):
                a, b = np.int64(np.floor(at[k, 0])), np.int64(np.floor(at[k, 1]))
                for axis in range(2):
                    t = at[k, axis] - (a if axis == 0 else b)
                    taps[axis, 0] = ((-t + 2) * t - 1) * t / 2
                    taps[axis, 1] = ((3 * t - 5) * t * t + 2) / 2
                    taps[axis, 2] = ((-3 * t + 4) * t + 1) * t / 2
                    taps[axis, 3] = (t - 1) * t * t / 2
                for c in range(C):
                    total = np.float32(0)
                    for m in range(4):
                        line = seen[c, y + a - 1 + m]
                        first = x + b - 1
                        total += taps[0, m] * (
                            taps[1, 0] * line[first]
                            + taps[1, 1] * line[first + 1]
                            + taps[1, 2] * line[first + 2]
                            + taps[1, 3] * line[first + 3]
                        )
                    out[c, y, x] += weights[k] * total


@njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def accumulate_tiles(
    seen: npt.NDArray[np.float32],
    first: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Warp by row of a cell, whose pixels share shifts and taps of their four tiles: first down, then across."""
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
def accumulate_agreement(
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
