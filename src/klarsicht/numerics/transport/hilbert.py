"""Quantisation of maps to points: equal shares of mass along Hilbert's curve (Hilbert 1891), whose neighbours are
neighbours on the plane, each at its centre of mass. The centre of mass of the map is kept exactly."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints

ROUNDING = 2.0**-50  # relative rounding error of a sum in float64


class Sample(NamedTuple):
    """Points float32 (N, P, 2) that represent the positive mass of N maps, rows and columns in pixels, in the order of
    the curve, NaN where a map has no mass; its mass, and that on the selected pixels, float64 (N,)."""

    points: NDArray[np.float32]
    total: Doubles
    selected_mass: Doubles


def sample_points(maps: Floats, points: int, share: float) -> Sample:
    """Sample the positive part of finite maps (N, H, W), on the fewest largest pixels that hold `share` of its mass."""
    n, height, width = maps.shape
    path = hilbert_path(height, width)
    on_path = path[:, 0] * width + path[:, 1]
    sample = Sample(np.full((n, points, 2), np.nan, np.float32), np.zeros(n), np.zeros(n))
    for row, one in enumerate(maps):
        weights = np.maximum(one.ravel()[on_path], 0)
        pixels = select_heaviest(weights, share)
        sample.total[row], sample.selected_mass[row] = (w.sum(dtype=np.float64) for w in (weights, weights[pixels]))
        if len(pixels):
            sample.points[row] = centres_of_mass(path[pixels], weights[pixels], points)
    return sample


def select_heaviest(weights: Floats, share: float) -> Ints:
    """Select the fewest largest of non-negative weights (M,) that hold `share` of their sum, ties included."""
    ordered = np.sort(weights[weights > 0])
    if not len(ordered):
        return np.empty(0, np.int64)
    reached = np.cumsum(ordered, dtype=np.float64)
    least = ordered[np.searchsorted(reached, min(1 - share + ROUNDING, 1 - ROUNDING) * reached[-1], "right")]
    return np.flatnonzero(weights >= least)


def centres_of_mass(places: Ints, weights: Floats, shares: int) -> Doubles:
    """Compute centres of mass (shares, 2) of consecutive equal shares of positive weights (M,) at places (M, 2)."""
    mass = np.concatenate(([0.0], np.cumsum(weights, dtype=np.float64)))
    moment = np.concatenate((np.zeros((1, 2)), np.cumsum(places * weights[:, None].astype(np.float64), axis=0)))
    cuts = np.linspace(0, mass[-1], shares + 1)
    reached = np.stack([np.interp(cuts, mass, moment[:, axis]) for axis in (0, 1)], 1)
    return np.asarray(np.diff(reached, axis=0) * (shares / mass[-1]))


@cache
def hilbert_path(height: int, width: int) -> Ints:
    """List every pixel of a grid once, row and column, in the order of Hilbert's curve; (height width, 2)."""
    path = hilbert_square(max(height - 1, width - 1).bit_length())
    return path[(path < (height, width)).all(1)]


def hilbert_square(order: int) -> Ints:
    """List the cells of a square of side 2^order along Hilbert's curve, (4^order, 2)."""
    if order == 0:
        return np.zeros((1, 2), int)
    quarter, side = hilbert_square(order - 1), 2 ** (order - 1)
    up, turned = np.array([0, side]), quarter[:, ::-1]
    return np.concatenate((turned, quarter + up, quarter + side, 2 * side - 1 - up - turned))
