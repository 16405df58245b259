"""Systematic sampling of the mass of maps along a space-filling curve.

Neighbours on the curve are neighbours on the plane, so that equal shares of mass along the curve are compact patches,
and one point from each represents the whole evenly (Hilbert 1891; systematic sampling: Cochran 1977, chapter 8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
Part = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Sample:
    """Where N maps hold their mass.

    Attributes:
        points: float32 (N, P, 2), rows and columns of pixels along the curve; NaN where a map has no mass.
        total: float64 (N,), the mass of each map.
        held: float64 (N,), how much of it lies on the pixels that were sampled.
    """

    points: NDArray[np.float32]
    total: Doubles
    held: Doubles

    @classmethod
    def of(cls, maps: Floats, part: Part, points: int, share: float) -> Sample:
        """Of what `part` leaves of maps (N, H, W), finite: the fewest largest pixels that hold this share of it."""
        n, height, width = maps.shape
        path = curve(height, width)
        on_path = path[:, 0] * width + path[:, 1]
        found = cls(np.full((n, points, 2), np.nan, np.float32), np.zeros(n), np.zeros(n))
        for row, one in enumerate(maps):
            weights = part(one.ravel()[on_path])
            pixels = heaviest(weights, share)
            found.total[row], found.held[row] = (w.sum(dtype=np.float64) for w in (weights, weights[pixels]))
            if len(pixels):
                found.points[row] = path[pixels[systematic(weights[pixels], points)]]
        return found


def heaviest(weights: Floats, share: float) -> Ints:
    """The fewest largest of weights (M,), none negative, that hold this share of their sum; equal ones together."""
    ordered = np.sort(weights[weights > 0])
    least = ordered[reaching(ordered, np.array([1 - share]))[0]] if len(ordered) else np.inf
    return np.flatnonzero(weights >= least)


def systematic(weights: Floats, points: int) -> NDArray[np.intp]:
    """Of positive weights (M,), the entries at (i + 1/2) / points of their running sum, i = 0 ... points - 1.

    An entry is taken as often as its weight is worth, rounded down or up.
    """
    return reaching(weights, (np.arange(points) + 0.5) / points)


def reaching(weights: Floats, shares: Doubles) -> NDArray[np.intp]:
    """The first entries of weights (M,) at which their running sum exceeds these shares, in [0, 1), of the whole."""
    reached = np.cumsum(weights.astype(np.float64))
    first: NDArray[np.intp] = np.searchsorted(reached, np.minimum(shares, 1 - 2.0**-50) * reached[-1], "right")
    return first


@cache
def curve(height: int, width: int) -> Ints:
    """(height width, 2): every pixel of a grid once, row and column, in the order of Hilbert's curve."""
    path = hilbert(max(height - 1, width - 1).bit_length())
    return path[(path < (height, width)).all(1)]


def hilbert(order: int) -> Ints:
    """(4^order, 2): the cells of a square of side 2^order, each a step of 1 from the one before."""
    if order == 0:
        return np.zeros((1, 2), int)
    quarter, side = hilbert(order - 1), 2 ** (order - 1)
    up, turned = np.array([0, side]), quarter[:, ::-1]
    return np.concatenate((turned, quarter + up, quarter + side, 2 * side - 1 - up - turned))
