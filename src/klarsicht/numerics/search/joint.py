"""Several aspects of the same things compared at once: the sum of their distances, each over its median."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.errors import InputError
from klarsicht.numerics.search.blocks import Metric, PairBounds, measured

SAMPLE = 2048  # pairs that a median is taken of
ROUNDING = 1 - 2.0**-20  # what conversions to float32 may add to a bound is taken off


@dataclass(frozen=True)
class Aspects:
    """N things seen in several ways, one collection of N for each."""

    seen: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.seen[0])


@dataclass(frozen=True)
class Prepared:
    """What each metric prepared of its aspect, and the distance that counts as one."""

    rows: tuple[Any, ...]
    units: tuple[float, ...]


@dataclass(frozen=True)
class Joint:
    """Sum over aspects of d / median d: a metric where all are; neighbours are exact where all estimates are bounds.

    Attributes:
        metrics: one for each aspect.
        seed: draws the pairs whose positive distances give the medians.
    """

    metrics: tuple[Metric, ...]
    seed: int = 0

    tighter: ClassVar[tuple[PairBounds, ...]] = ()

    @property
    def certain(self) -> bool:
        return all(metric.certain for metric in self.metrics)

    @property
    def batch(self) -> int:
        return max(metric.batch for metric in self.metrics)

    def prepare(self, items: Aspects) -> Prepared:
        check(items.seen)
        rows = tuple(metric.prepare(seen) for metric, seen in zip(self.metrics, items.seen, strict=True))
        i, j = _pairs(len(items), self.seed)
        units = (_median(m.distances(measured(m, r, i, j))) for m, r in zip(self.metrics, rows, strict=True))
        return Prepared(rows, tuple(units))

    def estimates(self, rows: Prepared, block: slice) -> NDArray[np.float32]:
        """The sum of what the aspects estimate: a lower bound where they are."""
        total: Any = 0
        for metric, seen, unit in zip(self.metrics, rows.rows, rows.units, strict=True):
            total = total + metric.distances(np.maximum(metric.estimates(seen, block), 0)) / unit
        return np.asarray(total * ROUNDING, np.float32)

    def costs(self, rows: Prepared, i: Ints, j: Ints) -> Doubles:
        total = np.zeros(len(i))
        for metric, seen, unit in zip(self.metrics, rows.rows, rows.units, strict=True):
            total += metric.distances(measured(metric, seen, i, j)) / unit
        return total

    def distances(self, costs: Doubles) -> Doubles:
        return costs


def _pairs(n: int, seed: int) -> tuple[Ints, Ints]:
    """All pairs of n rows where they are few, else some at random."""
    if n * (n - 1) // 2 <= SAMPLE:
        return np.triu_indices(n, 1)
    random = np.random.default_rng(seed)
    i = random.integers(n, size=SAMPLE)
    return i, (i + random.integers(1, n, size=SAMPLE)) % n


def _median(distances: Doubles) -> float:
    """Of the positive ones; 1 where there is none."""
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def check(seen: tuple[Sized, ...]) -> None:
    counts = [len(one) for one in seen]
    if len(set(counts)) != 1:
        raise InputError("aspects of different things", got=f"{counts} rows", rule="as many rows in each")
