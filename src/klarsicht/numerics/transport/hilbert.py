"""The mass of maps in equal shares along a space-filling curve, each share as its centre of mass.

Neighbours on the curve are neighbours on the plane (Hilbert 1891), so that equal shares of mass along the curve are
compact patches, and their centres represent the whole evenly. The centre of mass of the map is kept exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints

Part = Callable[[Floats], Floats]

ROUNDING = 2.0**-50  # of a sum of float64


@dataclass(frozen=True)
class Sample:
    """Where N maps hold their mass.

    Attributes:
        points: float32 (N, P, 2), rows and columns in pixels, in the order of the curve; NaN where a map has no mass.
        total: float64 (N,), the mass of each map.
        held: float64 (N,), how much of it lies on the pixels that were kept.
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
                found.points[row] = centres(path[pixels], weights[pixels], points)
        return found


def heaviest(weights: Floats, share: float) -> Ints:
    """The fewest largest of weights (M,), none negative, that hold this share of their sum, up to rounding; equal ones
    together."""
    ordered = np.sort(weights[weights > 0])
    if not len(ordered):
        return np.empty(0, np.int64)
    reached = np.cumsum(ordered, dtype=np.float64)
    least = ordered[np.searchsorted(reached, min(1 - share + ROUNDING, 1 - ROUNDING) * reached[-1], "right")]
    return np.flatnonzero(weights >= least)


def centres(places: Ints, weights: Floats, shares: int) -> Doubles:
    """(shares, 2): centres of mass of places (M, 2), weights (M,) positive, cut in their order into equal shares."""
    mass = np.concatenate(([0.0], np.cumsum(weights, dtype=np.float64)))
    moment = np.concatenate((np.zeros((1, 2)), np.cumsum(places * weights[:, None].astype(np.float64), axis=0)))
    cuts = np.linspace(0, mass[-1], shares + 1)
    reached = np.stack([np.interp(cuts, mass, moment[:, axis]) for axis in (0, 1)], 1)
    found: Doubles = np.diff(reached, axis=0) * (shares / mass[-1])
    return found


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
