"""Warping of a window of one frame by a displacement that is affine in each tile, compiled.

Tile (r, q) of a window's mesh (`tile_grid`) shows at pixel p what the frame shows at p + shift + turn (p - c), c the
tile's centre. Keys' cubic convolution (1981) reads between pixels. Where the four places of a pixel lie within
ONE_PLACE, it is read once, at their mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.compiled.jit import compile_inlined, compile_with

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
    slopes = np.zeros((*shifts.shape, 2), np.float32) if turns is None else turns
    accumulate_tiles(frame, shifts, slopes, below, right, out)
    return out


@compile_inlined
def _fill_taps(at: Any, taps: Any) -> None:
    """Compute tile_grid.cubic_taps (4, n) of places (n,)."""
    one, two, three, half = np.float32(1), np.float32(2), np.float32(3), np.float32(0.5)
    for x in range(len(at)):
        t = at[x] - np.floor(at[x])
        taps[0, x] = ((two - t) * t - one) * t * half
        taps[1, x] = ((three * t - np.float32(5)) * t * t + two) * half
        taps[2, x] = ((np.float32(4) - three * t) * t + one) * t * half
        taps[3, x] = (t - one) * t * t * half


@compile_inlined
def _read_run(lines: Any, column: int, down: Any, across: Any, weight: Any, out: Any) -> None:
    """Add interpolated pixels (n,) of a row, times weights (n,), to out; all lie at one distance in whole pixels from
    what they read of four lines. down, across: taps (4, n)."""
    r0, r1, r2, r3 = lines[0, column:], lines[1, column:], lines[2, column:], lines[3, column:]
    for x in range(len(out)):
        d0, d1, d2, d3 = down[0, x], down[1, x], down[2, x], down[3, x]
        total = across[0, x] * (d0 * r0[x] + d1 * r1[x] + d2 * r2[x] + d3 * r3[x])
        total += across[1, x] * (d0 * r0[x + 1] + d1 * r1[x + 1] + d2 * r2[x + 1] + d3 * r3[x + 1])
        total += across[2, x] * (d0 * r0[x + 2] + d1 * r1[x + 2] + d2 * r2[x + 2] + d3 * r3[x + 2])
        total += across[3, x] * (d0 * r0[x + 3] + d1 * r1[x + 3] + d2 * r2[x + 3] + d3 * r3[x + 3])
        out[x] += weight[x] * total


@compile_with({"fast"})
def accumulate_tiles(
    seen: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    turns: npt.NDArray[np.float32],
    below: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Warp by row of a cell, whose pixels lie in the same four tiles, and in runs that read at one distance in whole
    pixels. The places of a tile are linear along a row: its ends tell whether all four lie within ONE_PLACE."""
    C, H, W = out.shape
    at_y, at_x = np.empty((4, STEP), np.float32), np.empty((4, STEP), np.float32)
    weights = np.empty((4, STEP), np.float32)
    down, across = np.empty((4, STEP), np.float32), np.empty((4, STEP), np.float32)
    out[:] = 0
    for y in range(H):
        r, a = y // STEP, below[y]
        for x0 in range(0, W, STEP):
            q, n = x0 // STEP, min(STEP, W - x0)
            distance = np.float32(0)
            for k in range(4):
                i, j = r + k // 2, q + k % 2
                v, u = np.float32(y - i * STEP) + np.float32(0.5), np.float32(x0 - j * STEP) + np.float32(0.5)
                here_y = shifts[i, j, 0] + turns[i, j, 0, 0] * v + turns[i, j, 0, 1] * u
                here_x = shifts[i, j, 1] + turns[i, j, 1, 0] * v + turns[i, j, 1, 1] * u
                along_y, along_x, weight = turns[i, j, 0, 1], turns[i, j, 1, 1], a if k // 2 else 1 - a
                for x in range(n):
                    at_y[k, x] = here_y + along_y * x
                    at_x[k, x] = here_x + along_x * x
                    weights[k, x] = weight * (right[x0 + x] if k % 2 else 1 - right[x0 + x])
                for x in (0, n - 1):
                    distance = max(distance, abs(at_y[k, x] - at_y[0, x]), abs(at_x[k, x] - at_x[0, x]))
            places = 4
            if distance < ONE_PLACE:
                places = 1
                for at in (at_y, at_x):
                    for x in range(n):
                        at[0, x] = (
                            weights[0, x] * at[0, x]
                            + weights[1, x] * at[1, x]
                            + weights[2, x] * at[2, x]
                            + weights[3, x] * at[3, x]
                        )
                weights[0, :] = 1
            for k in range(places):
                _fill_taps(at_y[k, :n], down)
                _fill_taps(at_x[k, :n], across)
                first = 0
                while first < n:
                    floor_y, floor_x, last = np.floor(at_y[k, first]), np.floor(at_x[k, first]), first + 1
                    while last < n and np.floor(at_y[k, last]) == floor_y and np.floor(at_x[k, last]) == floor_x:
                        last += 1
                    row, column = y + np.int64(floor_y) - 1, x0 + first + np.int64(floor_x) - 1
                    for c in range(C):
                        _read_run(
                            seen[c, row : row + 4],
                            column,
                            down[:, first:last],
                            across[:, first:last],
                            weights[k, first:last],
                            out[c, y, x0 + first : x0 + last],
                        )
                    first = last


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
