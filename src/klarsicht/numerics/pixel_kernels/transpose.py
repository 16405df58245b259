# mypy: disable-error-code="no-untyped-call,import-untyped,untyped-decorator"
"""Transposition of taps from pixel-major to tap-major order in 16 x 16 blocks, with upsampling along the row.

Upsampling by 2 (bilinear, half-pixel centres, edges repeated): an even column is 3/4 p + 1/4 of its left neighbour, an
odd one 3/4 p + 1/4 of its right. Rows hold 4/3 of that, p + p'/3, which is one multiply-add; the interpolation between
rows compensates the factor.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.extending import intrinsic

from klarsicht.numerics.pixel_kernels.simd import ROW, WIDTH, VectorBuilder, splat

THIRD = splat(1 / 3)


def _rows(pen: VectorBuilder, corner: Any) -> list[Any]:
    """Load sixteen rows of the ring."""
    return [pen.load(pen.ahead(corner, j * ROW)) for j in range(WIDTH)]


def _put(pen: VectorBuilder, rows: list[Any], corner: Any) -> None:
    """Store sixteen rows to the ring."""
    for j, row in enumerate(rows):
        pen.store(row, pen.ahead(corner, j * ROW))


def _steps(pen: VectorBuilder, hop: Any) -> list[Any]:
    """Compute the offsets of sixteen pixels that are `hop` elements apart."""
    return [pen.builder.mul(hop, cgutils.intp_t(j)) for j in range(WIDTH)]


@intrinsic
def turn(typing: Any, taps: Any, at: Any, hop: Any, ring: Any, to: Any) -> Any:
    """Transpose sixteen pixels of sixteen taps, `hop` apart, into sixteen rows of the ring."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorBuilder(context, builder)
        first, corner = pen.address(signature.args[0], *args[:2]), pen.address(signature.args[3], *args[3:5])
        pixels = [pen.load(pen.ahead(first, step)) for step in _steps(pen, args[2])]
        _put(pen, pen.transposed(pixels), corner)
        return context.get_dummy_value()

    return types.void(taps, at, types.intp, ring, to), write


@intrinsic
def turn_twice(
    typing: Any, taps: Any, at: Any, hop: Any, before: Any, after: Any, ring: Any, to: Any, leap: Any
) -> Any:
    """Transpose and upsample: even columns to ring[to], odd ones `leap` later; before, after: steps to the
    neighbours.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorBuilder(context, builder)
        first, corner = pen.address(signature.args[0], *args[:2]), pen.address(signature.args[5], *args[5:7])
        steps = [args[3], *_steps(pen, args[2]), args[4]]
        p = [pen.load(pen.ahead(first, step)) for step in steps]
        inner = range(1, WIDTH + 1)
        _put(pen, pen.transposed([pen.fma(p[x - 1], THIRD, p[x]) for x in inner]), corner)
        _put(pen, pen.transposed([pen.fma(p[x + 1], THIRD, p[x]) for x in inner]), pen.ahead(corner, args[7]))
        return context.get_dummy_value()

    intp = types.intp
    return types.void(taps, at, intp, intp, intp, ring, to, intp), write


@intrinsic
def turn_back(typing: Any, d_ring: Any, at: Any, d_taps: Any, to: Any, hop: Any) -> Any:
    """Apply the adjoint of turn."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorBuilder(context, builder)
        corner, first = pen.address(signature.args[0], *args[:2]), pen.address(signature.args[2], *args[2:4])
        for step, pixel in zip(_steps(pen, args[4]), pen.transposed(_rows(pen, corner)), strict=True):
            pen.store(pixel, pen.ahead(first, step))
        return context.get_dummy_value()

    return types.void(d_ring, at, d_taps, to, types.intp), write


@intrinsic
def turn_twice_back(typing: Any, d_ring: Any, at: Any, leap: Any, d_taps: Any, to: Any, hop: Any) -> Any:
    """Apply the adjoint of turn_twice: e[x] + o[x] + (e[x + 1] + o[x - 1]) / 3, even columns e, odd ones o."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorBuilder(context, builder)
        even, first = pen.address(signature.args[0], *args[:2]), pen.address(signature.args[3], *args[3:5])
        odd = pen.ahead(even, args[2])
        e = [*pen.transposed(_rows(pen, even)), pen.column(pen.ahead(even, WIDTH), ROW)]
        o = [pen.column(pen.ahead(odd, -1), ROW), *pen.transposed(_rows(pen, odd))]
        for x, step in enumerate(_steps(pen, args[5])):
            beside = pen.plus(e[x + 1], o[x])
            pen.store(pen.fma(beside, THIRD, pen.plus(e[x], o[x + 1])), pen.ahead(first, step))
        return context.get_dummy_value()

    return types.void(d_ring, at, types.intp, d_taps, to, types.intp), write
