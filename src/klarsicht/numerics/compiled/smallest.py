# mypy: disable-error-code="no-untyped-call"
"""The least entries of long rows, in one pass: most entries are left behind sixteen at a time, by their minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.numerics.compiled.jit import Edition, inner, outer, spread

EDITION = Edition.of(__file__)
STRIDE = 128  # entries passed over together


def least(rows: NDArray[np.float32], c: int, *, threads: int | None = None) -> NDArray[np.int64]:
    """(b, c): the columns of the c least entries of each of b rows, in no order; of equal entries the first.

    Args:
        rows: float32 (b, N), not NaN, infinity allowed; 1 <= c <= N.
        threads: how many share the rows, numba's number if None; no result depends on it.
    """
    columns = np.empty((len(rows), c), np.int64)
    spread(lambda a, b: _least(EDITION, rows[a:b], columns[a:b]), len(rows), threads)
    return columns


@outer
def _least(edition: Any, rows: Any, columns: Any) -> None:
    """A heap of the c least so far, the greatest at its top."""
    n, c = rows.shape[1], columns.shape[1]
    heap = np.empty(c, np.float32)
    for r in range(len(rows)):
        row, column = rows[r], columns[r]
        for j in range(c):
            heap[j], column[j] = row[j], j
        for at in range(c // 2 - 1, -1, -1):
            sink(heap, column, at)
        for start in range(c, n, STRIDE):
            stop = min(start + STRIDE, n)
            if minimum(row, start, stop) < heap[0]:
                for j in range(start, stop):
                    if row[j] < heap[0]:
                        heap[0], column[0] = row[j], j
                        sink(heap, column, 0)


@inner
def minimum(row: Any, start: int, stop: int) -> Any:
    found = np.float32(np.inf)
    for j in range(start, stop):
        found = min(found, row[j])
    return found


@inner
def sink(heap: Any, column: Any, at: int) -> None:
    """Moves the entry at `at` below all greater ones; of equal entries the later column is the greater."""
    entry, own = heap[at], column[at]
    while 2 * at + 1 < len(heap):
        child = 2 * at + 1
        if child + 1 < len(heap) and above(heap[child + 1], column[child + 1], heap[child], column[child]):
            child += 1
        if not above(heap[child], column[child], entry, own):
            break
        heap[at], column[at] = heap[child], column[child]
        at = child
    heap[at], column[at] = entry, own


@inner
def above(entry: Any, column: int, other: Any, of: int) -> Any:
    return entry > other or (entry == other and column > of)
