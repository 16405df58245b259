# mypy: ignore-errors
# The types of this module are numba's to infer.
"""Compiled loops over the rows of a burst, strip by strip, around the generated code; axes as in `rows`.

A strip is up to 64 columns of taps; a unit of work is a band of rows of one burst, strip after strip, all frames in
turn. Each row of taps is read once and transposed into planes; the two fine rows between two rows of taps (a seam) are
interpolated when they are used."""

from __future__ import annotations

import numpy as np

from klarsicht.numerics.compiled.jit import compile_with
from klarsicht.numerics.pixel_kernels.codegen import differentiate_taps, multiply_out, weigh
from klarsicht.numerics.pixel_kernels.rows import (
    SLOTS,
    clear,
    inner,
    read_row,
    read_rows,
    read_taps,
    write_row,
    write_taps,
)
from klarsicht.numerics.pixel_kernels.simd import LEFT, STRIP, WIDTH, broadcast, prefetch

NEAR, FAR = np.float32(9 / 16), np.float32(3 / 16)  # 3/4 of (3/4, 1/4): see `transpose`


outer = compile_with(set())  # the type of the Plan argument identifies the state of this package


@outer
def filter_band(plan, scale, taps, frames, out, b, q0, q1, s):
    """Compute Y_i = <k_i, V(X_i)> for the seams q0 to q1, strip after strip. Seam q lies below row q of taps."""
    w = taps.shape[2]
    for x0 in range(0, w, STRIP):
        filter_strip(plan, scale, taps, frames, out, b, x0, min(x0 + STRIP, w), q0, q1, s)


@inner
def filter_strip(plan, scale, taps, frames, out, b, x0, x1, q0, q1, s):
    """Filter the columns x0 to x1 of taps for the seams q0 to q1."""
    N, H, h = frames.shape[1], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.ring.shape[2] // N, x1 - x0, scale * x0, s.frame_rows.shape[2]
    R, above = (D - 2) // 2, scale - 1
    taps_read, rows_read = max(q0, 0), scale * q0 + above - R
    for q in range(q0, q1):
        low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
        for y in range(taps_read, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_read, first + scale + R, X0, scale, n, s.raw, s.frame_rows)
        taps_read, rows_read = high + 1, first + scale + R
        for i in range(N):
            for r in range(scale):
                if 0 <= first + r < H:
                    part = (i * scale + r, N * scale)
                    ahead = (taps, b, min(high + 1, h - 1), x0, part)
                    filter_row(plan, scale, low % SLOTS, high % SLOTS, r, i, i * T, (first + r - R) % D, n, ahead, s)
                    write_row(s.planes, scale, n, out, b, i, first + r, X0)


@inner
def filter_row(plan, scale, low, high, r, i, t0, slot, n, ahead, s):
    """Filter one fine row of one frame, sixteen columns at a time, while prefetching the next row of taps."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            prefetch_part(ahead, m * n + x - LEFT, scale * n, n)
            above, below, under = (low, m, t0, x), (high, m, t0, x), (i, 0, 0, m, x)
            weigh(plan, s.ring, above, below, a, c, s.frame_rows, under, slot, s.planes, (0, m, x))


@inner
def prefetch_part(ahead, done, whole, n):
    """Prefetch the share of one row of a strip's taps that belongs to sixteen columns."""
    taps, b, y, x0, (part, parts) = ahead
    size = n * taps.shape[3]
    start, stop = part * whole + done, part * whole + done + WIDTH
    prefetch(taps, (b, y, x0, 0), size * start // (parts * whole), min(size * stop // (parts * whole), size))


@inner
def weights(r):
    """Return the weights of the rows of taps above and below fine row r of a seam."""
    return (broadcast(NEAR), broadcast(FAR)) if r == 0 else (broadcast(FAR), broadcast(NEAR))


@outer
def differentiate_band(plan, scale, taps, frames, grad, d_taps, b, y0, y1, s):
    """Compute the gradient of sum G_i Y_i in rows y0 to y1 of taps, by gathering: units write to disjoint memory."""
    w = taps.shape[2]
    for x0 in range(0, w, STRIP):
        differentiate_strip(plan, scale, taps, frames, grad, d_taps, b, x0, min(x0 + STRIP, w), y0, y1, s)


@inner
def differentiate_strip(plan, scale, taps, frames, grad, d_taps, b, x0, x1, y0, y1, s):
    """Compute the gradient in the columns x0 to x1 of taps."""
    N, C, H, h = frames.shape[1], frames.shape[2], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.ring.shape[2] // N, x1 - x0, scale * x0, s.frame_rows.shape[2]
    R, above = (D - 2) // 2, scale - 1
    taps_read, rows_read = max(y0 - above, 0), scale * (y0 - above) + above - R
    s.d_ring[:] = 0
    for q in range(y0 - above, y1):
        low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
        for y in range(taps_read, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_read, first + scale + R, X0, scale, n, s.raw, s.frame_rows)
        taps_read, rows_read = high + 1, first + scale + R
        for i in range(N):
            for r in range(scale):
                if 0 <= first + r < H:
                    for c in range(C):
                        read_row(grad, b, i, c, first + r, X0, scale, n, s.raw, s.planes[c])
                    slot, part = (first + r - R) % D, (i * scale + r, N * scale)
                    ahead = (taps, b, min(high + 1, h - 1), x0, part)
                    differentiate_row(plan, scale, low % SLOTS, high % SLOTS, r, i, i * T, slot, n, ahead, s)
        if q >= y0:
            write_taps(s.d_ring, q % SLOTS, x0 == 0, x1 == taps.shape[2], s.edge, d_taps, b, q, x0, n)
        clear(s.d_ring, q % SLOTS, n)


@inner
def differentiate_row(plan, scale, low, high, r, i, t0, slot, n, ahead, s):
    """Compute the gradients of the taps around one fine row of one frame."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            prefetch_part(ahead, m * n + x - LEFT, scale * n, n)
            above, below, under = (low, m, t0, x), (high, m, t0, x), (i, 0, 0, m, x)
            to = (0, m, x)
            differentiate_taps(plan, s.ring, above, below, a, c, s.frame_rows, under, slot, s.planes, to, s.d_ring)


@outer
def scatter_frame(plan, scale, taps, grad, d_frames, b, i, s):
    """Compute the gradient with respect to frame i, into d_frames, which has a margin of R."""
    h, w, T, H, W = taps.shape[1], taps.shape[2], s.ring.shape[2], grad.shape[3], grad.shape[4]
    above, side = scale - 1, s.frame_rows.shape[2] - 1
    for x0 in range(0, w, STRIP):
        x1, taps_read = min(x0 + STRIP, w), 0
        n, X0, wide = x1 - x0, scale * x0, min(scale * x1, W) - scale * x0
        for q in range(-above, h):
            low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
            for y in range(taps_read, high + 1):
                read_taps(taps, b, y, i * T, x0, x1, s.ring, y % SLOTS)
            taps_read = high + 1
            for r in range(scale):
                if 0 <= first + r < H:
                    kernels_of_row(plan, scale, low % SLOTS, high % SLOTS, r, n, s)
                    scatter_row(side, scale, n, wide, grad, d_frames, b, i, first + r, X0, s)


@inner
def kernels_of_row(plan, scale, low, high, r, n, s):
    """Compute the fused kernels of one fine row, by columns modulo scale."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            multiply_out(plan, s.ring, (low, m, 0, x), (high, m, 0, x), a, c, s.k, (m, 0, x))


@inner
def scatter_row(side, scale, n, wide, grad, d_frames, b, i, Y, X0, s):
    """Scatter g k[d] of every pixel p to p + d."""
    row = np.empty(scale * n, np.float32)
    for c in range(grad.shape[2]):
        read_row(grad, b, i, c, Y, X0, scale, n, s.raw, s.planes[c])
        for d in range(side * side):
            for m in range(scale):
                for x in range(n):
                    row[scale * x + m] = s.k[m, d, LEFT + x] * s.planes[c, m, LEFT + x]
            target = d_frames[b, i, c, Y + d // side, X0 + d % side :]
            for x in range(wide):
                target[x] += row[x]
