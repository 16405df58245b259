"""Neighbour search under the W2 distance of measures in a fixed pose: lower bounds by projections and by duals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.search.blocks import PairBounds, SquaredDistance
from klarsicht.numerics.search.features import lower_bounds, screening_matrix
from klarsicht.numerics.transport.measures import PointMeasures, require_comparable
from klarsicht.numerics.transport.sliced import average_quantiles, directions, project_sorted
from klarsicht.numerics.transport.wasserstein import dual_lower_bound, squared_wasserstein

FRAMES = 8  # pairs of orthogonal axes whose projections bound W2
QUANTILES = 64  # of each projection


@dataclass(frozen=True)
class PreparedMeasures:
    """Measures prepared for W2: points float32 (N, P, 2), their centres float64 (N, 2), points relative to these, and
    for each of FRAMES the `screening_matrix` of sorted projections on two orthogonal axes."""

    points: NDArray[np.float32]
    means: Doubles
    centred_points: NDArray[np.float32]
    screens: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, measures: PointMeasures) -> PreparedMeasures:
        """Prepare measures without moving them."""
        points, means = measures.points, measures.means
        ones, zeros = np.ones(len(measures)), np.zeros(len(measures))
        screens = tuple(screening_matrix(axes, ones, zeros) for axes in frame_projections(points))
        return cls(points, means, (points - means[:, None]).astype(np.float32), screens)


def frame_projections(points: NDArray[np.float32]) -> list[Doubles]:
    """Compute FRAMES times (N, D) sorted projections on two orthogonal axes, whose squared distance is at most W2^2:
    each axis contributes its part of every |x - y|^2, and on a line sorting is the optimal matching."""
    projections = []
    for first in directions(FRAMES, torch.empty(0, dtype=torch.float64), turn=math.pi / 2):
        axes = torch.stack((first, first.flip(0) * torch.tensor([-1.0, 1.0])))
        shadows = average_quantiles(project_sorted(torch.from_numpy(points).double(), axes), QUANTILES)
        projections.append(((1 / QUANTILES) ** 0.5 * shadows.flatten(1)).numpy())
    return projections


@dataclass(frozen=True)
class Wasserstein(SquaredDistance):
    """Exact W2 distance of measures in a pose: unchanged, centred (invariant to shifts) or scaled (also to size)."""

    pose: Callable[[PointMeasures], PointMeasures]

    estimates_are_bounds: ClassVar[bool] = True
    batch: ClassVar[int] = 4096

    @property
    def pair_bounds(self) -> tuple[PairBounds, ...]:
        return (self.by_duals,)

    def prepare(self, items: PointMeasures) -> PreparedMeasures:
        return PreparedMeasures.of(self.pose(require_comparable(items)))

    def estimates(self, rows: PreparedMeasures, block: slice) -> NDArray[np.float32]:
        """Compute the greatest of the lower bounds by frames."""
        best = lower_bounds(rows.screens[0], block)
        for other in rows.screens[1:]:
            np.maximum(best, lower_bounds(other, block), out=best)
        return best

    def by_duals(self, rows: PreparedMeasures, i: Ints, j: Ints) -> Doubles:
        """Bound pairs from below by the squared distance of their centres plus the dual value of the centred points."""
        bounds = np.maximum(dual_lower_bound(rows.centred_points, i, j), 0)
        return np.asarray(((rows.means[i] - rows.means[j]) ** 2).sum(1) + bounds)

    def costs(self, rows: PreparedMeasures, i: Ints, j: Ints) -> Doubles:
        return squared_wasserstein(rows.points[i], rows.points[j])


def unchanged_pose(measures: PointMeasures) -> PointMeasures:
    """Return the measures without moving them."""
    return measures
