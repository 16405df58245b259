# mypy: ignore-errors
# The types of this module are numba's to infer.
"""Row input and output: rows of taps and of pixels are read from memory into the scratch of a strip, and written back.

Axes: B burst, N frame, T tap, C plane, y x taps, Y X pixels. Taps (B, y, x, N T) and frames (B, N, C, Y, X) come as
bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from klarsicht.numerics.pixel_kernels.codegen import PHASES
from klarsicht.numerics.pixel_kernels.simd import (
    LEFT,
    ROW,
    WIDTH,
    as_bits,
    as_float,
    broadcast,
    evens,
    load,
    load_next,
    odds,
    read_element,
    store,
    write_element,
    zip_store,
)
from klarsicht.numerics.pixel_kernels.spec import KernelSpec
from klarsicht.numerics.pixel_kernels.transpose import (
    transpose_taps,
    transpose_taps_adjoint,
    transpose_upsampled,
    transpose_upsampled_adjoint,
)

THIRD = np.float32(1 / 3)  # see `transpose`
RAW = 2 * WIDTH + 2
SLOTS = 2

inner = njit(nogil=True)


class Scratch(NamedTuple):
    """Buffers of one strip, all float32 and aligned to cache lines."""

    ring: Any  # (2, upscale, N T, ROW) the last two rows of taps, as planes, by columns modulo upscale
    d_ring: Any  # the same of their gradient
    frame_rows: Any  # (N, C, D, 3, ROW) ring of the last D rows of the frames, by columns modulo upscale
    raw: Any  # (RAW,) a few pixels, zero outside the image
    planes: Any  # (C, 3, ROW) one row of output, or of its gradient, by columns modulo upscale
    edge: Any  # (h, 2, N T) the incomplete last column of a strip of gradients, and its odd column
    k: Any  # (2, K_max^2, ROW) the fused kernels of one fine row


def scratch(spec: KernelSpec, frames: int, channels: int, rows: int) -> Scratch:
    """Allocate buffers for N frames of C planes, and for so many rows of taps where their gradients are wanted."""
    return Scratch(
        ring=aligned_zeros(SLOTS, spec.upscale, frames * spec.taps, ROW),
        d_ring=aligned_zeros(SLOTS, spec.upscale, frames * spec.taps, ROW),
        frame_rows=aligned_zeros(frames, channels, 2 * spec.radius + 2, PHASES, ROW),
        raw=aligned_zeros(RAW),
        planes=aligned_zeros(channels, PHASES, ROW),
        edge=aligned_zeros(rows, 2, frames * spec.taps),
        k=aligned_zeros(2, spec.side**2, ROW),
    )


def aligned_zeros(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Allocate zeros aligned to a cache line: a vector across two lines costs two loads."""
    size = int(np.prod(shape))
    block = np.zeros(size + 16, np.float32)
    start = -(block.ctypes.data // 4) % 16
    return block[start : start + size].reshape(shape)


@inner
def read_taps(taps, b, y, t0, x0, x1, ring, slot):
    """Read row y of taps, columns x0 to x1, transpose it and upsample it along the row into ring[slot]."""
    w, stride, scale, T, n = taps.shape[2], taps.shape[3], ring.shape[1], ring.shape[2], x1 - x0
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    for x in range(0, whole, WIDTH):
        before, after = -stride * (x0 + x > 0), stride * min(WIDTH, w - 1 - x0 - x)
        for t in range(0, full, WIDTH):
            at, to = (b, y, x0 + x, t0 + t), (slot, 0, t, LEFT + x)
            if scale == 2:
                transpose_upsampled(taps, at, stride, before, after, ring, to, T * ROW)
            else:
                transpose_taps(taps, at, stride, ring, to)
    for x in range(n):
        for t in range(full if x < whole else 0, T):
            for m in range(scale):
                write_element(upsample_tap(taps, b, y, x0 + x, t0 + t, m, scale), ring, (slot, m, t, LEFT + x))


@inner
def upsample_tap(taps, b, y, x, t, m, scale):
    """Read one tap, upsampled along the row."""
    if scale == 1:
        return read_float(taps, (b, y, x, t))
    beside = min(max(x + 2 * m - 1, 0), taps.shape[2] - 1)
    return read_float(taps, (b, y, x, t)) + read_float(taps, (b, y, beside, t)) * THIRD


@inner
def write_taps(d_ring, slot, left, right, edge, d_taps, b, y, x0, n):
    """Transpose and write one finished row of the gradient; `edge` passes columns between strips, in full precision."""
    scale, T = d_ring.shape[1], d_ring.shape[2]
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    if scale == 2:
        complete_edges(d_ring, slot, left, right, edge, d_taps, b, y, x0, n)
    for t in range(0, full, WIDTH):
        for x in range(0, whole, WIDTH):
            at, to = (slot, 0, t, LEFT + x), (b, y, x0 + x, t)
            if scale == 2:
                transpose_upsampled_adjoint(d_ring, at, T * ROW, d_taps, to, T)
            else:
                transpose_taps_adjoint(d_ring, at, d_taps, to, T)
    for x in range(n):
        for t in range(full if x < whole else 0, T):
            write_float(upsample_tap_adjoint(d_ring, slot, t, LEFT + x), d_taps, (b, y, x0 + x, t))


@inner
def complete_edges(d_ring, slot, left, right, edge, d_taps, b, y, x0, n):
    """Complete the columns beside a strip of the gradient: at the edge of the image they are repeated, else the last
    column of the strip on the left is written, and that of this strip is kept open for the strip on the right."""
    for t in range(d_ring.shape[2]):
        first, last = read_element(d_ring, (slot, 0, t, LEFT)), read_element(d_ring, (slot, 1, t, LEFT + n - 1))
        write_element(first if left else read_element(edge, (y, 1, t)), d_ring, (slot, 1, t, LEFT - 1))
        write_element(last if right else np.float32(0), d_ring, (slot, 0, t, LEFT + n))
        if not left:
            write_float(read_element(edge, (y, 0, t)) + first * THIRD, d_taps, (b, y, x0 - 1, t))
        if not right:
            write_element(upsample_tap_adjoint(d_ring, slot, t, LEFT + n - 1), edge, (y, 0, t))
            write_element(last, edge, (y, 1, t))


@inner
def upsample_tap_adjoint(d_ring, slot, t, x):
    if d_ring.shape[1] == 1:
        return read_element(d_ring, (slot, 0, t, x))
    beside = read_element(d_ring, (slot, 0, t, x + 1)) + read_element(d_ring, (slot, 1, t, x - 1))
    return read_element(d_ring, (slot, 0, t, x)) + read_element(d_ring, (slot, 1, t, x)) + beside * THIRD


@inner
def clear(ring, slot, n):
    zero = broadcast(np.float32(0))
    for m in range(ring.shape[1]):
        for t in range(ring.shape[2]):
            for x in range(LEFT, LEFT + n, WIDTH):
                store(zero, ring, (slot, m, t, x))


@inner
def read_rows(frames, b, start, stop, X0, scale, n, raw, frame_rows):
    """Read rows start to stop of every frame into the ring of D rows."""
    D = frame_rows.shape[2]
    for Y in range(start, stop):
        for i in range(frames.shape[1]):
            for c in range(frames.shape[2]):
                read_row(frames, b, i, c, Y, X0, scale, n, raw, frame_rows[i, c, Y % D])


@inner
def read_row(frames, b, i, c, Y, X0, scale, n, raw, planes):
    """Read row Y of one plane, zero outside the image: planes[m, x] = X[X0 + scale (x - LEFT) + m]."""
    H, W = frames.shape[3], frames.shape[4]
    for x in range(0, LEFT + n + WIDTH, WIDTH):
        X = X0 + scale * (x - LEFT)
        if 0 <= Y < H and X >= 0 and X + RAW <= W:
            store_phases(frames, (b, i, c, Y, X), (b, i, c, Y, X + 2), scale, x, planes)
        else:
            read_padded(frames, b, i, c, Y, X, raw)
            store_phases(raw, (0,), (2,), scale, x, planes)


@inner
def read_padded(frames, b, i, c, Y, X, raw):
    """Read RAW pixels from X on, zero outside the image."""
    H, W = frames.shape[3], frames.shape[4]
    for j in range(RAW):
        inside = 0 <= Y < H and 0 <= X + j < W
        write_element(read_float(frames, (b, i, c, Y, X + j)) if inside else np.float32(0), raw, (j,))


@inner
def store_phases(pixels, at, beyond, scale, x, planes):
    """Store sixteen columns of each phase; those of phase 2 start two pixels later."""
    a = load(pixels, at)
    if scale == 1:
        store(a, planes, (0, x))
        return
    c = load_next(pixels, at)
    e, o, f = evens(a, c), odds(a, c), evens(load(pixels, beyond), load_next(pixels, beyond))
    store(e, planes, (0, x))
    store(o, planes, (1, x))
    store(f, planes, (2, x))


@inner
def write_row(planes, scale, n, out, b, i, Y, X0):
    """Interleave the columns of a strip and write them."""
    wide = min(scale * n, out.shape[4] - X0)
    whole = wide // (2 * WIDTH) * 2 * WIDTH if scale == 2 else 0
    for c in range(out.shape[2]):
        for X in range(0, whole, 2 * WIDTH):
            x = LEFT + X // 2
            zip_store(load(planes, (c, 0, x)), load(planes, (c, 1, x)), out, (b, i, c, Y, X0 + X))
        for X in range(whole, wide):
            write_element(read_element(planes, (c, X % scale, LEFT + X // scale)), out, (b, i, c, Y, X0 + X))


@inner
def read_float(array, at):
    """Read one float32 from its bits, or from its upper half."""
    return as_float(np.uint32(read_element(array, at)) << np.uint32(32 - 8 * array.itemsize))


@inner
def write_float(value, array, at):
    """Write one float32 as its bits, or as those of the nearest bfloat16, ties to even."""
    bits = as_bits(value)
    if array.itemsize == 2:
        bits = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    write_element(bits, array, at)
