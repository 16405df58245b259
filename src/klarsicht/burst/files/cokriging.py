"""Demosaicking of an X-Trans mosaic by ordinary cokriging: for each place of the 6 x 6 cell the linear filter of least
mean square error for light whose grey differs by |d|^EXPONENT between pixels d apart, and each colour's difference from
the grey by CHROMA times that.

Weights w of the samples z_i, of colour c_i at p_i, for colour c at p minimise the variance of sum_i w_i z_i - x_c(p)
under the variogram g(d, same) = |d|^EXPONENT (1 + CHROMA same), with sum w = 1 over samples of colour c and 0 over
those of each other colour, so that a uniform colour comes back as it is (Cressie, Statistics for Spatial Data, 3.2):

    sum_j w_j g(p_i - p_j, c_i = c_j) + m_(c_i) = g(p_i - p, c_i = c).

A sample comes back as it was measured, too. Both constants and the radius were chosen on 20 photographs for teaching,
without noise.

Axes: H W pixels of the mosaic, S samples of a window.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Light = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]  # 6 6 S 3

CELL = 6  # pixels: side of the cell of colours
COLOURS_OF_CELL = (8, 20, 8)  # pixels of R, G and B in it
SAMPLES_RADIUS = 3  # pixels: of the window of samples
EXPONENT, CHROMA = 1.25, 0.1
STRIP_CELLS = 32  # rows of cells that are interpolated at once

WHITE_VARIANCE = CELL**2 / COLOURS_OF_CELL[1]
"""Variance of the white noise that is as strong at low frequencies as the noise of interpolated green, over that of a
sample's noise: interpolation leaves the noise of the samples at low frequencies, which is spread over fewer of them."""


def is_x_trans(cell: str) -> bool:
    """Whether a text of 36 letters R, G, B, row by row, is a cell of X-Trans: as many of each."""
    return len(cell) == CELL**2 and tuple(cell.count(c) for c in "RGB") == COLOURS_OF_CELL


def interpolate_x_trans(mosaic: Light, cell: str, gains: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Light:
    """Demosaic (H, W) to RGB (3, H, W). gains: of R, G and B, with which a grey surface has equal samples, because the
    filters take the colours to be alike in strength; the result is that of the mosaic without them. Beyond a border the
    mosaic is repeated from CELL pixels inside, which keeps its colours."""
    (H, W), letters = mosaic.shape, np.array(["RGB".index(letter) for letter in cell]).reshape(CELL, CELL)
    weights, factors = cokriging_weights(cell).astype(np.float32), np.array(gains, np.float32)
    balanced = factors[letters]  # of the cell
    rows, columns = _repeat_cells(H), _repeat_cells(W)
    out = np.empty((3, H, W), np.float32)
    side, step = 2 * SAMPLES_RADIUS + 1, STRIP_CELLS * CELL
    for first in range(0, H, step):
        here = rows[first : min(first + step, H) + 2 * SAMPLES_RADIUS]
        strip = mosaic[here[:, None], columns] * balanced[here[:, None] % CELL, columns % CELL]
        windows = sliding_window_view(strip, (side, side))
        for y, x in np.ndindex(CELL, CELL):
            some = windows[y::CELL, x::CELL]
            found = some.reshape(-1, side * side) @ weights[y, x]
            out[:, first : first + len(windows)][:, y::CELL, x::CELL] = found.T.reshape(3, *some.shape[:2])
    out /= factors[:, None, None]
    return out


def _repeat_cells(length: int) -> npt.NDArray[np.int64]:
    """List the row (or column) that stands for each of -SAMPLES_RADIUS to length + SAMPLES_RADIUS."""
    places = np.arange(-SAMPLES_RADIUS, length + SAMPLES_RADIUS)
    beyond = (places >= length).astype(np.int64) - (places < 0)
    inside: npt.NDArray[np.int64] = places - CELL * beyond
    return inside


@cache
def cokriging_weights(cell: str) -> Weights:
    """Compute the weights (6, 6, S, 3) of the samples of the window around each place of a cell, for R, G and B."""
    letters = np.array(list(cell)).reshape(CELL, CELL)
    reach = np.arange(-SAMPLES_RADIUS, SAMPLES_RADIUS + 1)
    around = np.stack(np.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)
    apart = np.linalg.norm(around[:, None] - around, axis=-1) ** EXPONENT
    away = np.linalg.norm(around, axis=-1) ** EXPONENT
    S = len(around)
    weights = np.empty((CELL, CELL, S, 3))
    for place in np.ndindex(CELL, CELL):
        colours = letters[*((place + around) % CELL).T]
        member = colours[:, None] == np.array(list("RGB"))  # S 3
        system = np.zeros((S + 3, S + 3))
        system[:S, :S] = apart * (1 + CHROMA * (colours[:, None] == colours))
        system[:S, S:], system[S:, :S] = member, member.T
        wanted = np.concatenate([away[:, None] * (1 + CHROMA * member), np.eye(3)])
        weights[place] = np.linalg.solve(system, wanted)[:S]
    return weights
