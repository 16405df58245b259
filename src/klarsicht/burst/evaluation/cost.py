"""Cost of a computation: processor seconds, and the memory that it adds at its peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from klarsicht.ground.machine.operating_system import memory_status, reset_memory_peak, return_freed_memory

T = TypeVar("T")

MIB = 2**-20  # of a byte


@dataclass(frozen=True)
class Cost:
    """Cost of a computation. cpu_s: of all threads. peak_mib: resident memory at its peak less that at the start; None
    where the system does not report it."""

    cpu_s: float
    peak_mib: float | None


def measure_cost(work: Callable[[], T]) -> tuple[T, Cost]:
    """Run a function; return its result and its cost."""
    before = _reset_peak_memory()
    began = time.process_time()
    result = work()
    seconds = time.process_time() - began
    peak = memory_status("VmHWM")
    return result, Cost(seconds, None if before is None or peak is None else max(0, peak - before) * MIB)


def _reset_peak_memory() -> int | None:
    """Release freed memory and reset the peak (Linux); return the resident memory in bytes, or None elsewhere."""
    return_freed_memory()
    return memory_status("VmRSS") if reset_memory_peak() else None
