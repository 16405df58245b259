"""Lower bounds of Euclidean distances in few dimensions: coordinates on some axes, and the norm of the residual.

With orthonormal axes Q and x' = x - Q Q^T x,

    |x - y|^2 = |Q^T x - Q^T y|^2 + |x' - y'|^2 >= |Q^T x - Q^T y|^2 + (|x'| - |y'|)^2,

by the reverse triangle inequality. On the leading principal axes the residual is small, and the bound is tight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klarsicht.ground.arrays import Doubles

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)  # candidate numbers of axes
MEASURE_COST = 10  # time per coordinate to measure a pair, relative to the time to bound it


@dataclass(frozen=True)
class ProjectionBound:
    """Map of rows of D coordinates to d + 1 coordinates that never increases a distance, by orthonormal axes (D, d)."""

    centre: Doubles
    axes: Doubles

    @classmethod
    def of(cls, sample: Doubles) -> ProjectionBound | None:
        """Choose the number of axes that minimises the cost of a search among rows like the sample's (m, D): the bounds
        of all pairs, and measurements of those whose bound is at most the distance to the nearest; None if none
        helps."""
        centre = sample.mean(0)
        x = sample - centre
        gram = x @ x.T
        nearest = squared_distances(gram)
        np.fill_diagonal(nearest, np.inf)
        nearest = nearest.min(1, keepdims=True)
        dimensions = x.shape[1]
        _, U = np.linalg.eigh(gram)
        axes, _ = np.linalg.qr(x.T @ U[:, : -max(WIDTHS) - 1 : -1])
        costs: dict[int, float] = {dimensions: dimensions}
        for d in (d for d in WIDTHS if d < min(axes.shape[1], dimensions / 2)):
            narrow = cls(centre, axes[:, :d])(sample)
            undecided = (squared_distances(narrow @ narrow.T) <= nearest).mean() - 1 / len(x)
            costs[d] = d + MEASURE_COST * dimensions * float(undecided)
        best = min(costs, key=costs.__getitem__)
        return cls(centre, axes[:, :best]) if best < dimensions else None

    def __call__(self, x: Doubles) -> Doubles:
        centred = x - self.centre
        projected = centred @ self.axes
        return np.column_stack((projected, np.linalg.norm(centred - projected @ self.axes.T, axis=1)))


def squared_distances(gram: Doubles) -> Doubles:
    squares = gram.diagonal()
    return np.asarray(squares[:, None] + squares - 2 * gram)
