"""Registry of the metrics between relevance maps, by name; each ignores other transformations of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.search.blocks import Metric, PairBounds
from klarsicht.numerics.search.features import Cosine, Euclidean
from klarsicht.numerics.transport.gromov import Gromov
from klarsicht.numerics.transport.measures import PointMeasures, require_comparable
from klarsicht.numerics.transport.rotations import Shapes
from klarsicht.numerics.transport.sinograms import Sinograms
from klarsicht.numerics.transport.wasserstein import rotation_invariant_wasserstein
from klarsicht.numerics.transport.wasserstein_search import Wasserstein, unchanged_pose


@dataclass(frozen=True)
class SlicedRotation:
    """Sliced W2 distance of scaled measures, minimised over rotations.

    It is invariant to shift, scale and rotation; see `sinograms`.

    Attributes:
        reflection: also invariant to reflection.
        device: torch device.
    """

    reflection: bool = False
    device: str = "cpu"

    estimates_are_bounds: ClassVar[bool] = False
    pair_bounds: ClassVar[tuple[PairBounds, ...]] = ()
    batch: ClassVar[int] = 512  # small enough for the processor's cache

    def prepare(self, items: PointMeasures) -> Any:
        """Compute the sinograms of the scaled measures."""
        return Sinograms.of(require_comparable(items).scale(), self.device)

    def estimates(self, rows: Sinograms, block: slice) -> NDArray[np.float32]:
        """Compute the squared distances, minimised over multiples of 11.25 degrees."""
        squares: NDArray[np.float32] = rows.distances(block, self.reflection).cpu().numpy()
        return squares

    def costs(self, rows: Sinograms, i: Ints, j: Ints) -> Doubles:
        """Compute the squared distances, minimised over all angles."""
        return rows.align(i, j, self.reflection).cost

    def distances(self, costs: Doubles) -> Doubles:
        """Return the square roots of the costs."""
        roots: Doubles = np.sqrt(costs)
        return roots


@dataclass(frozen=True)
class RotationRows:
    """Measures prepared for `RotationInvariant`: sinograms to find starting rotations, shapes to solve for W2."""

    sinograms: Sinograms
    shapes: Shapes


@dataclass(frozen=True)
class RotationInvariant(SlicedRotation):
    """W2 distance of scaled measures, minimised over rotations, for the pairs of smallest sliced distance.

    Attributes:
        n_starts: starting rotations, 1 to 8.
        threads: threads over pairs, numba's number if None.
    """

    n_starts: int = 1
    threads: int | None = None

    batch: ClassVar[int] = 4096

    def prepare(self, items: PointMeasures) -> RotationRows:
        """Compute the sinograms and the shapes of the scaled measures."""
        measures = require_comparable(items).scale()
        return RotationRows(Sinograms.of(measures, self.device), Shapes.of(measures))

    def estimates(self, rows: Any, block: slice) -> NDArray[np.float32]:
        """Compute the squared sliced distances, minimised over multiples of 11.25 degrees."""
        return super().estimates(rows.sinograms, block)

    def costs(self, rows: Any, i: Ints, j: Ints) -> Doubles:
        """Compute the squared W2 distances, minimised over rotations from `n_starts` starts."""
        shapes, reflection = rows.shapes, self.reflection
        return rotation_invariant_wasserstein(
            shapes, i, j, reflection=reflection, n_starts=self.n_starts, threads=self.threads
        )


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
