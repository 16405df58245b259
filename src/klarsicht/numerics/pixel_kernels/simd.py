# mypy: disable-error-code="no-untyped-call,import-untyped,untyped-decorator"
"""Vectors of sixteen float32 for numba, written as LLVM instructions: one AVX-512 register, two of AVX2 or four of
NEON. Sums never combine lanes, so results do not depend on the width of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, register_model

WIDTH = 16

# Scratch rows all have one length, so that every address in a program is a constant away from one corner: a strip of
# columns of taps, from LEFT on, and room for the offsets of a kernel around them. An odd number of cache lines: rows
# that began at the same place modulo 4096 would push one another out of the cache.
STRIP, LEFT = 64, 16
ROW = LEFT + STRIP + 32

FLOAT, SHORT, WORD = ir.FloatType(), ir.IntType(16), ir.IntType(32)
FLOATS, SHORTS, WORDS = (ir.VectorType(t, WIDTH) for t in (FLOAT, SHORT, WORD))


class Lanes(types.Type):
    """Numba type of one vector."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


def splat(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [value] * WIDTH)


def splat_integer(value: int) -> ir.Constant:
    return ir.Constant(WORDS, [value] * WIDTH)


class VectorBuilder:
    """Builder of LLVM vector instructions."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    def address(self, kind: Any, array: Any, index: Any) -> Any:
        """Compute the address of array[index]; no bounds check, no negative index."""
        view = self.context.make_array(kind)(self.context, self.builder, value=array)
        where = cgutils.unpack_tuple(self.builder, index) if index.type != cgutils.intp_t else [index]
        return cgutils.get_item_pointer(self.context, self.builder, kind, view, where, wraparound=False)

    def gep(self, address: Any, offset: Any) -> Any:
        step = offset if isinstance(offset, ir.Value) else cgutils.intp_t(offset)
        return self.builder.gep(address, [step])

    def load(self, address: Any) -> Any:
        """Load sixteen consecutive numbers: float32 (or its bits), or bfloat16 as the upper halves of float32."""
        if address.type.pointee != SHORT:
            return self.builder.load(self.builder.bitcast(address, FLOATS.as_pointer()), align=4)
        halves = self.builder.load(self.builder.bitcast(address, SHORTS.as_pointer()), align=2)
        wide = self.builder.shl(self.builder.zext(halves, WORDS), splat_integer(16))
        return self.builder.bitcast(wide, FLOATS)

    def store(self, value: Any, address: Any) -> None:
        """Store sixteen consecutive numbers: float32 (or its bits), or bfloat16 rounded to nearest, ties to even."""
        if address.type.pointee != SHORT:
            self.builder.store(value, self.builder.bitcast(address, FLOATS.as_pointer()), align=4)
            return
        bits = self.builder.bitcast(value, WORDS)
        odd = self.builder.and_(self.builder.lshr(bits, splat_integer(16)), splat_integer(1))
        rounded = self.builder.add(bits, self.builder.add(odd, splat_integer(0x7FFF)))
        halves = self.builder.trunc(self.builder.lshr(rounded, splat_integer(16)), SHORTS)
        self.builder.store(halves, self.builder.bitcast(address, SHORTS.as_pointer()), align=2)

    def fma(self, a: Any, b: Any, c: Any | None) -> Any:
        if c is None:
            return self.builder.fmul(a, b)
        kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
        fused = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32")
        return self.builder.call(fused, [a, b, c])

    def load_column(self, address: Any, stride: int) -> Any:
        """Load sixteen numbers that are `stride` elements apart."""
        lanes = ir.Constant(FLOATS, ir.Undefined)
        for j in range(WIDTH):
            lanes = self.builder.insert_element(lanes, self.builder.load(self.gep(address, j * stride)), WORD(j))
        return lanes

    def add(self, a: Any, b: Any | None) -> Any:
        return a if b is None else self.builder.fadd(a, b)

    def sum_pairwise(self, values: Sequence[Any]) -> Any:
        """Sum pairwise by halves: short dependency chains keep the adders busy."""
        if len(values) == 1:
            return values[0]
        half = len(values) // 2
        return self.builder.fadd(self.sum_pairwise(values[:half]), self.sum_pairwise(values[half:]))

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Transpose a 16 x 16 block, by exchanging blocks of side 1, 2, 4, 8."""
        rows = list(rows)
        for d in (1, 2, 4, 8):
            low = [j if j & d == 0 else WIDTH + j - d for j in range(WIDTH)]
            high = [j + d if j & d == 0 else WIDTH + j for j in range(WIDTH)]
            for i in (i for i in range(WIDTH) if i & d == 0):
                a, b = rows[i], rows[i + d]
                rows[i], rows[i + d] = (
                    self.builder.shuffle_vector(a, b, ir.Constant(WORDS, mask)) for mask in (low, high)
                )
        return rows


@intrinsic
def prefetch(typing: Any, array: Any, index: Any, start: Any, stop: Any) -> Any:
    """Prefetch the cache lines of elements start to stop after array[index], without waiting."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        first = vectors.address(signature.args[0], *args[:2])
        size = context.get_abi_sizeof(first.type.pointee)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), WORD, WORD, WORD])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, args[2], args[3], cgutils.intp_t(64 // size)) as (step, _):
            line = builder.bitcast(vectors.gep(first, step), ir.IntType(8).as_pointer())
            builder.call(ask, [line, WORD(0), WORD(2), WORD(1)])
        return context.get_dummy_value()

    return types.void(array, index, types.intp, types.intp), write


@intrinsic
def read_element(typing: Any, array: Any, index: Any) -> Any:
    """Read array[index], index not negative and not checked."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(VectorBuilder(context, builder).address(signature.args[0], *args))

    return array.dtype(array, index), write


@intrinsic
def write_element(typing: Any, value: Any, array: Any, index: Any) -> Any:
    """Set array[index] = value, index not negative and not checked."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], VectorBuilder(context, builder).address(signature.args[1], *args[1:]))
        return context.get_dummy_value()

    return types.void(array.dtype, array, index), write


def _reinterpret(source: Any, target: Any, kind: Any) -> Any:
    """Make the intrinsic that reads the bits of one type as another, `kind` in LLVM."""

    @intrinsic
    def convert(typing: Any, value: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], kind)

        return target(source), write

    return convert


as_float, as_bits = (
    _reinterpret(types.uint32, types.float32, FLOAT), _reinterpret(types.float32, types.uint32, WORD)
)  # fmt: skip


def _load_after(step: int) -> Any:
    """Make the intrinsic that loads array[index + step : index + step + 16], along the last axis."""

    @intrinsic
    def read(typing: Any, array: Any, index: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = VectorBuilder(context, builder)
            return vectors.load(vectors.gep(vectors.address(signature.args[0], *args), step))

        return LANES(array, index), write

    return read


load, load_next = _load_after(0), _load_after(WIDTH)


@intrinsic
def store(typing: Any, lanes: Any, array: Any, index: Any) -> Any:
    """Set array[index : index + 16] = lanes, along the last axis."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        vectors.store(args[0], vectors.address(signature.args[1], *args[1:]))
        return context.get_dummy_value()

    return types.void(lanes, array, index), write


def _every_second(start: int) -> Any:
    @intrinsic
    def pick(typing: Any, a: Any, b: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.shuffle_vector(*args, ir.Constant(WORDS, list(range(start, 2 * WIDTH, 2))))

        return LANES(LANES, LANES), write

    return pick


evens, odds = _every_second(0), _every_second(1)  # of thirty-two consecutive numbers in two vectors


@intrinsic
def zip_store(typing: Any, a: Any, b: Any, array: Any, index: Any) -> Any:
    """Store two vectors interleaved: array[index : index + 32] = a[0], b[0], a[1], b[1], ..."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = VectorBuilder(context, builder)
        first = vectors.address(signature.args[2], *args[2:])
        for half in range(2):
            order = [lane + side for lane in range(8 * half, 8 * half + 8) for side in (0, WIDTH)]
            mixed = builder.shuffle_vector(args[0], args[1], ir.Constant(WORDS, order))
            vectors.store(mixed, vectors.gep(first, WIDTH * half))
        return context.get_dummy_value()

    return types.void(LANES, LANES, array, index), write


@intrinsic
def broadcast(typing: Any, value: Any) -> Any:
    """Broadcast one float32 to all sixteen lanes."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), args[0], WORD(0))
        return builder.shuffle_vector(one, one, ir.Constant(WORDS, [0] * WIDTH))

    return LANES(types.float32), write
