# mypy: disable-error-code="no-untyped-call,import-untyped,untyped-decorator"
"""Code generator for sixteen pixels: kernel products, weighted sums and their adjoint as unrolled vector code.

The loops over sizes and offsets run while the code is generated, and only loads, multiply-adds and stores remain at run
time. `sweep` runs the generated code along the rows of an image.

Notation: a_K, b_K column and row of size K, upsampled; k the fused kernel before its gain; g the gradient of an output;
v that of k; d = (i, j) an offset from -R to R."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from klarsicht.numerics.compiled.jit import SourceHash, register_constant
from klarsicht.numerics.pixel_kernels.simd import ROW, VectorBuilder, splat
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

PHASES = 3  # X[2 x], X[2 x + 1], X[2 x + 2]: an offset from an odd column may end on the next even one

SOURCE_HASH = SourceHash.of(*map(str, sorted(Path(__file__).parent.glob("*.py"))))


@register_constant
@dataclass(frozen=True)
class Plan:
    """Parameters of the generated code: the kernels, the number of planes that share each kernel's registers, 1 to 4,
    and the hash of this package, so that numba's disk cache holds no code of other sources."""

    spec: KernelSpec
    planes: int
    source_hash: SourceHash = SOURCE_HASH

    @property
    def depth(self) -> int:
        """Number D of rows of a frame in the ring: a window and the second row of a seam."""
        return 2 * self.spec.radius + 2


Offset = tuple[int, int]


def offsets(spec: KernelSpec) -> list[Offset]:
    """List all d of the fused kernel; rows i and -i are adjacent, since one load of b[j] then serves both."""
    R = spec.radius
    return [(i, j) for r in range(R, -1, -1) for j in range(-R, R + 1) for i in sorted({-r, r})]


def tap_factors(spec: KernelSpec, d: Offset) -> Iterator[tuple[int, ...]]:
    """Yield the taps whose product each size adds to k at d: (a_K[i], b_K[j]), or the one entry of a full kernel."""
    i, j = d
    for s, K in enumerate(spec.sizes):
        r = K // 2
        if max(abs(i), abs(j)) > r:
            continue
        if spec.separable:
            yield spec.starts[s] + r + i, spec.starts[s + len(spec.sizes)] + r + j
        else:
            yield (spec.starts[s] + (r + i) * K + r + j,)


class Taps:
    """Upsampled taps of sixteen pixels, interpolated between two rows at first use (upscale 2)."""

    def __init__(self, vectors: VectorBuilder, spec: KernelSpec, low: Any, high: Any, weights: tuple[Any, Any]) -> None:
        self.vectors, self.spec, self.low, self.high, self.weights = vectors, spec, low, high, weights
        self.known: dict[int, Any] = {}

    def __getitem__(self, t: int) -> Any:
        if t not in self.known:
            a = self.vectors.load(self.vectors.gep(self.low, t * ROW))
            if self.spec.upscale == 2:
                c = self.vectors.load(self.vectors.gep(self.high, t * ROW))
                a = self.vectors.fma(a, self.weights[0], self.vectors.fma(c, self.weights[1], None))
            self.known[t] = a
        return self.known[t]

    def kernel(self, d: Offset) -> Any:
        """Compute k[d] = sum_K a_K[i] b_K[j], or the sum of the entries."""
        total = None
        for first, *second in tap_factors(self.spec, d):
            one = self[first]
            total = self.vectors.fma(one, self[second[0]], total) if second else self.vectors.add(one, total)
        return total


class FrameWindow:
    """Frame window of sixteen pixels, by columns modulo upscale: plane c at offset d. Rows lie in a ring; the top row
    of the window is in `slot`."""

    def __init__(self, vectors: VectorBuilder, plan: Plan, corner: Any, slot: Any) -> None:
        self.vectors, self.plan = vectors, plan
        b, wide = vectors.builder, slot.type
        slots = [b.add(slot, wide(r)) for r in range(plan.spec.side)]
        wrapped = [b.select(b.icmp_signed("<", s, wide(plan.depth)), s, b.sub(s, wide(plan.depth))) for s in slots]
        self.rows = [vectors.gep(corner, b.mul(s, wide(PHASES * ROW))) for s in wrapped]

    def __getitem__(self, at: tuple[int, Offset]) -> Any:
        """Load sixteen pixels of plane c at offset d."""
        c, (i, j) = at
        across, odd = divmod(j, 2) if self.plan.spec.upscale == 2 else (j, 0)
        step = (self.plan.depth * c * PHASES + odd) * ROW + across
        return self.vectors.load(self.vectors.gep(self.rows[i + self.plan.spec.radius], step))


def _taps(vectors: VectorBuilder, signature: Any, args: Any) -> Taps:
    """Make the taps from the leading arguments: plan, ring, low, high, weight of low, weight of high."""
    ring = signature.args[1]
    low, high = (vectors.address(ring, args[1], at) for at in args[2:4])
    return Taps(vectors, signature.args[0].value.spec, low, high, tuple(args[4:6]))


@intrinsic
def weigh(
    typing: Any,
    plan: Any,
    ring: Any,
    low: Any,
    high: Any,
    near: Any,
    far: Any,
    frame_rows: Any,
    under: Any,
    slot: Any,
    out: Any,
    to: Any,
) -> Any:
    """Compute out_c = gain sum_d k[d] X_c[p + d] of all planes from ring[low], ring[high], frame_rows[under]."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, plan = VectorBuilder(context, builder), signature.args[0].value
        taps = _taps(vectors, signature, args)
        X = FrameWindow(vectors, plan, vectors.address(signature.args[6], *args[6:8]), args[8])
        first = vectors.address(signature.args[9], *args[9:11])
        for c, terms in enumerate(fused_terms(vectors, plan, taps, X)):
            y = vectors.fma(vectors.sum_pairwise(terms), splat(plan.spec.gain), None)
            vectors.store(y, vectors.gep(first, c * PHASES * ROW))
        return context.get_dummy_value()

    return types.void(plan, ring, low, high, near, far, frame_rows, under, types.intp, out, to), write


def fused_terms(vectors: VectorBuilder, plan: Plan, taps: Taps, X: FrameWindow) -> list[list[Any]]:
    """Compute the terms of sum_d k[d] X_c[p + d] for each plane, as a few independent sums that run in parallel."""
    chains: list[dict[Any, Any]] = [{} for _ in range(plan.planes)]
    for d in offsets(plan.spec):
        k, link = taps.kernel(d), (d[0] > 0, plan.planes < 3 and d[1] > 0)
        for c, chain in enumerate(chains):
            chain[link] = vectors.fma(k, X[c, d], chain.get(link))
    return [list(chain.values()) for chain in chains]


@intrinsic
def multiply_out(typing: Any, plan: Any, ring: Any, low: Any, high: Any, near: Any, far: Any, k: Any, to: Any) -> Any:
    """Compute k[d] = gain sum_K a_K[i] b_K[j] into k[to ..], d counted row by row."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, spec = VectorBuilder(context, builder), signature.args[0].value.spec
        taps = _taps(vectors, signature, args)
        first = vectors.address(signature.args[6], *args[6:8])
        for i, j in offsets(spec):
            n = (i + spec.radius) * spec.side + j + spec.radius
            vectors.store(vectors.fma(taps.kernel((i, j)), splat(spec.gain), None), vectors.gep(first, n * ROW))
        return context.get_dummy_value()

    return types.void(plan, ring, low, high, near, far, k, to), write


@intrinsic
def differentiate_taps(
    typing: Any,
    plan: Any,
    ring: Any,
    low: Any,
    high: Any,
    near: Any,
    far: Any,
    frame_rows: Any,
    under: Any,
    slot: Any,
    g: Any,
    of: Any,
    d_ring: Any,
) -> Any:
    """Apply the adjoint of weigh with respect to the taps, added to d_ring[low] and d_ring[high].

    v[d] = gain sum_c g_c X_c[p + d]; a_K'[i] = sum_j v[d] b_K[j], b_K'[j] = sum_i v[d] a_K[i].
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, plan = VectorBuilder(context, builder), signature.args[0].value
        taps = _taps(vectors, signature, args)
        X = FrameWindow(vectors, plan, vectors.address(signature.args[6], *args[6:8]), args[8])
        source = vectors.address(signature.args[9], *args[9:11])
        to_low, to_high = (vectors.address(signature.args[11], args[11], at) for at in args[2:4])
        planes = [vectors.load(vectors.gep(source, c * PHASES * ROW)) for c in range(plan.planes)]
        gs = [vectors.fma(plane, splat(plan.spec.gain), None) for plane in planes]
        v = {d: weighted_pixels(vectors, gs, X, d) for d in offsets(plan.spec)}
        for s in range(len(plan.spec.sizes)):
            for t, total in _adjoint(vectors, taps, v, s).items():
                if plan.spec.upscale == 1:
                    vectors.store(total, vectors.gep(to_low, t * ROW))
                    continue
                for corner, weight in zip((to_low, to_high), taps.weights, strict=True):
                    here = vectors.gep(corner, t * ROW)
                    vectors.store(vectors.fma(total, weight, vectors.load(here)), here)
        return context.get_dummy_value()

    return types.void(plan, ring, low, high, near, far, frame_rows, under, types.intp, g, of, d_ring), write


def weighted_pixels(vectors: VectorBuilder, gs: list[Any], X: FrameWindow, d: Offset) -> Any:
    total = None
    for c, g in enumerate(gs):
        total = vectors.fma(g, X[c, d], total)
    return total


def _adjoint(vectors: VectorBuilder, taps: Taps, v: dict[Offset, Any], s: int) -> dict[int, Any]:
    """Compute gradients of the taps of size number s, whose products are at s - |S| from the end of lists of parts."""
    gradient: dict[int, Any] = {}
    for d in offsets(KernelSpec((taps.spec.sizes[s],))):
        first, *second = list(tap_factors(taps.spec, d))[s - len(taps.spec.sizes)]
        if second:
            b = second[0]
            gradient[b] = vectors.fma(v[d], taps[first], gradient.get(b))
            gradient[first] = vectors.fma(v[d], taps[b], gradient.get(first))
        else:
            gradient[first] = v[d]
    return gradient
