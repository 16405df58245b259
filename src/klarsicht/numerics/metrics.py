"""Metrics by name: what two attributions may differ in and still be the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.search.blocks import Metric, PairBounds
from klarsicht.numerics.search.features import Cosine, Euclidean
from klarsicht.numerics.transport.gromov import Gromov
from klarsicht.numerics.transport.measures import PointMeasures, comparable
from klarsicht.numerics.transport.rotations import Shapes
from klarsicht.numerics.transport.sinograms import Sinograms
from klarsicht.numerics.transport.wasserstein import rotation_invariant
from klarsicht.numerics.transport.wasserstein_search import Wasserstein, as_they_lie


@dataclass(frozen=True)
class SlicedRotation:
    """Sliced W2 of scaled measures, least over rotations: blind to shift, scale and rotation; see `sinograms`.

    Attributes:
        reflection: mirror images are the same too.
        device: where torch computes.
    """

    reflection: bool = False
    device: str = "cpu"

    certain: ClassVar[bool] = False
    tighter: ClassVar[tuple[PairBounds, ...]] = ()
    batch: ClassVar[int] = 512  # small enough for the cache

    def prepare(self, items: PointMeasures) -> Any:
        return Sinograms.of(comparable(items).scaled(), self.device)

    def estimates(self, rows: Sinograms, block: slice) -> NDArray[np.float32]:
        """Least over multiples of 11.25 degrees."""
        squares: NDArray[np.float32] = rows.distances(block, self.reflection).cpu().numpy()
        return squares

    def costs(self, rows: Sinograms, i: Ints, j: Ints) -> Doubles:
        """Least over all angles."""
        return rows.align(i, j, self.reflection).cost

    def distances(self, costs: Doubles) -> Doubles:
        roots: Doubles = np.sqrt(costs)
        return roots


@dataclass(frozen=True)
class Turning:
    """Sinograms to find rotations by, shapes to solve."""

    sinograms: Sinograms
    shapes: Shapes


@dataclass(frozen=True)
class RotationInvariant(SlicedRotation):
    """W2 of scaled measures, least over rotations, among the pairs of least sliced distance.

    Attributes:
        n_starts: rotations to start from, 1 to 8.
        threads: over pairs, numba's number if None.
    """

    n_starts: int = 1
    threads: int | None = None

    batch: ClassVar[int] = 4096

    def prepare(self, items: PointMeasures) -> Turning:
        measures = comparable(items).scaled()
        return Turning(Sinograms.of(measures, self.device), Shapes.of(measures))

    def estimates(self, rows: Any, block: slice) -> NDArray[np.float32]:
        return super().estimates(rows.sinograms, block)

    def costs(self, rows: Any, i: Ints, j: Ints) -> Doubles:
        shapes, reflection = rows.shapes, self.reflection
        return rotation_invariant(shapes, i, j, reflection=reflection, n_starts=self.n_starts, threads=self.threads)


METRICS: dict[str, Metric] = {
    "euclidean": Euclidean(),
    "concept": Cosine(),
    "wasserstein": Wasserstein(as_they_lie),
    "wasserstein-t": Wasserstein(PointMeasures.centred),
    "wasserstein-ts": Wasserstein(PointMeasures.scaled),
    "wasserstein-tsr": RotationInvariant(),
    "sliced-rotation": SlicedRotation(),
    "gromov": Gromov(),
}
