# mypy: disable-error-code="no-untyped-call,import-untyped,untyped-decorator"
"""Transposition of taps from pixel-major to tap-major order in 16 x 16 blocks, with upsampling along the row.

Upsampling by 2 (bilinear, half-pixel centres, edges repeated): an even column is 3/4 p + 1/4 of its left neighbour, an
odd one of its right. Rows hold 4/3 of that, p + p'/3; the interpolation between rows compensates the factor."""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.extending import intrinsic

from klarsicht.numerics.pixel_kernels.simd import ROW, WIDTH, VectorBuilder, splat

THIRD = splat(1 / 3)


def _load_rows(vectors: VectorBuilder, corner: Any) -> list[Any]:
    return [vectors.load(vectors.gep(corner, j * ROW)) for j in range(WIDTH)]


def _store_rows(vectors: VectorBuilder, rows: list[Any], corner: Any) -> None:
    for j, row in enumerate(rows):
        vectors.store(row, vectors.gep(corner, j * ROW))


def _pixel_offsets(vectors: VectorBuilder, stride: Any) -> list[Any]:
    """Compute the offsets of sixteen pixels that are `stride` elements apart."""
    return [vectors.builder.mul(stride, cgutils.intp_t(j)) for j in range(WIDTH)]


@intrinsic
def transpose_taps(typing: Any, taps: Any, at: Any, stride: Any, ring: Any, to: Any) -> Any:
    """Transpose sixteen pixels of sixteen taps, `stride` apart, into sixteen rows of the ring."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        first, corner = vectors.address(signature.args[0], *args[:2]), vectors.address(signature.args[3], *args[3:5])
        pixels = [vectors.load(vectors.gep(first, step)) for step in _pixel_offsets(vectors, args[2])]
        _store_rows(vectors, vectors.transpose(pixels), corner)
        return context.get_dummy_value()

    return types.void(taps, at, types.intp, ring, to), write


@intrinsic
def transpose_upsampled(
    typing: Any, taps: Any, at: Any, stride: Any, before: Any, after: Any, ring: Any, to: Any, odd_offset: Any
) -> Any:
    """Transpose and upsample: even columns to ring[to], odd ones `odd_offset` later; before, after: the neighbours."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        first, corner = vectors.address(signature.args[0], *args[:2]), vectors.address(signature.args[5], *args[5:7])
        steps = [args[3], *_pixel_offsets(vectors, args[2]), args[4]]
        p = [vectors.load(vectors.gep(first, step)) for step in steps]
        inner = range(1, WIDTH + 1)
        _store_rows(vectors, vectors.transpose([vectors.fma(p[x - 1], THIRD, p[x]) for x in inner]), corner)
        odd = vectors.transpose([vectors.fma(p[x + 1], THIRD, p[x]) for x in inner])
        _store_rows(vectors, odd, vectors.gep(corner, args[7]))
        return context.get_dummy_value()

    intp = types.intp
    return types.void(taps, at, intp, intp, intp, ring, to, intp), write


@intrinsic
def transpose_taps_adjoint(typing: Any, d_ring: Any, at: Any, d_taps: Any, to: Any, stride: Any) -> Any:
    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        corner, first = vectors.address(signature.args[0], *args[:2]), vectors.address(signature.args[2], *args[2:4])
        pixels = vectors.transpose(_load_rows(vectors, corner))
        for step, pixel in zip(_pixel_offsets(vectors, args[4]), pixels, strict=True):
            vectors.store(pixel, vectors.gep(first, step))
        return context.get_dummy_value()

    return types.void(d_ring, at, d_taps, to, types.intp), write


@intrinsic
def transpose_upsampled_adjoint(
    typing: Any, d_ring: Any, at: Any, odd_offset: Any, d_taps: Any, to: Any, stride: Any
) -> Any:
    """Apply the adjoint of transpose_upsampled: e[x] + o[x] + (e[x + 1] + o[x - 1]) / 3, even columns e, odd ones o."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        even, first = vectors.address(signature.args[0], *args[:2]), vectors.address(signature.args[3], *args[3:5])
        odd = vectors.gep(even, args[2])
        e = [*vectors.transpose(_load_rows(vectors, even)), vectors.load_column(vectors.gep(even, WIDTH), ROW)]
        o = [vectors.load_column(vectors.gep(odd, -1), ROW), *vectors.transpose(_load_rows(vectors, odd))]
        for x, step in enumerate(_pixel_offsets(vectors, args[5])):
            beside = vectors.add(e[x + 1], o[x])
            vectors.store(vectors.fma(beside, THIRD, vectors.add(e[x], o[x + 1])), vectors.gep(first, step))
        return context.get_dummy_value()

    return types.void(d_ring, at, types.intp, d_taps, to, types.intp), write
