"""Joint metric over several representations of the same items: the sum of distances, each divided by its median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.errors import InputError
from klarsicht.numerics.search.blocks import Metric, PairBounds, measure_pairs

SAMPLE = 2048  # pairs from which a median is estimated
ROUNDING = 1 - 2.0**-20  # makes up for the rounding of bounds to float32


@dataclass(frozen=True)
class Representations:
    """N items in several representations, one collection of N for each."""

    collections: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.collections[0])


@dataclass(frozen=True)
class PreparedRepresentations:
    """Prepared rows of each metric, and the median distances that serve as units."""

    rows: tuple[Any, ...]
    units: tuple[float, ...]


@dataclass(frozen=True)
class Joint:
    """Sum over representations, one metric each, of d / median d; it is exact where all estimates are lower bounds. The
    seed draws the pairs whose positive distances give the medians."""

    metrics: tuple[Metric, ...]
    seed: int = 0

    pair_bounds: ClassVar[tuple[PairBounds, ...]] = ()

    @property
    def estimates_are_bounds(self) -> bool:
        return all(metric.estimates_are_bounds for metric in self.metrics)

    @property
    def batch(self) -> int:
        return max(metric.batch for metric in self.metrics)

    def prepare(self, items: Representations) -> PreparedRepresentations:
        """Prepare the rows of each metric and estimate the median distances."""
        counts = [len(one) for one in items.collections]
        if len(set(counts)) != 1:
            raise InputError("representations of different items", got=f"{counts} rows", rule="as many rows in each")
        rows = tuple(
            metric.prepare(representation)
            for metric, representation in zip(self.metrics, items.collections, strict=True)
        )
        i, j = _pairs(len(items), self.seed)
        units = (_median(m.distances(measure_pairs(m, r, i, j))) for m, r in zip(self.metrics, rows, strict=True))
        return PreparedRepresentations(rows, tuple(units))

    def estimates(self, rows: PreparedRepresentations, block: slice) -> NDArray[np.float32]:
        """Sum the estimates of the representations: a lower bound where all of them are."""
        total: Any = 0
        for metric, representation, unit in zip(self.metrics, rows.rows, rows.units, strict=True):
            total = total + metric.distances(np.maximum(metric.estimates(representation, block), 0)) / unit
        return np.asarray(total * ROUNDING, np.float32)

    def costs(self, rows: PreparedRepresentations, i: Ints, j: Ints) -> Doubles:
        total = np.zeros(len(i))
        for metric, representation, unit in zip(self.metrics, rows.rows, rows.units, strict=True):
            total += metric.distances(measure_pairs(metric, representation, i, j)) / unit
        return total

    def distances(self, costs: Doubles) -> Doubles:
        return costs


def _pairs(n: int, seed: int) -> tuple[Ints, Ints]:
    """List all pairs of n rows where they are few, else draw a random sample."""
    if n * (n - 1) // 2 <= SAMPLE:
        return np.triu_indices(n, 1)
    random = np.random.default_rng(seed)
    i = random.integers(n, size=SAMPLE)
    return i, (i + random.integers(1, n, size=SAMPLE)) % n


def _median(distances: Doubles) -> float:
    """Compute the median of the positive distances; 1 where there is none."""
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0
