"""Gromov-Wasserstein distances of equal-weight point sets on the plane, which compare shapes by their inner distances.

GW^2 = min_p (1/P^2) sum_ik (D_ik - E_p(i)p(k))^2 with D, E the distances inside two sets of P points (Memoli 2011,
Foundations of Computational Mathematics 11:417-487, square loss): invariant to rotation, reflection and shift. Solved
by `frank_wolfe` from the best rotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.compiled.jit import run_parallel
from klarsicht.numerics.compiled.row_minima import padded_width
from klarsicht.numerics.search.blocks import SquaredDistance
from klarsicht.numerics.transport import frank_wolfe
from klarsicht.numerics.transport.measures import PointMeasures, require_comparable
from klarsicht.numerics.transport.rotations import Shapes, best_rotations
from klarsicht.numerics.transport.sinograms import Sinograms

N_STARTS, WITHIN = 3, 1.75  # a start that is much worse than the best seldom reaches a lower value


def squared_gromov_wasserstein(
    shapes: Shapes, i: Ints, j: Ints, *, n_starts: int = N_STARTS, within: float = WITHIN, threads: int | None = None
) -> Doubles:
    """Compute GW^2 of the pairs (i, j), float64 (m,): the least reached from the n_starts rotations and reflections of
    least sliced distance whose square is at most `within` times the least, an upper bound of the minimum. Raises
    UsageError: n_starts outside 1..8, or within below 1."""
    turns = best_rotations(shapes, i, j, reflection=True, n_starts=n_starts, within=within, threads=threads)
    points, Q, out = shapes.points, padded_width(shapes.points.shape[1]), np.empty(len(i))

    def job(a: int, b: int) -> None:
        frank_wolfe.descend_from_turns(frank_wolfe.SOURCE_HASH, points, i[a:b], j[a:b], turns[a:b], Q, out[a:b])

    run_parallel(job, len(i), threads)
    return out


class RotationRows(NamedTuple):
    """Measures prepared for a search over rotations: shapes for the solver, sinograms for the estimates."""

    shapes: Shapes
    sinograms: Sinograms


@dataclass(frozen=True)
class RotationSearch(SquaredDistance):
    """Base class of distances of scaled measures that are solved from a few rotations, for the pairs of least sliced
    distance, minimised over multiples of 11.25 degrees, and reflections if `reflection`."""

    n_starts: int = 1
    reflection: bool = False

    batch: ClassVar[int] = 4096

    def prepare(self, items: PointMeasures) -> RotationRows:
        measures = require_comparable(items).scale()
        return RotationRows(Shapes.of(measures), Sinograms.of(measures))

    def estimates(self, rows: RotationRows, block: slice) -> NDArray[np.float32]:
        return np.asarray(rows.sinograms.distances(block, self.reflection).numpy())


@dataclass(frozen=True)
class Gromov(RotationSearch):
    """Gromov-Wasserstein distance of measures in units of their RMS radius; the starts are those of
    `squared_gromov_wasserstein`."""

    n_starts: int = N_STARTS
    reflection: bool = True
    within: float = WITHIN

    def costs(self, rows: RotationRows, i: Ints, j: Ints) -> Doubles:
        return squared_gromov_wasserstein(rows.shapes, i, j, n_starts=self.n_starts, within=self.within)
