"""Warping of a window of one frame by a displacement that is affine in each tile, compiled.

Tile (r, q) of a window's mesh (`tile_grid`) shows at pixel p what the frame shows at p + shift + turn (p - c), c the
tile's centre. Keys' cubic convolution (1981) reads between pixels. Where no tile turns, its row of pixels shares its
taps; where the four places of a pixel lie within ONE_PLACE, it is read once, at their mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from klarsicht.burst.align.tile_grid import Mesh, cubic_taps
from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.compiled.jit import compile_with

TILE_SIDE = 64  # of a tile
STEP = TILE_SIDE // 2
ONE_PLACE = 0.1  # pixels


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


@njit(nogil=True, fastmath=True, inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _keys_taps(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Compute tile_grid.cubic_taps of one place."""
    one, two, three, half = np.float32(1), np.float32(2), np.float32(3), np.float32(0.5)
    return (
        ((two - t) * t - one) * t * half,
        ((three * t - np.float32(5)) * t * t + two) * half,
        ((np.float32(4) - three * t) * t + one) * t * half,
        (t - one) * t * t * half,
    )


@compile_with({"fast"})
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
    at_y, at_x = np.empty(4, np.float32), np.empty(4, np.float32)
    for y in range(H):
        r, a = y // STEP, below[y]
        for x in range(W):
            q, b = x // STEP, right[x]
            distance = np.float32(0)
            for k in range(4):
                i, j = r + k // 2, q + k % 2
                v, u = np.float32(y - i * STEP) + np.float32(0.5), np.float32(x - j * STEP) + np.float32(0.5)
                at_y[k] = shifts[i, j, 0] + turns[i, j, 0, 0] * v + turns[i, j, 0, 1] * u
                at_x[k] = shifts[i, j, 1] + turns[i, j, 1, 0] * v + turns[i, j, 1, 1] * u
                distance = max(distance, abs(at_y[k] - at_y[0]), abs(at_x[k] - at_x[0]))
            alike = distance < ONE_PLACE
            if alike:
                at_y[0] = (1 - a) * ((1 - b) * at_y[0] + b * at_y[1]) + a * ((1 - b) * at_y[2] + b * at_y[3])
                at_x[0] = (1 - a) * ((1 - b) * at_x[0] + b * at_x[1]) + a * ((1 - b) * at_x[2] + b * at_x[3])
            for c in range(C):
                out[c, y, x] = 0
            for k in range(1 if alike else 4):
                weight = np.float32(1) if alike else (a if k // 2 else 1 - a) * (b if k % 2 else 1 - b)
                floor_y, floor_x = np.floor(at_y[k]), np.floor(at_x[k])
                down, across = _keys_taps(at_y[k] - floor_y), _keys_taps(at_x[k] - floor_x)
                row, column = y + np.int64(floor_y) - 1, x + np.int64(floor_x) - 1
                for c in range(C):
                    total = np.float32(0)
                    for m in range(4):
                        total += down[m] * (
                            across[0] * seen[c, row + m, column]
                            + across[1] * seen[c, row + m, column + 1]
                            + across[2] * seen[c, row + m, column + 2]
                            + across[3] * seen[c, row + m, column + 3]
                        )
                    out[c, y, x] += weight * total


@compile_with({"fast"})
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


@compile_with(set())
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
