# mypy: disable-error-code="no-untyped-call"
"""Exact linear assignment for many small dense problems: min over permutations p of sum_i C[i, p(i)].

Axes: P rows and columns, Q columns padded to whole vectors.

Shortest augmenting paths with column duals (Jonker & Volgenant 1987, Computing 38:325-340), without the paper's
augmenting row reduction. A row takes its column of least reduced cost C[i, j] - v[j] where that is free; the others are
assigned one after another along the shortest alternating path. Initial duals are an argument: good ones save most of
the work. Exact where sums of costs are exact; else within rounding of the minimum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from klarsicht.numerics.compiled import jit, row_minima
from klarsicht.numerics.compiled.jit import compile_inlined
from klarsicht.numerics.compiled.row_minima import place, relax

SOURCES = (__file__, row_minima.__file__, jit.__file__)


class AssignmentWorkspace(NamedTuple):
    """Buffers for problems of one size: the row of each column, or -1; rows without a column; labels of the columns
    that a search has not visited (Q,); the visited columns, their duals and labels; duals u of the rows reached (P +
    1,)."""

    owner: Any
    free: Any
    near: Any
    visited: Any
    saved_duals: Any
    label: Any
    height: Any


@compile_inlined
def make_workspace(C: Any) -> AssignmentWorkspace:
    """Allocate buffers for problems of C's size (P, Q) and dtype."""
    (P, Q), kind = C.shape, C.dtype
    return AssignmentWorkspace(
        np.empty(P, np.int32),
        np.empty(P, np.int32),
        np.empty(Q, kind),
        np.empty(P, np.int32),
        np.empty(P, kind),
        np.empty(P, kind),
        np.empty(P + 1, kind),
    )


@compile_inlined
def tighten_duals(C: Any, v: Any, s: Any) -> None:
    """Set v_j = min_i (C[i, j] - u_i) with u_i = min_j (C[i, j] - v_j): each dual as large as the others allow."""
    P = len(C)
    w, zero = s.saved_duals, v.dtype.type(0)
    w[:] = np.inf
    for i in range(P):
        s.near[:] = np.inf
        u = relax(C, i, v, zero, s.near)
        for j in range(P):
            w[j] = min(w[j], C[i, j] - u)
    for j in range(P):
        v[j] = w[j]


@compile_inlined
def assign(C: Any, v: Any, columns: Any, s: AssignmentWorkspace) -> None:
    """Set columns[i] = p(i) of an optimal assignment.

    C: (P, Q), infinite from column P on. v: (Q,) any finite duals on entry, optimal ones on return.
    """
    for f in range(assign_nearest(C, v, columns, s)):
        augment(C, v, columns, s, s.free[f])


@compile_inlined
def assign_nearest(C: Any, v: Any, columns: Any, s: AssignmentWorkspace) -> int:
    """Assign to each row its nearest column unless an earlier row has it; returns the number of rows left in s.free."""
    count, u = 0, v.dtype.type(0)
    s.owner[:] = -1
    for i in range(len(C)):
        s.near[:] = np.inf
        j = place(s.near, relax(C, i, v, u, s.near))
        if s.owner[j] < 0:
            s.owner[j], columns[i] = i, j
        else:
            s.free[count], columns[i] = i, -1
            count += 1
    return count


@compile_inlined
def augment(C: Any, v: Any, columns: Any, s: AssignmentWorkspace, root: int) -> None:
    """Assign the free row root along the shortest alternating path to a free column, and update the duals."""
    s.near[:] = np.inf
    i, j, count = root, 0, 0
    u = v.dtype.type(0)
    while True:  # Dijkstra over columns; a visited column has the dual -inf, so that it is not reached again
        s.height[count] = u
        d = relax(C, i, v, u, s.near)
        j = place(s.near, d)
        if s.owner[j] < 0:
            break
        s.visited[count], s.saved_duals[count], s.label[count] = j, v[j], d
        count += 1
        i = s.owner[j]
        u = C[i, j] - v[j] - d
        v[j], s.near[j] = -np.inf, np.inf
    for t in range(count):
        v[s.visited[t]] = s.saved_duals[t]
    flip_path(C, v, columns, s, root, j, count)
    for t in range(count):
        v[s.visited[t]] += s.label[t] - d


@compile_inlined
def flip_path(C: Any, v: Any, columns: Any, s: AssignmentWorkspace, root: int, j: int, count: int) -> None:
    """Trace the path back from the free column j: each column gets the row that gave it its label, searched again."""
    while count >= 0:
        best, at, row = v.dtype.type(np.inf), 0, root
        for t in range(count + 1):
            i = root if t == 0 else s.owner[s.visited[t - 1]]
            d = C[i, j] - v[j] - s.height[t]
            if d < best:
                best, at, row = d, t, i
        s.owner[j], columns[row] = row, j
        j, count = s.visited[at - 1], at - 1
