"""Gromov-Wasserstein distances of equal-weight point sets on the plane: shapes compared by their inner distances alone.

GW^2 = min_p (1/P^2) sum_ik (D_ik - E_p(i)p(k))^2 with D, E the distances inside two sets of P points (Memoli 2011,
Foundations of Computational Mathematics 11:417-487, square loss): blind to rotation, reflection and shift. Solved by
`frank_wolfe` from the best rotations; the fused variant adds a linear term on features (Vayer et al. 2020, Algorithms
13:212).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.compiled.jit import spread
from klarsicht.numerics.compiled.row_minima import padded
from klarsicht.numerics.search.blocks import PairBounds
from klarsicht.numerics.transport import frank_wolfe
from klarsicht.numerics.transport.gromov_bounds import Invariants, embedded, invariants
from klarsicht.numerics.transport.measures import PointMeasures, comparable
from klarsicht.numerics.transport.rotations import Shapes, best_turns
from klarsicht.numerics.transport.sinograms import Sinograms

N_STARTS, WITHIN = 3, 1.75  # a start that is much worse than the best seldom ends lower


def squared(
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
    """GW^2 of the pairs (i, j), float64 (m,), in the square of the points' unit.

    With alpha < 1 the fused (1 - alpha) (1/P) sum_i |f_i - g_p(i)|^2 + alpha GW^2. The least reached from the n_starts
    rotations of least sliced distance (mirrored too if `reflection`), as far as its square is at most `within` times
    the least: an upper bound of the minimum. From j to i it may be another, a percent away in the mean. Of two signs,
    the weighted sum.

    Raises:
        UsageError: n_starts outside 1..8, within below 1, alpha outside 0..1, or alpha < 1 for shapes without features.
    """
    _check_alpha(alpha, shapes)
    turns = best_turns(shapes, i, j, reflection=reflection, n_starts=n_starts, within=within, threads=threads)
    out, Q, share = np.empty(len(i)), padded(shapes.points.shape[2]), np.float32(alpha)
    laid = shapes.points, shapes.weights, shapes.features

    def job(a: int, b: int) -> None:
        frank_wolfe.descend_from_turns(frank_wolfe.EDITION, *laid, i[a:b], j[a:b], turns[a:b], Q, share, out[a:b])

    spread(job, len(i), threads)
    return out


def from_plans(
    shapes: Shapes, i: Ints, j: Ints, plans: NDArray[np.int32], *, alpha: float = 1.0, threads: int | None = None
) -> tuple[Doubles, NDArray[np.int32]]:
    """As `squared`, from plans given: the values (m,), and the plans they were reached at.

    Args:
        plans: (m, S, P), for each sign of each pair the point of j that each point of i goes to.

    Raises:
        UsageError: plans that are not permutations, and as `squared`.
    """
    _check_alpha(alpha, shapes)
    plans = np.array(plans, np.int32)
    if plans.shape != (len(i), *shapes.points.shape[1:3]) or (np.sort(plans) != np.arange(plans.shape[-1])).any():
        raise UsageError(
            "plans to start from", got=f"shape {plans.shape}", rule="(m, S, P), permutations of 0 .. P - 1"
        )
    out, Q, share = np.empty(len(i)), padded(plans.shape[2]), np.float32(alpha)
    laid = shapes.points, shapes.weights, shapes.features

    def job(a: int, b: int) -> None:
        frank_wolfe.descend_from(frank_wolfe.EDITION, *laid, i[a:b], j[a:b], Q, share, plans[a:b], out[a:b])

    spread(job, len(i), threads)
    return out, plans


def _check_alpha(alpha: float, shapes: Shapes) -> None:
    if not 0 <= alpha <= 1:
        raise UsageError("alpha", got=alpha, rule="0 (features only) to 1 (distances only)")
    if alpha < 1 and shapes.features.shape[3] == 0:
        raise UsageError("alpha below 1 without features", got=alpha, remedy="Give features, or take alpha = 1.")


@dataclass(frozen=True)
class Rows:
    """Measures prepared for `Gromov`: what it solves, what it estimates by, and, if exact, what it bounds by."""

    shapes: Shapes
    sinograms: Sinograms
    invariants: Invariants | None


@dataclass(frozen=True)
class Gromov:
    """Gromov-Wasserstein distance of measures, for `search`; by default in units of their RMS radius.

    Attributes:
        exact: every pair that bounds cannot exclude is solved, so that the graph is the one of all pairs by this
            solver; else the pairs of least rotation-invariant sliced distance.
        n_starts: rotations to start from, 1 to 8, at most.
        within: of them, those whose squared sliced distance is at most this many times the least.
        reflection: also from mirrored rotations. The distance itself never tells mirror images apart.
        scaled: by RMS radius; else sizes count.
        threads: over pairs, numba's number if None.
    """

    exact: bool = False
    n_starts: int = N_STARTS
    within: float = WITHIN
    reflection: bool = True
    scaled: bool = True
    threads: int | None = None

    certain: ClassVar[bool] = False
    batch: ClassVar[int] = 4096

    @property
    def tighter(self) -> tuple[PairBounds, ...]:
        return (by_spectrum, by_distances, by_projections) if self.exact else ()

    def prepare(self, items: PointMeasures) -> Rows:
        measures = comparable(items)
        measures = measures.scaled() if self.scaled else measures.centred()
        shapes = Shapes.of(measures)
        return Rows(shapes, Sinograms.of(measures), invariants(shapes) if self.exact else None)

    def estimates(self, rows: Rows, block: slice) -> NDArray[np.float32]:
        sliced: NDArray[np.float32] = rows.sinograms.distances(block, reflection=True).cpu().numpy()
        return sliced

    def costs(self, rows: Rows, i: Ints, j: Ints) -> Doubles:
        return squared(
            rows.shapes, i, j, reflection=self.reflection, n_starts=self.n_starts, within=self.within,
            threads=self.threads,
        )  # fmt: skip

    def distances(self, costs: Doubles) -> Doubles:
        roots: Doubles = np.sqrt(costs)
        return roots


def by_spectrum(rows: Any, i: Ints, j: Ints) -> Doubles:
    return embedded(rows.invariants.spectral, i, j)


def by_distances(rows: Any, i: Ints, j: Ints) -> Doubles:
    return embedded(rows.invariants.sorted, i, j)


def by_projections(rows: Any, i: Ints, j: Ints) -> Doubles:
    return embedded(rows.invariants.projected, i, j)
