"""Gromov-Wasserstein distances of equal-weight point sets on the plane, which compare shapes by their inner distances.

GW^2 = min_p (1/P^2) sum_ik (D_ik - E_p(i)p(k))^2 with D, E the distances inside two sets of P points (Memoli 2011,
Foundations of Computational Mathematics 11:417-487, square loss): invariant to rotation, reflection and shift. Solved
by `frank_wolfe` from the best rotations; the fused variant adds a linear term on features (Vayer et al. 2020,
Algorithms 13:212).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.compiled.jit import run_parallel
from klarsicht.numerics.compiled.row_minima import padded_width
from klarsicht.numerics.search.blocks import PairBounds
from klarsicht.numerics.transport import frank_wolfe
from klarsicht.numerics.transport.gromov_bounds import Invariants, embedding_bound, invariants
from klarsicht.numerics.transport.measures import PointMeasures, require_comparable
from klarsicht.numerics.transport.rotations import Shapes, best_rotations
from klarsicht.numerics.transport.sinograms import Sinograms

N_STARTS, WITHIN = 3, 1.75  # a start that is much worse than the best seldom reaches a lower value


def squared_gromov_wasserstein(
    shapes: Shapes,
    i: Ints,
    j: Ints,
    *,
    alpha: float = 1.0,
    reflection: bool = True,
    n_starts: int = N_STARTS,
    within: float = WITHIN,
    threads: int | None = None,
) -> Doubles:
    """Compute GW^2 of the pairs (i, j), float64 (m,), in the square of the points' unit.

    With alpha < 1 the fused (1 - alpha) (1/P) sum_i |f_i - g_p(i)|^2 + alpha GW^2. The value is the least reached from
    the n_starts rotations of least sliced distance (and reflections if `reflection`) whose square is at most `within`
    times the least: an upper bound of the minimum. It is not exactly symmetric; i and j exchanged differ by a percent
    on average. With two signs the weighted sum.

    Raises:
        UsageError: n_starts outside 1..8, within below 1, alpha outside 0..1, or alpha < 1 for shapes without features.
    """
    _check_alpha(alpha, shapes)
    turns = best_rotations(shapes, i, j, reflection=reflection, n_starts=n_starts, within=within, threads=threads)
    out, Q, share = np.empty(len(i)), padded_width(shapes.points.shape[2]), np.float32(alpha)
    laid = shapes.points, shapes.weights, shapes.features

    def job(a: int, b: int) -> None:
        frank_wolfe.descend_from_turns(frank_wolfe.SOURCE_HASH, *laid, i[a:b], j[a:b], turns[a:b], Q, share, out[a:b])

    run_parallel(job, len(i), threads)
    return out


def _check_alpha(alpha: float, shapes: Shapes) -> None:
    """Raise UsageError unless alpha is valid for the shapes."""
    if not 0 <= alpha <= 1:
        raise UsageError("alpha", got=alpha, rule="0 (features only) to 1 (distances only)")
    if alpha < 1 and shapes.features.shape[3] == 0:
        raise UsageError("alpha below 1 without features", got=alpha, remedy="Give features, or take alpha = 1.")


@dataclass(frozen=True)
class GromovRows:
    """Measures prepared for `Gromov`: shapes for the solver, sinograms for the estimates, and, if exact, invariants
    for bounds.
    """

    shapes: Shapes
    sinograms: Sinograms
    invariants: Invariants | None


@dataclass(frozen=True)
class Gromov:
    """Gromov-Wasserstein distance of measures, for `search`; by default in units of their RMS radius.

    Attributes:
        exact: measure every pair that the bounds cannot exclude, so that the graph equals that of an exhaustive search
            with this solver; else only the pairs of least rotation-invariant sliced distance.
        n_starts: most starting rotations, 1 to 8.
        within: use only those whose squared sliced distance is at most this many times the least.
        reflection: also start from reflections. The distance itself is always invariant to reflection.
        scaled: scale by RMS radius; else the distance depends on size.
        threads: threads over pairs, numba's number if None.
    """

    exact: bool = False
    n_starts: int = N_STARTS
    within: float = WITHIN
    reflection: bool = True
    scaled: bool = True
    threads: int | None = None

    estimates_are_bounds: ClassVar[bool] = False
    batch: ClassVar[int] = 4096

    @property
    def pair_bounds(self) -> tuple[PairBounds, ...]:
        """Lower bounds of pairs, from cheap to tight, where exact."""
        return (spectral_bound, distance_bound, projection_bound) if self.exact else ()

    def prepare(self, items: PointMeasures) -> GromovRows:
        """Centre or scale the measures; compute shapes, sinograms and, if exact, invariants."""
        measures = require_comparable(items)
        measures = measures.scale() if self.scaled else measures.centre()
        shapes = Shapes.of(measures)
        return GromovRows(shapes, Sinograms.of(measures), invariants(shapes) if self.exact else None)

    def estimates(self, rows: GromovRows, block: slice) -> NDArray[np.float32]:
        """Compute squared rotation-invariant sliced distances."""
        sliced: NDArray[np.float32] = rows.sinograms.distances(block, reflection=True).cpu().numpy()
        return sliced

    def costs(self, rows: GromovRows, i: Ints, j: Ints) -> Doubles:
        """Compute GW^2 by Frank-Wolfe."""
        return squared_gromov_wasserstein(
            rows.shapes, i, j, reflection=self.reflection, n_starts=self.n_starts, within=self.within,
            threads=self.threads,
        )  # fmt: skip

    def distances(self, costs: Doubles) -> Doubles:
        """Return the square roots of the costs."""
        roots: Doubles = np.sqrt(costs)
        return roots


def spectral_bound(rows: Any, i: Ints, j: Ints) -> Doubles:
    """Bound GW^2 of pairs from below by the spectra of centred distances."""
    return embedding_bound(rows.invariants.spectral, i, j)


def distance_bound(rows: Any, i: Ints, j: Ints) -> Doubles:
    """Bound GW^2 of pairs from below by all distances, sorted (SLB)."""
    return embedding_bound(rows.invariants.sorted_distances, i, j)


def projection_bound(rows: Any, i: Ints, j: Ints) -> Doubles:
    """Bound GW^2 of pairs from below by projected rows of distances (TLB)."""
    return embedding_bound(rows.invariants.projections, i, j)
