"""Down one strip of a burst, row by row: the loops around the programs. Plain arrays in, plain arrays out.

A strip is up to 64 columns of taps; its unit of work is a band of rows, all frames in turn. Each row of taps is read once,
in the order of memory, and turned over into planes; the two fine rows between two rows of taps (a seam) are blended
together. Nothing larger than a few rows of a strip exists at a time.

Axes: B burst, N frame, T tap, C plane, y x taps, Y X pixels. Taps are (B, y, x, N T), frames (B, N, C, Y, X); both come
as bits, uint32 for float32 and uint16 for bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit

from klarsicht.numerics.windows.lanes import WIDTH, everywhere, fma, load, peek, plus, poke, store, times, turn
from klarsicht.numerics.windows.programs import LEFT, PHASES, ROW, STRIP, multiply_out, part_out, weigh
from klarsicht.numerics.windows.spec import KernelSpec

NEAR, FAR = np.float32(9 / 16), np.float32(3 / 16)  # 3/4 of (3/4, 1/4): see programs.Taps
THIRD = np.float32(1 / 3)
RAW = 2 * ROW + 2
SLOTS = 2

Call = TypeVar("Call", bound=Callable[..., Any])
compiled = cast(Callable[[Call], Call], njit(nogil=True, cache=True))


class Scratch(NamedTuple):
    """Room for one strip. Everything is float32 and begins on a cache line."""

    ring: Any  # (2, N T, ROW) the last two rows of taps, as planes
    lines: Any  # (2, T, ROW) the taps of one frame, blended for two fine rows
    glass: Any  # (N, C, 2 D, 3, ROW) the last D rows of the frames, twice over, so that any 2R + 1 rows are neighbours
    raw: Any  # (RAW,) one row of pixels, zero outside the image
    k: Any  # (2, K_max^2, ROW) the fused kernels of one fine row
    planes: Any  # (C, 3, ROW) one row of output, or of its gradient, by columns modulo upscale
    d_lines: Any  # (2, 2, T, ROW) gradient of upsampled taps: fine row, column modulo 2
    d_ring: Any  # (2, N T, ROW) gradient of the last two rows of taps


def scratch(spec: KernelSpec, frames: int, channels: int) -> Scratch:
    T, R = spec.taps, spec.radius
    return Scratch(
        ring=aligned(SLOTS, frames * T, ROW),
        lines=aligned(2, T, ROW),
        glass=aligned(frames, channels, 2 * (2 * R + 2), PHASES, ROW),
        raw=aligned(RAW),
        k=aligned(2, spec.side**2, ROW),
        planes=aligned(channels, PHASES, ROW),
        d_lines=aligned(2, 2, T, ROW),
        d_ring=aligned(SLOTS, frames * T, ROW),
    )


def aligned(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Zeros that begin on a cache line: a vector across two lines costs two loads."""
    size = int(np.prod(shape))
    block = np.zeros(size + 16, np.float32)
    start = -(block.ctypes.data // 4) % 16
    return block[start : start + size].reshape(shape)


@compiled
def read_taps(taps, b, y, t0, x0, x1, ring, slot):
    """Row y of taps, columns x0 - 1 to x1, edges repeated: turned over into ring[slot]."""
    w, T, n = taps.shape[2], ring.shape[1], x1 - x0
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    for x in range(0, whole, WIDTH):
        for t in range(0, full, WIDTH):
            turn(taps, (b, y, x0 + x, t0 + t), taps.shape[3], ring, (slot, t, LEFT + x), ROW)
    bits, shift = ring.view(np.uint32), np.uint32(32 - 8 * taps.itemsize)
    for x in range(-1, n + 1):
        column = min(max(x0 + x, 0), w - 1)
        for t in range(full if 0 <= x < whole else 0, T):
            poke(np.uint32(peek(taps, (b, y, column, t0 + t))) << shift, bits, (slot, t, LEFT + x))


@compiled
def blend(ring, low, high, t0, n, lines):
    """3/4 of the two fine rows between two rows of taps: weights 3/4 and 1/4 each way."""
    near, far = everywhere(NEAR), everywhere(FAR)
    for t in range(lines.shape[1]):
        for x in range(LEFT, LEFT + n, WIDTH):
            a, c = load(ring, (low, t0 + t, x)), load(ring, (high, t0 + t, x))
            store(fma(a, near, times(c, far)), lines, (0, t, x))
            store(fma(a, far, times(c, near)), lines, (1, t, x))
        for x in (LEFT - 1, LEFT + n):
            a1, c1 = peek(ring, (low, t0 + t, x)), peek(ring, (high, t0 + t, x))
            poke(NEAR * a1 + FAR * c1, lines, (0, t, x))
            poke(FAR * a1 + NEAR * c1, lines, (1, t, x))


@compiled
def read_row(frames, b, i, c, Y, X0, scale, raw, planes):
    """Row Y of one plane, zero outside the image: planes[m, x] = X[X0 + scale (x - LEFT) + m]."""
    bits, shift = raw.view(np.uint32), 32 - 8 * frames.itemsize
    H, W = frames.shape[3], frames.shape[4]
    first = X0 - scale * LEFT
    low, high = max(0, -first), min(RAW, W - first)
    if Y < 0 or Y >= H:
        low = high = 0
    bits[:low] = 0
    for j in range(low, high):
        bits[j] = np.uint32(frames[b, i, c, Y, first + j]) << shift
    bits[high:] = 0
    for m in range(planes.shape[0] if scale == 2 else 1):
        for x in range(ROW):
            planes[m, x] = raw[scale * x + m]


@compiled
def read_rows(frames, b, start, stop, X0, scale, raw, glass):
    """Rows start to stop of every frame into the ring, each twice, D rows apart."""
    D = glass.shape[2] // 2
    for Y in range(start, stop):
        slot = Y % D
        for i in range(frames.shape[1]):
            for c in range(frames.shape[2]):
                read_row(frames, b, i, c, Y, X0, scale, raw, glass[i, c, slot])
                glass[i, c, slot + D] = glass[i, c, slot]


@compiled
def write_row(planes, scale, n, out, b, i, Y, X0):
    """The columns of a strip, put together again."""
    W = out.shape[4]
    for c in range(out.shape[2]):
        row = out[b, i, c, Y]
        for m in range(scale):
            for x in range((min(scale * n, W - X0) - m + scale - 1) // scale):
                row[X0 + scale * x + m] = planes[c, m, x + LEFT]


@compiled
def filter_band(plan, scale, taps, frames, out, b, x0, x1, q0, q1, s):
    """Y_i = <k_i, V(X_i)> for the seams q0 to q1 of one strip. Seam q lies below row q of taps."""
    N, C, H, h = frames.shape[1], frames.shape[2], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.lines.shape[1], x1 - x0, scale * x0, s.glass.shape[2] // 2
    R, above = (D - 2) // 2, scale - 1
    taps_seen, rows_seen = max(q0, 0), scale * q0 + above - R
    for q in range(q0, q1):
        low, high = max(q, 0), min(q + above, h - 1)
        for y in range(taps_seen, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_seen, scale * q + 2 * scale - 1 + R, X0, scale, s.raw, s.glass)
        taps_seen, rows_seen = high + 1, scale * q + 2 * scale - 1 + R
        for i in range(N):
            if scale == 2:
                blend(s.ring, low % SLOTS, high % SLOTS, i * T, n, s.lines)
            for r in range(scale):
                Y = scale * q + above + r
                if 0 <= Y < H:
                    filter_row(plan, scale, q, i, r, (Y - R) % D, n, T, s)
                    write_row(s.planes, scale, n, out, b, i, Y, X0)


@compiled
def filter_row(plan, scale, q, i, r, slot, n, T, s):
    """One fine row of one frame, sixteen columns of equal parity at a time."""
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            under, to = (i, 0, slot, m, x), (0, m, x)
            if scale == 2:
                weigh(plan, s.lines, (r, 0, x), 2 * m - 1, s.glass, under, s.planes, to)
            else:
                weigh(plan, s.ring, (q % SLOTS, i * T, x), 0, s.glass, under, s.planes, to)


@compiled
def differentiate_band(plan, scale, taps, frames, grad, d_taps, b, x0, x1, y0, y1, s):
    """The gradient of sum G_i Y_i with respect to rows y0 to y1 of taps, gathered: no unit writes where another does."""
    N, C, H, h = frames.shape[1], frames.shape[2], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.lines.shape[1], x1 - x0, scale * x0, s.glass.shape[2] // 2
    R, above = (D - 2) // 2, scale - 1
    left, right = x0 == 0, x1 == taps.shape[2]
    q0 = y0 - above
    taps_seen, rows_seen = max(q0, 0), scale * q0 + above - R
    s.d_ring[:] = 0
    for q in range(q0, y1):
        low, high = max(q, 0), min(q + above, h - 1)
        for y in range(taps_seen, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_seen, scale * q + 2 * scale - 1 + R, X0, scale, s.raw, s.glass)
        taps_seen, rows_seen = high + 1, scale * q + 2 * scale - 1 + R
        for i in range(N):
            if scale == 2:
                blend(s.ring, low % SLOTS, high % SLOTS, i * T, n, s.lines)
            for r in range(scale):
                Y = scale * q + above + r
                if 0 <= Y < H:
                    for c in range(C):
                        read_row(grad, b, i, c, Y, X0, scale, s.raw, s.planes[c])
                    differentiate_row(plan, scale, q, i, r, (Y - R) % D, n, left, right, T, s)
                else:
                    s.d_lines[r] = 0
            if scale == 2:
                fold(s.d_lines, left, right, n, s.d_ring, low % SLOTS, high % SLOTS, i * T)
        if q >= y0:
            write_taps(s.d_ring, q % SLOTS, n, d_taps, b, q, x0)
        s.d_ring[q % SLOTS] = 0


@compiled
def differentiate_row(plan, scale, q, i, r, slot, n, left, right, T, s):
    """The gradients of the upsampled taps of one fine row; one column beyond the strip where it reaches in."""
    for m in range(scale):
        first = LEFT - (scale == 2 and m == 1 and not left)
        last = LEFT + n + (scale == 2 and m == 0 and not right)
        for x in range(first, last, WIDTH):
            under, of, here = (i, 0, slot, m, x), (0, m, x), (q % SLOTS, i * T, x)
            if scale == 2:
                lines, to = (r, 0, x), (r, m, 0, x)
                part_out(plan, s.lines, lines, 2 * m - 1, s.planes, of, s.glass, under, s.d_lines, to)
            else:
                part_out(plan, s.ring, here, 0, s.planes, of, s.glass, under, s.d_ring, here)


@compiled
def fold(d_lines, left, right, n, d_ring, low, high, t0):
    """The adjoint of upsampling: columns first (even e, odd o), then the two rows of a seam."""
    near, far, third = everywhere(NEAR), everywhere(FAR), everywhere(THIRD)
    for r in range(2):
        for t in range(d_lines.shape[2]):
            if left:
                d_lines[r, 1, t, LEFT - 1] = d_lines[r, 0, t, LEFT]
            if right:
                d_lines[r, 0, t, LEFT + n] = d_lines[r, 1, t, LEFT + n - 1]
    for t in range(d_lines.shape[2]):
        for x in range(LEFT, LEFT + n, WIDTH):
            a, c = columns(d_lines, 0, t, x, third), columns(d_lines, 1, t, x, third)
            to_low, to_high = fma(a, near, times(c, far)), fma(a, far, times(c, near))
            store(plus(load(d_ring, (low, t0 + t, x)), to_low), d_ring, (low, t0 + t, x))
            store(plus(load(d_ring, (high, t0 + t, x)), to_high), d_ring, (high, t0 + t, x))


@compiled
def columns(d_lines, r, t, x, third):
    """e[x] + o[x] + (e[x + 1] + o[x - 1]) / 3."""
    here = plus(load(d_lines, (r, 0, t, x)), load(d_lines, (r, 1, t, x)))
    beside = plus(load(d_lines, (r, 0, t, x + 1)), load(d_lines, (r, 1, t, x - 1)))
    return fma(beside, third, here)


@compiled
def write_taps(d_ring, slot, n, d_taps, b, y, x0):
    """One finished row of the gradient, turned back to the order of the taps."""
    T = d_ring.shape[1]
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    for x in range(0, whole, WIDTH):
        for t in range(0, full, WIDTH):
            turn(d_ring, (slot, t, LEFT + x), ROW, d_taps, (b, y, x0 + x, t), T)
    bits = d_ring.view(np.uint32)
    for x in range(n):
        for t in range(full if x < whole else 0, T):
            d_taps[b, y, x0 + x, t] = rounded(bits[slot, t, LEFT + x], d_taps.itemsize)


@compiled
def rounded(bits, itemsize):
    """A float32 as bits, or as the bits of the nearest bfloat16, ties to even."""
    if itemsize == 4:
        return bits
    return np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


@compiled
def scatter_frame(plan, scale, taps, grad, d_frames, b, i, s):
    """The gradient with respect to frame i , which carries a margin of R."""
    h, w, T, H, W = taps.shape[1], taps.shape[2], s.lines.shape[1], grad.shape[3], grad.shape[4]
    above, side = scale - 1, s.glass.shape[2] // 2 - 1
    for x0 in range(0, w, STRIP):
        x1, seen = min(x0 + STRIP, w), 0
        n, X0, wide = x1 - x0, scale * x0, min(scale * x1, W) - scale * x0
        for q in range(-above, h):
            low, high = max(q, 0), min(q + above, h - 1)
            for y in range(seen, high + 1):
                read_taps(taps, b, y, i * T, x0, x1, s.ring, y % SLOTS)
            seen = high + 1
            if scale == 2:
                blend(s.ring, low % SLOTS, high % SLOTS, 0, n, s.lines)
            for r in range(scale):
                Y = scale * q + above + r
                if 0 <= Y < H:
                    kernels_of_row(plan, scale, q, r, n, s)
                    throw(side, scale, n, wide, grad, d_frames, b, i, Y, X0, s)


@compiled
def kernels_of_row(plan, scale, q, r, n, s):
    """The fused kernels of one fine row, by columns modulo scale."""
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            if scale == 2:
                multiply_out(plan, s.lines, (r, 0, x), 2 * m - 1, s.k, (m, 0, x))
            else:
                multiply_out(plan, s.ring, (q % SLOTS, 0, x), 0, s.k, (m, 0, x))


@compiled
def throw(side, scale, n, wide, grad, d_frames, b, i, Y, X0, s):
    """Pixel p throws g k[d] onto p + d."""
    row = np.empty(scale * n, np.float32)
    for c in range(grad.shape[2]):
        read_row(grad, b, i, c, Y, X0, scale, s.raw, s.planes[c])
        for d in range(side * side):
            for m in range(scale):
                for x in range(n):
                    row[scale * x + m] = s.k[m, d, LEFT + x] * s.planes[c, m, LEFT + x]
            target = d_frames[b, i, c, Y + d // side, X0 + d % side :]
            for x in range(wide):
                target[x] += row[x]
