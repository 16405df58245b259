"""Cost of a computation: processor seconds, elapsed seconds, and memory at its peak."""

from __future__ import annotations

import time
from dataclasses import dataclass

from klarsicht.ground.machine.operating_system import memory_status, reset_memory_peak, return_freed_memory

MIB = 2**20  # bytes


@dataclass(frozen=True)
class Cost:
    """Cost of a computation: processor seconds of all threads, elapsed seconds, bytes of resident memory at the peak
    and beyond those at the start (None where the system does not report them)."""

    cpu: float
    wall: float
    peak: int | None = None
    added: int | None = None

    @property
    def added_mib(self) -> float | None:
        return None if self.added is None else self.added / MIB


class Stopwatch:
    """Clock that starts when it is made; freed memory is returned first, and the peak counts from here (Linux)."""

    def __init__(self) -> None:
        return_freed_memory()
        self._resident = memory_status("VmRSS") if reset_memory_peak() else None
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def cost(self) -> Cost:
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        peak = memory_status("VmHWM")
        if self._resident is None or peak is None:
            return Cost(cpu, wall)
        return Cost(cpu, wall, peak, max(0, peak - self._resident))
