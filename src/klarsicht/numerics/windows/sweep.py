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

from klarsicht.numerics.windows.lanes import (
    LEFT,
    ROW,
    STRIP,
    WIDTH,
    evens,
    as_bits,
    as_float,
    everywhere,
    fetch,
    load,
    load_next,
    odds,
    peek,
    poke,
    store,
    zip_store,
)
from klarsicht.numerics.windows.programs import PHASES, multiply_out, part_out, weigh
from klarsicht.numerics.windows.spec import KernelSpec
from klarsicht.numerics.windows.turning import turn, turn_back, turn_twice, turn_twice_back

NEAR, FAR, THIRD = np.float32(9 / 16), np.float32(3 / 16), np.float32(1 / 3)  # 3/4 of (3/4, 1/4): see turning
RAW = 2 * WIDTH + 2
SLOTS = 2

Call = TypeVar("Call", bound=Callable[..., Any])
compiled = cast(Callable[[Call], Call], njit(nogil=True, cache=True))


class Scratch(NamedTuple):
    """Room for one strip. Everything is float32 and begins on a cache line."""

    ring: Any  # (2, upscale, N T, ROW) the last two rows of taps, as planes, by columns modulo upscale
    d_ring: Any  # the same of their gradient
    glass: Any  # (N, C, D, 3, ROW) the last D rows of the frames, by columns modulo upscale
    raw: Any  # (RAW,) a few pixels, zero outside the image
    planes: Any  # (C, 3, ROW) one row of output, or of its gradient, by columns modulo upscale
    k: Any  # (2, K_max^2, ROW) the fused kernels of one fine row


def scratch(spec: KernelSpec, frames: int, channels: int) -> Scratch:
    """Room for N frames of C planes."""
    return Scratch(
        ring=aligned(SLOTS, spec.upscale, frames * spec.taps, ROW),
        d_ring=aligned(SLOTS, spec.upscale, frames * spec.taps, ROW),
        glass=aligned(frames, channels, 2 * spec.radius + 2, PHASES, ROW),
        raw=aligned(RAW),
        planes=aligned(channels, PHASES, ROW),
        k=aligned(2, spec.side**2, ROW),
    )


def aligned(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Zeros that begin on a cache line: a vector across two lines costs two loads."""
    size = int(np.prod(shape))
    block = np.zeros(size + 16, np.float32)
    start = -(block.ctypes.data // 4) % 16
    return block[start : start + size].reshape(shape)


@compiled
def read_taps(taps, b, y, t0, x0, x1, ring, slot):
    """Row y of taps, columns x0 to x1, turned over and upsampled along the row into ring[slot]."""
    w, hop, scale, T, n = taps.shape[2], taps.shape[3], ring.shape[1], ring.shape[2], x1 - x0
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    for x in range(0, whole, WIDTH):
        before, after = -hop * (x0 + x > 0), hop * min(WIDTH, w - 1 - x0 - x)
        for t in range(0, full, WIDTH):
            at, to = (b, y, x0 + x, t0 + t), (slot, 0, t, LEFT + x)
            if scale == 2:
                turn_twice(taps, at, hop, before, after, ring, to, T * ROW)
            else:
                turn(taps, at, hop, ring, to)
    for x in range(n):
        for t in range(full if x < whole else 0, T):
            for m in range(scale):
                poke(along(taps, b, y, x0 + x, t0 + t, m, scale), ring, (slot, m, t, LEFT + x))


@compiled
def along(taps, b, y, x, t, m, scale):
    """One tap, upsampled along the row."""
    if scale == 1:
        return number(taps, (b, y, x, t))
    beside = min(max(x + 2 * m - 1, 0), taps.shape[2] - 1)
    return number(taps, (b, y, x, t)) + number(taps, (b, y, beside, t)) * THIRD


@compiled
def write_taps(d_ring, slot, left, right, d_taps, b, y, x0, n):
    """One finished row of the gradient, turned back; a strip adds to its left neighbour and leaves word for its right."""
    scale, T = d_ring.shape[1], d_ring.shape[2]
    whole, full = n // WIDTH * WIDTH, T // WIDTH * WIDTH
    if scale == 2:
        for t in range(T):
            first, last = peek(d_ring, (slot, 0, t, LEFT)), peek(d_ring, (slot, 1, t, LEFT + n - 1))
            poke(first if left else number(d_taps, (b, y, x0, t)), d_ring, (slot, 1, t, LEFT - 1))
            poke(last if right else np.float32(0), d_ring, (slot, 0, t, LEFT + n))
            if not left:
                put(number(d_taps, (b, y, x0 - 1, t)) + first * THIRD, d_taps, (b, y, x0 - 1, t))
            if not right:
                put(last, d_taps, (b, y, x0 + n, t))
    for t in range(0, full, WIDTH):
        for x in range(0, whole, WIDTH):
            at, to = (slot, 0, t, LEFT + x), (b, y, x0 + x, t)
            if scale == 2:
                turn_twice_back(d_ring, at, T * ROW, d_taps, to, T)
            else:
                turn_back(d_ring, at, d_taps, to, T)
    for x in range(n):
        for t in range(full if x < whole else 0, T):
            put(back_along(d_ring, slot, t, LEFT + x), d_taps, (b, y, x0 + x, t))


@compiled
def back_along(d_ring, slot, t, x):
    """The adjoint of along."""
    if d_ring.shape[1] == 1:
        return peek(d_ring, (slot, 0, t, x))
    beside = peek(d_ring, (slot, 0, t, x + 1)) + peek(d_ring, (slot, 1, t, x - 1))
    return peek(d_ring, (slot, 0, t, x)) + peek(d_ring, (slot, 1, t, x)) + beside * THIRD


@compiled
def clear(ring, slot, n):
    zero = everywhere(np.float32(0))
    for m in range(ring.shape[1]):
        for t in range(ring.shape[2]):
            for x in range(LEFT, LEFT + n, WIDTH):
                store(zero, ring, (slot, m, t, x))


@compiled
def read_row(frames, b, i, c, Y, X0, scale, n, raw, planes):
    """Row Y of one plane, zero outside the image: planes[m, x] = X[X0 + scale (x - LEFT) + m]."""
    H, W = frames.shape[3], frames.shape[4]
    for x in range(0, LEFT + n + WIDTH, WIDTH):
        X = X0 + scale * (x - LEFT)
        if 0 <= Y < H and X >= 0 and X + RAW <= W:
            split(frames, (b, i, c, Y, X), (b, i, c, Y, X + 2), scale, x, planes)
        else:
            patch(frames, b, i, c, Y, X, raw)
            split(raw, (0,), (2,), scale, x, planes)


@compiled
def patch(frames, b, i, c, Y, X, raw):
    """RAW pixels from X on, zero outside the image."""
    H, W = frames.shape[3], frames.shape[4]
    for j in range(RAW):
        inside = 0 <= Y < H and 0 <= X + j < W
        poke(number(frames, (b, i, c, Y, X + j)) if inside else np.float32(0), raw, (j,))


@compiled
def split(pixels, at, beyond, scale, x, planes):
    """Sixteen columns of each phase; those of phase 2 begin two pixels on."""
    a = load(pixels, at)
    if scale == 1:
        store(a, planes, (0, x))
        return
    c = load_next(pixels, at)
    e, o, f = evens(a, c), odds(a, c), evens(load(pixels, beyond), load_next(pixels, beyond))
    store(e, planes, (0, x))
    store(o, planes, (1, x))
    store(f, planes, (2, x))


@compiled
def read_rows(frames, b, start, stop, X0, scale, n, raw, glass):
    """Rows start to stop of every frame into the ring of D."""
    D = glass.shape[2]
    for Y in range(start, stop):
        for i in range(frames.shape[1]):
            for c in range(frames.shape[2]):
                read_row(frames, b, i, c, Y, X0, scale, n, raw, glass[i, c, Y % D])


@compiled
def write_row(planes, scale, n, out, b, i, Y, X0):
    """The columns of a strip, put together again."""
    wide = min(scale * n, out.shape[4] - X0)
    whole = wide // (2 * WIDTH) * 2 * WIDTH if scale == 2 else 0
    for c in range(out.shape[2]):
        for X in range(0, whole, 2 * WIDTH):
            x = LEFT + X // 2
            zip_store(load(planes, (c, 0, x)), load(planes, (c, 1, x)), out, (b, i, c, Y, X0 + X))
        for X in range(whole, wide):
            poke(peek(planes, (c, X % scale, LEFT + X // scale)), out, (b, i, c, Y, X0 + X))


@compiled
def filter_band(plan, scale, taps, frames, out, b, q0, q1, s):
    """Y_i = <k_i, V(X_i)> for the seams q0 to q1, strip after strip. Seam q lies below row q of taps."""
    w = taps.shape[2]
    for x0 in range(0, w, STRIP):
        filter_strip(plan, scale, taps, frames, out, b, x0, min(x0 + STRIP, w), q0, q1, s)


@compiled
def filter_strip(plan, scale, taps, frames, out, b, x0, x1, q0, q1, s):
    N, H, h = frames.shape[1], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.ring.shape[2] // N, x1 - x0, scale * x0, s.glass.shape[2]
    R, above = (D - 2) // 2, scale - 1
    taps_seen, rows_seen = max(q0, 0), scale * q0 + above - R
    for q in range(q0, q1):
        low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
        for y in range(taps_seen, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_seen, first + scale + R, X0, scale, n, s.raw, s.glass)
        taps_seen, rows_seen = high + 1, first + scale + R
        for i in range(N):
            for r in range(scale):
                if 0 <= first + r < H:
                    part = (i * scale + r, N * scale)
                    ahead = (taps, b, min(high + 1, h - 1), x0, part)
                    filter_row(plan, scale, low % SLOTS, high % SLOTS, r, i, i * T, (first + r - R) % D, n, ahead, s)
                    write_row(s.planes, scale, n, out, b, i, first + r, X0)


@compiled
def weights(r):
    """Of the rows of taps above and below fine row r of a seam."""
    return (everywhere(NEAR), everywhere(FAR)) if r == 0 else (everywhere(FAR), everywhere(NEAR))


@compiled
def fetch_part(ahead, done, whole, n):
    """The share of sixteen columns in fetching one row of taps of a strip."""
    taps, b, y, x0, (part, parts) = ahead
    size = n * taps.shape[3]
    start, stop = part * whole + done, part * whole + done + WIDTH
    fetch(taps, (b, y, x0, 0), size * start // (parts * whole), min(size * stop // (parts * whole), size))


@compiled
def filter_row(plan, scale, low, high, r, i, t0, slot, n, ahead, s):
    """One fine row of one frame, sixteen columns of equal parity at a time; meanwhile memory brings the next taps."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            fetch_part(ahead, m * n + x - LEFT, scale * n, n)
            above, below, under = (low, m, t0, x), (high, m, t0, x), (i, 0, 0, m, x)
            weigh(plan, s.ring, above, below, a, c, s.glass, under, slot, s.planes, (0, m, x))


@compiled
def differentiate_band(plan, scale, taps, frames, grad, d_taps, b, y0, y1, s):
    """The gradient of sum G_i Y_i with respect to rows y0 to y1 of taps, gathered: no unit writes where another does."""
    w = taps.shape[2]
    for x0 in range(0, w, STRIP):
        differentiate_strip(plan, scale, taps, frames, grad, d_taps, b, x0, min(x0 + STRIP, w), y0, y1, s)


@compiled
def differentiate_strip(plan, scale, taps, frames, grad, d_taps, b, x0, x1, y0, y1, s):
    N, C, H, h = frames.shape[1], frames.shape[2], frames.shape[3], taps.shape[1]
    T, n, X0, D = s.ring.shape[2] // N, x1 - x0, scale * x0, s.glass.shape[2]
    R, above = (D - 2) // 2, scale - 1
    taps_seen, rows_seen = max(y0 - above, 0), scale * (y0 - above) + above - R
    s.d_ring[:] = 0
    for q in range(y0 - above, y1):
        low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
        for y in range(taps_seen, high + 1):
            read_taps(taps, b, y, 0, x0, x1, s.ring, y % SLOTS)
        read_rows(frames, b, rows_seen, first + scale + R, X0, scale, n, s.raw, s.glass)
        taps_seen, rows_seen = high + 1, first + scale + R
        for i in range(N):
            for r in range(scale):
                if 0 <= first + r < H:
                    for c in range(C):
                        read_row(grad, b, i, c, first + r, X0, scale, n, s.raw, s.planes[c])
                    slot = (first + r - R) % D
                    differentiate_row(plan, scale, low % SLOTS, high % SLOTS, r, i, i * T, slot, n, s)
        if q >= y0:
            write_taps(s.d_ring, q % SLOTS, x0 == 0, x1 == taps.shape[2], d_taps, b, q, x0, n)
        clear(s.d_ring, q % SLOTS, n)


@compiled
def differentiate_row(plan, scale, low, high, r, i, t0, slot, n, s):
    """The gradients of the taps around one fine row of one frame."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            above, below, under = (low, m, t0, x), (high, m, t0, x), (i, 0, 0, m, x)
            part_out(plan, s.ring, above, below, a, c, s.glass, under, slot, s.planes, (0, m, x), s.d_ring)


@compiled
def number(array, at):
    """One float32 from its bits, or from its upper half."""
    return as_float(np.uint32(peek(array, at)) << np.uint32(32 - 8 * array.itemsize))


@compiled
def put(value, array, at):
    """One float32 as its bits, or as those of the nearest bfloat16, ties to even."""
    bits = as_bits(value)
    if array.itemsize == 2:
        bits = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    poke(bits, array, at)


@compiled
def scatter_frame(plan, scale, taps, grad, d_frames, b, i, s):
    """The gradient with respect to frame i, into d_frames, which carries a margin of R."""
    h, w, T, H, W = taps.shape[1], taps.shape[2], s.ring.shape[2], grad.shape[3], grad.shape[4]
    above, side = scale - 1, s.glass.shape[2] - 1
    for x0 in range(0, w, STRIP):
        x1, seen = min(x0 + STRIP, w), 0
        n, X0, wide = x1 - x0, scale * x0, min(scale * x1, W) - scale * x0
        for q in range(-above, h):
            low, high, first = max(q, 0), min(q + above, h - 1), scale * q + above
            for y in range(seen, high + 1):
                read_taps(taps, b, y, i * T, x0, x1, s.ring, y % SLOTS)
            seen = high + 1
            for r in range(scale):
                if 0 <= first + r < H:
                    kernels_of_row(plan, scale, low % SLOTS, high % SLOTS, r, n, s)
                    throw(side, scale, n, wide, grad, d_frames, b, i, first + r, X0, s)


@compiled
def kernels_of_row(plan, scale, low, high, r, n, s):
    """The fused kernels of one fine row, by columns modulo scale."""
    a, c = weights(r)
    for m in range(scale):
        for x in range(LEFT, LEFT + n, WIDTH):
            multiply_out(plan, s.ring, (low, m, 0, x), (high, m, 0, x), a, c, s.k, (m, 0, x))


@compiled
def throw(side, scale, n, wide, grad, d_frames, b, i, Y, X0, s):
    """Pixel p throws g k[d] onto p + d."""
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
