"""Cost of a computation: processor seconds, and the memory that it adds at its peak."""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
MIB = 1 / 1024  # of a kibibyte, the unit of the kernel's figures


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
    peak = _kibibytes("VmHWM")
    return result, Cost(seconds, None if before is None or peak is None else max(0, peak - before) * MIB)


def _reset_peak_memory() -> int | None:
    """Release freed memory and reset the peak (Linux); return the resident memory in kibibytes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(ctypes.util.find_library("c")).malloc_trim(0)  # glibc keeps what is freed
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    return _kibibytes("VmRSS")


def _kibibytes(field: str) -> int | None:
    """Read a field of the process status; None where the system has none."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
