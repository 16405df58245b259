# mypy: disable-error-code="no-untyped-call,import-untyped,untyped-decorator"
"""Vectorised minima of rows of reduced costs, sixteen columns at a time: LLVM instructions, where numba's own
vectoriser fails. Rows are padded to a multiple of WIDTH with infinite costs. Minima do not depend on the order of the
lanes, nor on the machine."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from klarsicht.numerics.compiled.jit import compile_inlined

WIDTH = 16


def padded_width(P: int) -> int:
    return -(-P // WIDTH) * WIDTH


class VectorWriter:
    """Builder of LLVM vector instructions for arrays of one dtype."""

    def __init__(self, context: Any, builder: Any, dtype: Any) -> None:
        self.context, self.builder = context, builder
        self.vector = ir.VectorType(context.get_value_type(dtype), WIDTH)

    def view(self, kind: Any, array: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, value=array)

    def row(self, kind: Any, array: Any, *index: Any) -> Any:
        """Return the address of an array's entry, or of its first entry where no index is given."""
        index = index or (cgutils.intp_t(0),)
        return cgutils.get_item_pointer(self.context, self.builder, kind, self.view(kind, array), index)

    def place(self, row: Any, j: Any) -> Any:
        """Return the address of the vector that starts at entry j of a row."""
        return self.builder.bitcast(self.builder.gep(row, [j]), self.vector.as_pointer())

    def load(self, row: Any, j: Any) -> Any:
        return self.builder.load(self.place(row, j), align=4)

    def store(self, value: Any, row: Any, j: Any) -> None:
        self.builder.store(value, self.place(row, j), align=4)

    def splat(self, scalar: Any) -> Any:
        lane = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.IntType(32)(0))
        return self.shuffle(lane, [0] * WIDTH)

    def shuffle(self, value: Any, lanes: list[int]) -> Any:
        pick = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), pick)

    def least(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def least_lane(self, value: Any) -> Any:
        half = WIDTH
        while half := half // 2:
            value = self.least(self.shuffle(value, list(range(half))), self.shuffle(value, list(range(half, 2 * half))))
        return self.builder.extract_element(value, ir.IntType(32)(0))


@intrinsic
def _relax(context: Any, C: Any, i: Any, v: Any, u: Any, d: Any) -> Any:
    """Set d = min(d, C[i] - v - u) and return the minimum of d. C: (P, Q), v and d: (Q,), Q a multiple of WIDTH."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorWriter(context, builder, d.dtype)
        row = pen.row(C, args[0], args[1], cgutils.intp_t(0))
        duals, labels, lift = pen.row(v, args[2]), pen.row(d, args[4]), pen.splat(args[3])
        far = ir.Constant(pen.vector, [float("inf")] * WIDTH)
        least = cgutils.alloca_once_value(builder, far)
        size, step = cgutils.unpack_tuple(builder, pen.view(d, args[4]).shape)[0], cgutils.intp_t(WIDTH)
        with cgutils.for_range_slice(builder, cgutils.intp_t(0), size, step, cgutils.intp_t) as (j, _):
            reduced = builder.fsub(builder.fsub(pen.load(row, j), pen.load(duals, j)), lift)
            label = pen.least(reduced, pen.load(labels, j))
            pen.store(label, labels, j)
            builder.store(pen.least(label, builder.load(least)), least)
        return pen.least_lane(builder.load(least))

    return d.dtype(C, types.intp, v, d.dtype, d), write


relax: Any = _relax  # untyped: for the type checker an intrinsic still has its typing context as first argument


@intrinsic
def _lane(context: Any, d: Any, j: Any, least: Any) -> Any:
    """Return the first t with d[j + t] <= least, WIDTH where there is none."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pen = VectorWriter(context, builder, d.dtype)
        near = builder.fcmp_ordered("<=", pen.load(pen.row(d, args[0]), args[1]), pen.splat(args[2]))
        lanes = builder.bitcast(near, ir.IntType(WIDTH))
        return builder.zext(builder.cttz(lanes, ir.IntType(1)(0)), cgutils.intp_t)

    return types.intp(d, types.intp, d.dtype), write


_first_lane: Any = _lane


@compile_inlined
def place(d: Any, least: Any) -> Any:
    """Return the first j with d[j] <= least; there must be one."""
    for j in range(0, len(d), WIDTH):
        t = _first_lane(d, j, least)
        if t < WIDTH:
            return j + t
    return 0
