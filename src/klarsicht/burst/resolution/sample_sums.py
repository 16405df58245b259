"""Samples of shifted frames on a grid of twice the resolution, compiled: their places, what the enlarged picture
predicts for each, sums of their differences from it, and the equations by which these tell an error of the motion.

A sample at pixel s of a frame shows what the reference shows at p with p + d(p) = s, d being the displacement that the
placement blends between tiles. It covers 2 x 2 fine pixels around 2 p + 1/2. h, w count samples, H, W fine pixels, Y,
X tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.numerics.compiled.jit import compile_inlined, compile_with

REACH = 2  # fine pixels around a sample that it is laid on
DETAIL_WIDTH = 0.6  # deviation of its weights there, in fine pixels
FIRST_ROUNDS, NEXT_ROUNDS = (
    4,
    2,
)  # of the inversion of the displacement: at the first sample of a row, and from its neighbour
DOUBT = 1.5  # deviations of noise and scene, beyond which a difference counts less for the motion
SCENE_SHARE = 0.3  # of the scene's variance around a sample, in the variance by which it counts for the motion
UNKNOWNS = 6  # of an affine motion
GAUSSIAN_STEPS = tuple(float(np.exp(-(k**2) / (2 * DETAIL_WIDTH**2))) for k in range(REACH + 1))

Values = npt.NDArray[np.float32]


class SampleModel(NamedTuple):
    """Placement of one frame's samples, and what the enlarged picture says of them in a window. fine, turns: (Y, X, 2)
    and (Y, X, 2, 2), of the frame's tiles. colours: of a cell of the mosaic. corner: row and column of the first sample
    in the frame, fine_corner: of the window's first fine pixel. splines, texture: (3, H, W), the coefficients of what a
    sample would see at each fine pixel, the mean of 2 x 2 from it, and its variance around."""

    fine: Values
    turns: Values
    colours: npt.NDArray[np.int64]
    corner: tuple[int, int]
    splines: Values
    texture: Values
    fine_corner: tuple[int, int]


@compile_inlined
def _locate_tiles(p: float, count: int) -> Any:
    """Return the first of the two tiles that a place lies in, and the weight of the second."""
    first = min(max(int(np.floor((p + 0.5) / STEP)), 0), count - 2)
    t = min(max(p + 0.5 - first * STEP, 0.0), float(STEP))
    return first, 0.5 - 0.5 * np.cos(np.pi * t / STEP)


@compile_inlined
def _displacement(fine: Any, turns: Any, y: float, x: float) -> Any:
    """Blend the displacement at a place of the reference from its four tiles."""
    row, down = _locate_tiles(y, fine.shape[0])
    column, across = _locate_tiles(x, fine.shape[1])
    dy, dx = 0.0, 0.0
    for i in range(2):
        for j in range(2):
            weight = (down if i else 1 - down) * (across if j else 1 - across)
            r, q = row + i, column + j
            v, u = y - r * STEP + 0.5, x - q * STEP + 0.5
            dy += weight * (fine[r, q, 0] + turns[r, q, 0, 0] * v + turns[r, q, 0, 1] * u)
            dx += weight * (fine[r, q, 1] + turns[r, q, 1, 0] * v + turns[r, q, 1, 1] * u)
    return dy, dx


@compile_inlined
def _invert(fine: Any, turns: Any, s: int, z: int, dy: float, dx: float, rounds: int) -> Any:
    """Return the displacement that leads to the sample of row s and column z, from a guess."""
    for _ in range(rounds):
        dy, dx = _displacement(fine, turns, s - dy, z - dx)
    return dy, dx


@compile_inlined
def _spline_taps(t: float) -> Any:
    """Return the cubic B-spline's weights at a fraction t behind a node."""
    s = 1 - t
    return s * s * s / 6, (4 - 3 * t * t * (2 - t)) / 6, (4 - 3 * s * s * (2 - s)) / 6, t * t * t / 6


@compile_inlined
def _spline_slopes(t: float) -> Any:
    """Return the slopes of these weights."""
    s = 1 - t
    return -s * s / 2, t * (3 * t - 4) / 2, s * (4 - 3 * s) / 2, t * t / 2


@compile_inlined
def _read_spline(plane: Any, i: int, j: int, rows: Any, columns: Any) -> Any:
    """Return the sum of 4 x 4 coefficients around a pixel, weighted by rows and columns."""
    total = 0.0
    for k in range(4):
        row = plane[i - 1 + k]
        total += rows[k] * (
            columns[0] * row[j - 1] + columns[1] * row[j] + columns[2] * row[j + 1] + columns[3] * row[j + 2]
        )
    return total


@compile_inlined
def _read_linear(plane: Any, i: int, j: int, a: float, b: float) -> Any:
    """Interpolate linearly between 2 x 2 pixels."""
    above = (1 - b) * plane[i, j] + b * plane[i, j + 1]
    below = (1 - b) * plane[i + 1, j] + b * plane[i + 1, j + 1]
    return (1 - a) * above + a * below


@compile_with({"contract"})
def predict_samples(model: SampleModel, places: Values, predictions: Values, spreads: Values) -> None:
    """Compute the places (2, h, w) in the fine window of the samples of one frame, the light (h, w) that the enlarged
    picture predicts for them (NaN outside the window), and its variance around."""
    fine, turns, colours, corner, splines, texture, fine_corner = model
    side, (_, H, W) = len(colours), splines.shape
    for y in range(places.shape[1]):
        s = y + corner[0]
        dy, dx = _invert(fine, turns, s, corner[1], 0.0, 0.0, FIRST_ROUNDS)
        for x in range(places.shape[2]):
            z = x + corner[1]
            dy, dx = _invert(fine, turns, s, z, dy, dx, NEXT_ROUNDS)
            v, u = 2 * (s - dy) - fine_corner[0], 2 * (z - dx) - fine_corner[1]  # the first of its 2 x 2 fine pixels
            places[0, y, x], places[1, y, x] = v + 0.5, u + 0.5
            c, i, j = colours[s % side, z % side], int(np.floor(v)), int(np.floor(u))
            if i < 1 or j < 1 or i > H - 3 or j > W - 3:
                predictions[y, x], spreads[y, x] = np.nan, 0
                continue
            a, b = v - i, u - j
            predictions[y, x] = _read_spline(splines[c], i, j, _spline_taps(a), _spline_taps(b))
            spreads[y, x] = _read_linear(texture[c], i, j, a, b)


@compile_with({"contract"})
def add_motion_equations(
    model: SampleModel,
    samples: Values,
    noise: npt.NDArray[np.float64],
    scale: float,
    equations: npt.NDArray[np.float64],
) -> None:
    """Add the upper half of the normal equations (6, 7) of the affine motion that would lessen the differences of
    samples (h, w) from their predictions: shift, and its change along rows and columns in units of `scale` pixels.
    noise: (3, 2), read variance and shot coefficient of each colour."""
    fine, turns, colours, corner, splines, texture, fine_corner = model
    side, (_, H, W) = len(colours), splines.shape
    row = np.empty(UNKNOWNS + 1)
    for y in range(samples.shape[0]):
        s = y + corner[0]
        dy, dx = _invert(fine, turns, s, corner[1], 0.0, 0.0, FIRST_ROUNDS)
        for x in range(samples.shape[1]):
            z = x + corner[1]
            dy, dx = _invert(fine, turns, s, z, dy, dx, NEXT_ROUNDS)
            along_y, along_x = (s - dy) / scale, (z - dx) / scale
            v, u = 2 * (s - dy) - fine_corner[0], 2 * (z - dx) - fine_corner[1]
            c, i, j = colours[s % side, z % side], int(np.floor(v)), int(np.floor(u))
            if i < 1 or j < 1 or i > H - 3 or j > W - 3:
                continue
            a, b = v - i, u - j
            rows, columns = _spline_taps(a), _spline_taps(b)
            prediction = _read_spline(splines[c], i, j, rows, columns)
            down = -2 * _read_spline(splines[c], i, j, _spline_slopes(a), columns)
            across = -2 * _read_spline(splines[c], i, j, rows, _spline_slopes(b))
            scene = _read_linear(texture[c], i, j, a, b)
            variance = noise[c, 0] + noise[c, 1] * max(prediction, 0.0) + 1e-12
            off = samples[y, x] - prediction
            doubt = DOUBT * np.sqrt(variance + scene)
            weight = min(1.0, doubt / max(abs(off), 1e-12)) / (variance + SCENE_SHARE * scene)
            row[0], row[1], row[6] = down, across, off
            row[2], row[3] = down * along_y, down * along_x
            row[4], row[5] = across * along_y, across * along_x
            for k in range(UNKNOWNS):
                for n in range(k, UNKNOWNS + 1):
                    equations[k, n] += weight * row[k] * row[n]


@compile_inlined
def _fill_gaussian(away: float, weights: Any) -> None:
    """Compute exp(-(away + k)^2 / (2 w^2)) for k from -REACH to REACH, as exp(-away^2 / 2 w^2) exp(-away / w^2)^k times
    what depends on k alone."""
    middle, step = np.exp(-(away**2) / (2 * DETAIL_WIDTH**2)), np.exp(-away / DETAIL_WIDTH**2)
    weights[REACH] = middle
    up, down = middle, middle
    for k in range(1, REACH + 1):
        up, down = up * step, down / step
        weights[REACH + k], weights[REACH - k] = up * GAUSSIAN_STEPS[k], down * GAUSSIAN_STEPS[k]


@compile_with({"contract"})
def add_samples(
    places: Values, colours: npt.NDArray[np.int64], values: Values, weights: Values, sums: npt.NDArray[np.float32]
) -> None:
    """Add weighted values (h, w) and their weights to the sums (3, 2, H, W) of their colours, on the fine pixels around
    their places, by a Gaussian of the distance; samples of weight 0 are left out."""
    H, W = sums.shape[2:]
    down, across = np.empty(2 * REACH + 1), np.empty(2 * REACH + 1)
    for y in range(places.shape[1]):
        for x in range(places.shape[2]):
            weight = weights[y, x]
            if weight <= 0:
                continue
            c, v, u = colours[y, x], places[0, y, x], places[1, y, x]
            i, j = int(np.rint(v)), int(np.rint(u))
            if i < REACH or j < REACH or i >= H - REACH or j >= W - REACH:
                continue
            _fill_gaussian(i - v, down)
            _fill_gaussian(j - u, across)
            for k in range(2 * REACH + 1):
                row = weight * down[k]
                for n in range(2 * REACH + 1):
                    part = row * across[n]
                    sums[c, 0, i - REACH + k, j - REACH + n] += part * values[y, x]
                    sums[c, 1, i - REACH + k, j - REACH + n] += part
