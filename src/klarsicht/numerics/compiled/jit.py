# mypy: disable-error-code="no-untyped-call,untyped-decorator"
"""Numba compilation: kernels that are cached on disk, and loops over many problems in threads.

Numba keys its disk cache by the file of the kernel alone. So a cached kernel that calls another file's code takes a
`SourceHash` of all its sources as its first argument: the hash becomes a type, and a kernel compiled from other sources
is never loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import get_num_threads, njit, types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from klarsicht.ground.errors import UsageError

K = TypeVar("K", bound=type)

# Fast-math flags: sums may be reordered and numbers are never NaN; infinities are honoured.
FREE = {"nnan", "nsz", "reassoc", "contract"}
SUMS = FREE - {"contract"}  # without fused multiply-add products are rounded, so equal ones cancel


class ConstantType(types.Type):
    """Numba type of an object that a kernel is compiled for, one for each value."""

    def __init__(self, value: Any) -> None:
        self.value = value
        super().__init__(name=repr(value))


register_model(ConstantType)(models.OpaqueModel)


@unbox(ConstantType)
def _unbox(kind: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


def register_constant(kind: K) -> K:
    """Decorate a frozen class whose objects kernels take as constants: its representation must tell them apart."""
    typeof_impl.register(kind)(lambda value, context: ConstantType(value))
    return kind


@register_constant
@dataclass(frozen=True)
class SourceHash:
    """Hash of the source files that a kernel is compiled from."""

    digest: str

    @classmethod
    def of(cls, *files: str) -> SourceHash:
        sources = b"".join(Path(file).read_bytes() for file in files)
        return cls(hashlib.sha256(sources).hexdigest()[:16])


def compile_inlined(function: Callable[..., Any]) -> Any:
    """Compile a function with numba that is called by other kernels."""
    return njit(nogil=True, fastmath=FREE)(function)


def compile_cached(function: Callable[..., Any]) -> Any:
    """Compile a kernel with numba and cache it on disk; its first argument must be a SourceHash."""
    return compile_with(FREE)(function)


def compile_with(freedom: set[str]) -> Callable[[Callable[..., Any]], Any]:
    """Make a decorator like `compile_cached` with other fast-math flags than FREE; none, {"fast"} for all."""

    def kept(function: Callable[..., Any]) -> Any:
        try:
            return njit(nogil=True, fastmath=freedom, cache=True)(function)
        except RuntimeError:  # no writable cache folder: compiled anew by each process
            return njit(nogil=True, fastmath=freedom)(function)

    return kept


def run_parallel(job: Callable[[int, int], None], count: int, threads: int | None = None) -> None:
    """Run job(first, last) over parts of range(count), in so many threads (None: numba's number). Raises UsageError."""
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
