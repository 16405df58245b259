# mypy: disable-error-code="no-untyped-call,untyped-decorator"
"""Compiled loops over many small problems: how they are compiled, kept on disk, and spread over threads.

Numba keys what it keeps on disk by the file of the kernel alone, not by the files of the functions inlined into it. So
every kernel that is kept takes an `Edition` of all its sources as its first argument: a type of its own for each state
of them, and a kernel compiled from other sources is never found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads, njit, types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from klarsicht.ground.errors import UsageError

# Sums may be reordered and numbers are never NaN; infinities keep their meaning.
FREE = {"nnan", "nsz", "reassoc", "contract"}
SUMS = FREE - {"contract"}  # products are rounded, so equal ones cancel


@dataclass(frozen=True)
class Edition:
    """The state of the sources that a kernel is compiled from."""

    digest: str

    @classmethod
    def of(cls, *files: str) -> Edition:
        sources = b"".join(Path(file).read_bytes() for file in files)
        return cls(hashlib.sha256(sources).hexdigest()[:16])


class EditionType(types.Type):
    """An Edition as a type."""

    def __init__(self, digest: str) -> None:
        super().__init__(name=f"Edition({digest})")


@typeof_impl.register(Edition)
def _typeof(edition: Edition, context: Any) -> EditionType:
    return EditionType(edition.digest)


register_model(EditionType)(models.OpaqueModel)


@unbox(EditionType)
def _unbox(kind: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


def inner(function: Callable[..., Any]) -> Any:
    """Compiled into the kernels that call it."""
    return njit(nogil=True, fastmath=FREE)(function)


def outer(function: Callable[..., Any]) -> Any:
    """Compiled once and kept on disk; its first argument is an Edition."""
    return compiled(FREE)(function)


def compiled(freedom: set[str]) -> Callable[[Callable[..., Any]], Any]:
    """`outer` with other freedom than FREE."""

    def kept(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, fastmath=freedom, cache=True)(function)
        except RuntimeError:  # nowhere to write: compiled anew by each process
            return njit(nogil=True, fastmath=freedom)(function)

    return kept


def spread(job: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """job(first, last) over the parts of range(count), in this many threads (numba's number if None).

    Raises:
        UsageError: fewer than one thread.
    """
    threads = get_num_threads() if threads is None else threads
    if threads < 1:
        raise UsageError("number of threads", got=threads, rule="at least 1")
    parts = 1 if threads == 1 else min(count, 4 * threads)
    if parts <= 1:
        return job(0, count)
    edges = np.linspace(0, count, parts + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(job, *part) for part in pairwise(edges)]:
            done.result()
    return None
