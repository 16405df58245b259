"""Registry of the metrics between relevance maps, by name; each ignores other transformations of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.search.blocks import Metric, SquaredDistance
from klarsicht.numerics.search.features import Cosine, Euclidean
from klarsicht.numerics.transport.gromov import Gromov, RotationRows, RotationSearch
from klarsicht.numerics.transport.measures import PointMeasures, require_comparable
from klarsicht.numerics.transport.sinograms import Sinograms
from klarsicht.numerics.transport.wasserstein import rotation_invariant_wasserstein
from klarsicht.numerics.transport.wasserstein_search import Wasserstein, unchanged_pose


@dataclass(frozen=True)
class SlicedRotation(SquaredDistance):
    """Sliced W2 distance of scaled measures, minimised over rotations; see `sinograms`."""

    batch: ClassVar[int] = 512  # small enough for the processor's cache

    def prepare(self, items: PointMeasures) -> Sinograms:
        return Sinograms.of(require_comparable(items).scale())

    def estimates(self, rows: Sinograms, block: slice) -> NDArray[np.float32]:
        """Compute the squared distances, minimised over multiples of 11.25 degrees."""
        return np.asarray(rows.distances(block).numpy())

    def costs(self, rows: Sinograms, i: Ints, j: Ints) -> Doubles:
        return rows.refined_distances(i, j)


@dataclass(frozen=True)
class RotationInvariant(RotationSearch):
    """W2 distance of scaled measures, least over rotations (and reflections) from `n_starts` starts."""

    def costs(self, rows: RotationRows, i: Ints, j: Ints) -> Doubles:
        return rotation_invariant_wasserstein(rows.shapes, i, j, reflection=self.reflection, n_starts=self.n_starts)


METRICS: dict[str, Metric] = {
    "euclidean": Euclidean(),
    "concept": Cosine(),
    "wasserstein": Wasserstein(unchanged_pose),
    "wasserstein-t": Wasserstein(PointMeasures.centre),
    "wasserstein-ts": Wasserstein(PointMeasures.scale),
    "wasserstein-tsr": RotationInvariant(),
    "sliced-rotation": SlicedRotation(),
    "gromov": Gromov(),
}
