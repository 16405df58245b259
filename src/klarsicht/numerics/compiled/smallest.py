# mypy: disable-error-code="no-untyped-call"
"""Smallest entries of long rows in one pass, by a heap; strides whose minimum is too large are skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.numerics.compiled.jit import SourceHash, compile_cached, compile_inlined, run_parallel

SOURCE_HASH = SourceHash.of(__file__)
STRIDE = 128  # entries whose minimum is compared at once


def smallest_columns(rows: NDArray[np.float32], c: int, *, threads: int | None = None) -> NDArray[np.int64]:
    """Find the columns (b, c) of the c smallest entries of each of b rows, float32 (b, N) without NaN, unordered; ties
    are broken by lowest column. Results do not depend on threads."""
    columns = np.empty((len(rows), c), np.int64)
    run_parallel(lambda a, b: _least(SOURCE_HASH, rows[a:b], columns[a:b]), len(rows), threads)
    return columns


@compile_cached
def _least(source_hash: Any, rows: Any, columns: Any) -> None:
    """Kernel: keep a heap of the c smallest entries so far, the largest of them at its root."""
    n, c = rows.shape[1], columns.shape[1]
    heap = np.empty(c, np.float32)
    for r in range(len(rows)):
        row, column = rows[r], columns[r]
        for j in range(c):
            heap[j], column[j] = row[j], j
        for at in range(c // 2 - 1, -1, -1):
            sift_down(heap, column, at)
        for start in range(c, n, STRIDE):
            stop = min(start + STRIDE, n)
            if minimum(row, start, stop) < heap[0]:
                for j in range(start, stop):
                    if row[j] < heap[0]:
                        heap[0], column[0] = row[j], j
                        sift_down(heap, column, 0)


@compile_inlined
def minimum(row: Any, start: int, stop: int) -> Any:
    found = np.float32(np.inf)
    for j in range(start, stop):
        found = min(found, row[j])
    return found


@compile_inlined
def sift_down(heap: Any, column: Any, at: int) -> None:
    """Sift the entry at `at` down the heap; of equal entries the later column is the greater."""
    entry, own = heap[at], column[at]
    while 2 * at + 1 < len(heap):
        child = 2 * at + 1
        if child + 1 < len(heap) and is_greater(heap[child + 1], column[child + 1], heap[child], column[child]):
            child += 1
        if not is_greater(heap[child], column[child], entry, own):
            break
        heap[at], column[at] = heap[child], column[child]
        at = child
    heap[at], column[at] = entry, own


@compile_inlined
def is_greater(entry: Any, column: int, other: Any, of: int) -> Any:
    """Compare two entries: whether the first is greater, ties by column."""
    return entry > other or (entry == other and column > of)
