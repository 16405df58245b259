"""Cost of computations: processor seconds, elapsed seconds, disk, memory; and its growth with the size of a group."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from klarsicht.ground.machine.operating_system import memory_status, reset_memory_peak, return_freed_memory

FILE_BLOCK = 512  # bytes, in which file systems count


@dataclass(frozen=True)
class Cost:
    """Cost of a computation.

    Attributes:
        cpu: processor seconds of this process.
        wall: elapsed seconds.
        disk: bytes that were written, as the file system counts them.
        added: bytes of resident memory at the peak, beyond those at the start; 0 where the system does not report it.
        peak: bytes of resident memory at the peak; 0 likewise.
    """

    cpu: float = 0.0
    wall: float = 0.0
    disk: float = 0.0
    added: float = 0.0
    peak: float = 0.0

    @property
    def undisturbed_seconds(self) -> float:
        """Seconds that it would take where nothing else runs, about: elapsed ones, or the processor's where fewer."""
        return min(self.wall, self.cpu)

    def __add__(self, other: Cost) -> Cost:
        """Cost of both, one after the other."""
        return Cost(
            self.cpu + other.cpu,
            self.wall + other.wall,
            self.disk + other.disk,
            max(self.added, other.added),
            max(self.peak, other.peak),
        )

    def times(self, factor: float) -> Cost:
        """Multiply seconds and disk; memory stays."""
        return replace(self, cpu=self.cpu * factor, wall=self.wall * factor, disk=self.disk * factor)

    def beyond(self, other: Cost) -> Cost:
        """Subtract seconds and disk of another cost, down to 0; memory stays."""
        return replace(
            self,
            cpu=max(0.0, self.cpu - other.cpu),
            wall=max(0.0, self.wall - other.wall),
            disk=max(0.0, self.disk - other.disk),
        )


class Stopwatch:
    """Holder of the cost of a block of code, known when it has ended."""

    cost: Cost = Cost()


@contextmanager
def measure_cost(folder: Path | None = None) -> Iterator[Stopwatch]:
    """Measure the cost of the code inside.

    Args:
        folder: what is written below it counts as disk.
    """
    gc.collect()
    return_freed_memory()
    before = disk_bytes(folder)
    resident = (memory_status("VmRSS") or 0) if reset_memory_peak() else 0
    watch, wall, cpu = Stopwatch(), time.perf_counter(), time.process_time()
    yield watch
    seconds, passed = time.process_time() - cpu, time.perf_counter() - wall
    peak = (memory_status("VmHWM") or 0) if resident else 0
    watch.cost = Cost(seconds, passed, disk_bytes(folder) - before, max(0, peak - resident), peak)


def disk_bytes(folder: Path | None) -> int:
    """Add up the bytes of all files below a folder, as the file system counts them."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file()] if folder is not None else []
    return sum(getattr(one, "st_blocks", -(-one.st_size // FILE_BLOCK)) * FILE_BLOCK for one in found)


def n_log_n(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Compute n log n of sizes (m,)."""
    return np.asarray(sizes * np.log(np.maximum(sizes, 2)), np.float64)


@dataclass(frozen=True)
class SizeLaw:
    """Cost a + b n log n + c n^2 of a group of n images.

    Attributes:
        cpu, wall, disk: (a, b), seconds and bytes.
        added: bytes of memory for each image of a group, beyond those at the start.
        peak: bytes at the largest peak that was measured.
        pair: c, of which seconds count; measured apart, since groups of a sample are too small to show it.
    """

    cpu: tuple[float, float]
    wall: tuple[float, float]
    disk: tuple[float, float]
    added: float
    peak: float
    pair: Cost = Cost()

    @classmethod
    def of(cls, costs: Sequence[tuple[int, Cost]], pair: Cost = Cost()) -> SizeLaw:
        """Fit the law to the costs of groups of n images by least squares of errors over n, a and b at least 0.

        Errors are not divided by the costs themselves: where classes of one size differ, their mean is wanted.

        Args:
            pair: c, which is not fitted.
        """
        costs = [(n, cost.beyond(pair.times(n * n))) for n, cost in costs]
        sizes = np.array([n for n, _ in costs], float)
        columns = np.stack([np.ones_like(sizes), n_log_n(sizes)], 1)

        def fit(values: list[float]) -> tuple[float, float]:
            a, b = nnls(columns / sizes[:, None], np.array(values) / sizes)[0]
            return float(a), float(b)

        return cls(
            fit([cost.cpu for _, cost in costs]),
            fit([cost.wall for _, cost in costs]),
            fit([cost.disk for _, cost in costs]),
            max(cost.added / n for n, cost in costs if 2 * n >= sizes.max()),
            max(cost.peak for _, cost in costs),
            pair,
        )

    def total(self, sizes: NDArray[np.int64]) -> Cost:
        """Add up the cost of groups of these sizes (m,); memory is that of the largest."""
        grown = float(n_log_n(sizes).sum())
        cpu, wall, disk = (a * len(sizes) + b * grown for a, b in (self.cpu, self.wall, self.disk))
        pairs = self.pair.times(float((sizes.astype(float) ** 2).sum()))
        added = self.added * float(sizes.max(initial=0))
        return Cost(cpu + pairs.cpu, wall + pairs.wall, disk, added, self.peak)


@dataclass(frozen=True)
class StepCost:
    """Cost of one step of an audit.

    Attributes:
        step: its name.
        sample: what was measured, in words.
        law: what its cost grows with.
        cpu_seconds: of all processes together.
        wall_seconds: elapsed.
        disk_bytes: bytes that it writes, as the file system counts them.
        peak_bytes: resident memory of a process at the peak; None where the system does not report it.
    """

    step: str
    sample: str
    law: str
    cpu_seconds: float
    wall_seconds: float
    disk_bytes: float
    peak_bytes: float | None

    @classmethod
    def of(cls, step: str, sample: str, law: str, cost: Cost, *, processes: int = 1, more: float = 0.0) -> StepCost:
        """Make the line of a step from its cost in one process.

        Args:
            processes: over which its elapsed time is divided.
            more: bytes of memory that the whole corpus takes beyond the measured peak.
        """
        peak = cost.peak + more if cost.peak else None
        return cls(step, sample, law, cost.cpu, cost.wall / processes, cost.disk, peak)


@dataclass(frozen=True)
class Forecast:
    """Cost of an audit by step.

    Attributes:
        images, classes: of the corpus.
        workers: processes over which units are divided.
        steps: of the audit, in order.
        quantification: steps of `audit quantify` after it; none where it compares no classes.
    """

    images: int
    classes: int
    workers: int
    steps: tuple[StepCost, ...]
    quantification: tuple[StepCost, ...] = ()

    @property
    def total(self) -> StepCost:
        """All steps of the audit together."""
        return add_steps(self.steps)

    @property
    def total_of_quantification(self) -> StepCost:
        """All steps of the quantification together."""
        return add_steps(self.quantification)

    def to_json(self) -> dict[str, Any]:
        counts = {"images": self.images, "classes": self.classes, "workers": self.workers}
        told = counts | _with_total(self.steps)
        return told | {"quantification": _with_total(self.quantification)} if self.quantification else told


def add_steps(steps: Sequence[StepCost]) -> StepCost:
    """Add up steps; the peak is the largest of any step, of one process."""
    return StepCost(
        "all", "", "",
        sum(step.cpu_seconds for step in steps),
        sum(step.wall_seconds for step in steps),
        sum(step.disk_bytes for step in steps),
        max((step.peak_bytes for step in steps if step.peak_bytes is not None), default=None),
    )  # fmt: skip


def _with_total(steps: Sequence[StepCost]) -> dict[str, Any]:
    totals = {name: value for name, value in asdict(add_steps(steps)).items() if name not in ("step", "sample", "law")}
    return totals | {"steps": [asdict(step) for step in steps]}
