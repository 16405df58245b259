"""Bounds of Euclidean distances in few dimensions: coordinates on some axes, and the length of what they leave.

With orthonormal axes Q and x' = x - Q Q^T x,

    |x - y|^2 = |Q^T x - Q^T y|^2 + |x' - y'|^2 >= |Q^T x - Q^T y|^2 + (|x'| - |y'|)^2,

by the reverse triangle inequality. On the leading principal axes little is left, and the bound is close.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klarsicht.ground.arrays import Doubles

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256)  # numbers of axes that are tried
MEASURING = 10  # time to measure a pair over time to bound it, both for one coordinate


@dataclass(frozen=True)
class Fold:
    """Rows of D coordinates to rows of d + 1 that are nowhere farther apart.

    Attributes:
        centre: (D,).
        axes: (D, d), orthonormal.
    """

    centre: Doubles
    axes: Doubles

    @classmethod
    def of(cls, sample: Doubles) -> Fold | None:
        """The fold that makes a search among rows like the sample's (m, D) cheapest; None where none does.

        Every pair is bounded; those are measured that the bound cannot tell from the nearest of the sample.
        """
        centre = sample.mean(0)
        x = sample - centre
        gram = x @ x.T
        nearest = squared_distances(gram)
        np.fill_diagonal(nearest, np.inf)
        nearest = nearest.min(1, keepdims=True)
        dimensions = x.shape[1]
        _, U = np.linalg.eigh(gram)
        axes, _ = np.linalg.qr(x.T @ U[:, : -max(WIDTHS) - 1 : -1])
        prices: dict[int, float] = {dimensions: dimensions}
        for d in (d for d in WIDTHS if d < min(axes.shape[1], dimensions / 2)):
            narrow = cls(centre, axes[:, :d])(sample)
            undecided = (squared_distances(narrow @ narrow.T) <= nearest).mean() - 1 / len(x)
            prices[d] = d + MEASURING * dimensions * float(undecided)
        best = min(prices, key=prices.__getitem__)
        return cls(centre, axes[:, :best]) if best < dimensions else None

    def __call__(self, x: Doubles) -> Doubles:
        """(n, D) -> (n, d + 1)."""
        centred = x - self.centre
        along = centred @ self.axes
        return np.column_stack((along, np.linalg.norm(centred - along @ self.axes.T, axis=1)))


def squared_distances(gram: Doubles) -> Doubles:
    """(m, m) from inner products."""
    squares = gram.diagonal()
    distances: Doubles = squares[:, None] + squares - 2 * gram
    return distances
