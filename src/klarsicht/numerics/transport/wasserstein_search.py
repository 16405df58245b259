"""W2 of measures as they are placed on the plane, for the search: bounds by axes, bounds by duals, assignments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.numerics.search.blocks import PairBounds
from klarsicht.numerics.search.features import lower, screen
from klarsicht.numerics.transport.dual_bounds import below
from klarsicht.numerics.transport.measures import PointMeasures, comparable
from klarsicht.numerics.transport.sliced import averaged, directions, projected
from klarsicht.numerics.transport.wasserstein import squared

FRAMES = 8  # pairs of orthogonal axes that bound W2
QUANTILES = 64  # of each projection


@dataclass(frozen=True)
class Placed:
    """Measures prepared for W2.

    Attributes:
        measures: N measures, in their pose.
        means: float64 (S, N, 2), the centre of each of S signs.
        centred: float32 (S, N, P, 2), points about it.
        screens: as `screen`, for each of FRAMES: sorted projections on two orthogonal axes.
    """

    measures: PointMeasures
    means: Doubles
    centred: NDArray[np.float32]
    screens: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, measures: PointMeasures) -> Placed:
        points = np.stack([points for _, points in measures.signs])
        means = points.mean(2, dtype=np.float64)
        ones, zeros = np.ones(len(measures)), np.zeros(len(measures))
        screens = tuple(screen(axes, ones, zeros) for axes in frames(measures))
        return cls(measures, means, (points - means[:, :, None]).astype(np.float32), screens)


def frames(measures: PointMeasures) -> list[Doubles]:
    """FRAMES times (N, D): sorted projections on two orthogonal axes, their squared distance at most W2^2.

    Each axis takes its part of every |x - y|^2, and on a line sorting matches best. The best of some frames is
    a sharper bound than the mean over all, which is the sliced distance.
    """
    found = []
    for first in directions(FRAMES, torch.empty(0, dtype=torch.float64), turn=math.pi / 2):
        axes = torch.stack((first, first.flip(0) * torch.tensor([-1.0, 1.0])))
        signs = [(w, averaged(projected(torch.from_numpy(p).double(), axes), QUANTILES)) for w, p in measures.signs]
        found.append(torch.cat([(w / QUANTILES) ** 0.5 * s.flatten(1) for w, s in signs], 1).numpy())
    return found


@dataclass(frozen=True)
class Wasserstein:
    """W2 of measures, exactly.

    Attributes:
        pose: how measures are laid before: as they are, centred (shifts do not count), scaled (nor sizes).
        threads: over pairs, numba's number if None.
    """

    pose: Callable[[PointMeasures], PointMeasures]
    threads: int | None = None

    certain: ClassVar[bool] = True
    batch: ClassVar[int] = 4096

    @property
    def tighter(self) -> tuple[PairBounds, ...]:
        return (self.by_duals,)

    def prepare(self, items: PointMeasures) -> Placed:
        return Placed.of(self.pose(comparable(items)))

    def estimates(self, rows: Placed, block: slice) -> NDArray[np.float32]:
        """The greatest of the bounds by frames."""
        best = lower(rows.screens[0], block)
        for other in rows.screens[1:]:
            np.maximum(best, lower(other, block), out=best)
        return best

    def by_duals(self, rows: Placed, i: Ints, j: Ints) -> Doubles:
        """Lower bounds of pairs: what the centres are apart, and the duals of Gaussians."""
        total = np.zeros(len(i))
        for (weight, _), means, points in zip(rows.measures.signs, rows.means, rows.centred, strict=True):
            bounds = below(points, i, j, threads=self.threads)
            total += weight * (((means[i] - means[j]) ** 2).sum(1) + np.maximum(bounds, 0))
        return total

    def costs(self, rows: Placed, i: Ints, j: Ints) -> Doubles:
        total = np.zeros(len(i))
        for weight, points in rows.measures.signs:
            total += weight * squared(points[i], points[j], threads=self.threads)
        return total

    def distances(self, costs: Doubles) -> Doubles:
        roots: Doubles = np.sqrt(costs)
        return roots


def as_they_lie(measures: PointMeasures) -> PointMeasures:
    return measures
