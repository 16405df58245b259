"""Demosaicking of an X-Trans or a Bayer mosaic by ordinary cokriging: for each place of the cell, the linear filter of
least mean square error for light whose grey differs by |d|^EXPONENT between pixels d apart, and each colour's
difference from the grey by CHROMA times that.

Weights w of the samples z_i, of colour c_i at p_i, for colour c at p minimise the variance of sum_i w_i z_i - x_c(p)
under the variogram g(d, same) = |d|^EXPONENT (1 + CHROMA same), with sum w = 1 over samples of colour c and 0 over
those of each other colour (Cressie, Statistics for Spatial Data, 3.2):

    sum_j w_j g(p_i - p_j, c_i = c_j) + m_(c_i) = g(p_i - p, c_i = c).

A sample comes back as it was measured. S counts the samples of a window.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Mask = npt.NDArray[np.bool_]
Light = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]  # side side S 3
Pattern = npt.NDArray[np.float64]  # L L
Covariance = npt.NDArray[np.float64]  # 3 3 L L

MOSAICS = {"bayer": "RGGB", "x-trans": "GBGGRGRGRBGBGBGGRGGRGGBGBGBRGRGRGGBG"}
"""Cells of the two kinds of mosaic, by name, at one of their places."""
CELL = 6  # pixels: side of the cell of colours of X-Trans
COLOURS_OF_CELL = (8, 20, 8)  # pixels of R, G and B in it
SAMPLES_RADIUS = 3  # pixels: of the window of samples
EXPONENT, CHROMA = 1.25, 0.1
WINDOW = 2 * SAMPLES_RADIUS + 1  # pixels: its side
NEAREST = SAMPLES_RADIUS - 1  # pixels of a window of samples that lie outside the nearest 3 x 3
AT_WHITE = 1e-4  # of white: interpolated light that is so near is white, whatever rounding made of it
STRIP_CELLS = 32  # rows of cells that are interpolated at once


def is_x_trans(cell: str) -> bool:
    """Whether a text of 36 letters R, G, B, row by row, is a cell of X-Trans: as many of each."""
    return len(cell) == CELL**2 and tuple(cell.count(c) for c in "RGB") == COLOURS_OF_CELL


def white_variance(cell: str) -> float:
    """Compute the variance of white noise that is as strong at low frequencies as the noise of interpolated green, over
    that of a sample's noise: 2 for Bayer, 1.8 for X-Trans."""
    return len(cell) / cell.count("G")


def grey_variance(cell: str) -> float:
    """Compute the variance of white noise, independent by colour, whose mean over the colours is as strong at low
    frequencies as that of interpolated light, over a sample's: 3.3 for Bayer, 3.5 for X-Trans."""
    side, weights = cell_side(cell), cokriging_weights(cell).mean(-1)
    reach = np.arange(-SAMPLES_RADIUS, SAMPLES_RADIUS + 1)
    given = np.zeros((side, side))  # by the sample at each place, to all pixels together
    for y, x in np.ndindex(side, side):
        np.add.at(given, ((y + reach[:, None]) % side, (x + reach) % side), weights[y, x].reshape(len(reach), -1))
    return 3 * float(np.square(given).mean())


def pixel_variance(cell: str) -> float:
    """Compute the variance of a pixel of interpolated light over that of a sample's noise, averaged over the cell."""
    return float(np.square(cokriging_weights(cell)).sum(2).mean())


@cache
def sample_weights(cell: str) -> Pattern:
    """Compute the weight (L, L) that a sample has in the interpolated light of its own colour at the pixels around it,
    averaged over the places of the cell; 1 at its own."""
    side, width = cell_side(cell), 2 * SAMPLES_RADIUS + 1
    weights, colours = cokriging_weights(cell).reshape(side, side, width, width, 3), colour_numbers(cell)
    reach = range(-SAMPLES_RADIUS, SAMPLES_RADIUS + 1)
    kernel = np.zeros((width, width))
    for (y, x), i, j in product(np.ndindex(side, side), reach, reach):
        around = weights[(y + i) % side, (x + j) % side]
        kernel[i + SAMPLES_RADIUS, j + SAMPLES_RADIUS] += around[SAMPLES_RADIUS - i, SAMPLES_RADIUS - j, colours[y, x]]
    return kernel / side**2


@cache
def noise_covariance(cell: str) -> Covariance:
    """Compute the covariances (3, 3, L, L) of interpolated noise, averaged over the places of the cell: of colour c at
    a pixel and at the one that lies (y, x) from it, by samples of colour k with white noise of variance 1."""
    side, width = cell_side(cell), 2 * SAMPLES_RADIUS + 1
    weights = cokriging_weights(cell).reshape(side, side, width, width, 3)
    member = np.eye(3)[colour_numbers(cell)]
    reach = np.arange(-SAMPLES_RADIUS, SAMPLES_RADIUS + 1)
    lags = range(-2 * SAMPLES_RADIUS, 2 * SAMPLES_RADIUS + 1)
    covariances = np.zeros((3, 3, len(lags), len(lags)))
    for y, x in np.ndindex(side, side):
        colours = member[(y + reach[:, None]) % side, (x + reach) % side]
        for i, j in product(lags, lags):
            here = (slice(max(0, i), width + min(0, i)), slice(max(0, j), width + min(0, j)))
            there = (slice(max(0, -i), width - max(0, i)), slice(max(0, -j), width - max(0, j)))
            other = weights[(y + i) % side, (x + j) % side]
            shared = np.einsum("abc,abc,abk->ck", weights[y, x][here], other[there], colours[here])
            covariances[..., i - lags[0], j - lags[0]] += shared / side**2
    return covariances


def interpolate_mosaic(
    mosaic: Light, cell: str, gains: tuple[float, float, float] = (1.0, 1.0, 1.0), white: float = math.inf
) -> Light:
    """Demosaic (H, W) to RGB (3, H, W). cell: its letters, row by row. gains: of R, G and B, with which a grey surface
    has equal samples, as the filters take colours to be alike in strength; the result is without them. white: where
    samples are cut off, and the result; it is white where all samples of its colour among the nearest 3 x 3 are. Beyond
    a border the mosaic is repeated from whole cells inside."""
    (H, W), side = mosaic.shape, cell_side(cell)
    kernels, factors = _cell_kernels(cell), np.array(gains, np.float32)
    colours = colour_numbers(cell)
    whole = [-(-n // side) * side for n in (H, W)]
    rows, columns = (
        repeat_cells(np.arange(-SAMPLES_RADIUS, cells + SAMPLES_RADIUS), n, side)
        for cells, n in zip(whole, (H, W), strict=True)
    )
    out, step = np.empty((3, H, W), np.float32), STRIP_CELLS * side
    for first in range(0, H, step):
        here = rows[first : first + step + 2 * SAMPLES_RADIUS]
        strip = np.minimum(mosaic[here[:, None], columns], np.float32(white))
        clipped = (strip >= white)[NEAREST:-NEAREST, NEAREST:-NEAREST]
        strip *= factors[colours[here[:, None] % side, columns % side]]
        part = out[:, first : min(first + step, H)]
        part[:] = _filter_cells(strip, kernels)[:, : part.shape[1], :W] / factors[:, None, None]
        np.copyto(part, np.float32(white), where=part > white * (1 - AT_WHITE))
        if clipped.any():
            _whiten(part, clipped[: part.shape[1] + 2, : W + 2], colours, white)
    return out


@cache
def _cell_kernels(cell: str) -> Light:
    """Return the weights as kernels of whole cells, (3 side^2, 1, L, L): of each colour at each place of a cell, over
    the cell and the samples around it."""
    side = cell_side(cell)
    weights = cokriging_weights(cell).reshape(side, side, WINDOW, WINDOW, 3)
    kernels = np.zeros((3, side, side, side + 2 * SAMPLES_RADIUS, side + 2 * SAMPLES_RADIUS), np.float32)
    for y, x in np.ndindex(side, side):
        kernels[:, y, x, y : y + WINDOW, x : x + WINDOW] = weights[y, x].transpose(2, 0, 1)
    return kernels.reshape(-1, 1, *kernels.shape[-2:])


def _filter_cells(samples: Light, kernels: Light) -> Light:
    """Apply the kernels of _cell_kernels to the samples of whole cells and those around them, (3, h, w)."""
    import torch  # only here: whoever reads a file's tags need not wait for it

    side = kernels.shape[-1] - 2 * SAMPLES_RADIUS
    mosaic = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None, None]
    filtered = torch.conv2d(mosaic, torch.from_numpy(kernels), stride=side)[0]
    n, q = filtered.shape[1:]
    parts = filtered.reshape(3, side, side, n, q).permute(0, 3, 1, 4, 2)
    return np.asarray(parts.reshape(3, n * side, q * side).numpy())


def _whiten(light: Light, clip_mask: npt.NDArray[np.bool_], colours: npt.NDArray[np.int64], white: float) -> None:
    """Make white, (3, h, w), what has only clipped samples, (h + 2, w + 2), of its colour in the nearest 3 x 3."""
    side, around = len(colours), np.arange(-1, 2)
    windows = sliding_window_view(clip_mask, (3, 3))
    for (y, x), c in product(np.ndindex(side, side), range(3)):
        member = colours[(y + around[:, None]) % side, (x + around) % side] == c
        if member.any():
            light[c, y::side, x::side][windows[y::side, x::side][..., member].all(-1)] = white


def cell_side(cell: str) -> int:
    """Compute the side of a cell from the number of its letters."""
    return math.isqrt(len(cell))


def colour_numbers(cell: str) -> npt.NDArray[np.int64]:
    """Return the colour of each place of a cell, 0 red, 1 green, 2 blue, (side, side)."""
    side = cell_side(cell)
    return np.array(["RGB".index(letter) for letter in cell], np.int64).reshape(side, side)


def repeat_cells(places: npt.NDArray[np.int64], length: int, side: int) -> npt.NDArray[np.int64]:
    """Return the row (or column) inside that stands for each place beyond the border, whole cells further in."""
    beyond = -(np.minimum(places, 0) // side) - -(-np.maximum(places - (length - 1), 0) // side)
    return places + side * beyond


def take_samples(light: Light, cell: str, y0: int = 0, x0: int = 0) -> Light:
    """Take from each pixel (3, H, W) the colour that the sensor has there, (H, W); the first pixel is (y0, x0)."""
    colours, side = colour_numbers(cell), cell_side(cell)
    rows, columns = (first + np.arange(n) for first, n in zip((y0, x0), light.shape[1:], strict=True))
    return np.take_along_axis(light, colours[rows[:, None] % side, columns % side][None], 0)[0]


def measured_mask(cell: str, size: tuple[int, int], y0: int = 0, x0: int = 0) -> Mask:
    """Return which colours (3, H, W) the sensor measures at each pixel; the first pixel is (y0, x0)."""
    colours, side = colour_numbers(cell), cell_side(cell)
    rows, columns = (first + np.arange(n) for first, n in zip((y0, x0), size, strict=True))
    return colours[rows[:, None] % side, columns % side] == np.arange(3)[:, None, None]


@cache
def cokriging_weights(cell: str) -> Weights:
    """Compute the weights (side, side, S, 3) of the samples around each place of a cell, for R, G and B."""
    return _solve_weights(cell, np.arange(WINDOW**2))


@cache
def prediction_weights(cell: str) -> Weights:
    """Compute the same weights where the sample in the middle of the window is left out: its own weight is 0."""
    others = np.delete(np.arange(WINDOW**2), WINDOW**2 // 2)
    weights = np.zeros((cell_side(cell), cell_side(cell), WINDOW**2, 3))
    weights[:, :, others] = _solve_weights(cell, others)
    return weights


def predict_samples(samples: Light, cell: str) -> Light:
    """Predict each sample (H, W) of a mosaic from the others around it; beyond a border the mosaic is mirrored."""
    weights, colours, side = prediction_weights(cell), colour_numbers(cell), cell_side(cell)
    windows = sliding_window_view(np.pad(samples, SAMPLES_RADIUS, "reflect"), (WINDOW, WINDOW))
    predictions = np.empty_like(samples)
    for y, x in np.ndindex(side, side):
        kernel = weights[y, x, :, colours[y, x]].reshape(WINDOW, WINDOW).astype(np.float32)
        predictions[y::side, x::side] = np.einsum("yxij,ij->yx", windows[y::side, x::side], kernel)
    return predictions


def _solve_weights(cell: str, samples: npt.NDArray[np.int64]) -> Weights:
    """Compute the weights of some samples of the window."""
    side = cell_side(cell)
    letters = np.array(list(cell)).reshape(side, side)
    reach = np.arange(-SAMPLES_RADIUS, SAMPLES_RADIUS + 1)
    around = np.stack(np.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)[samples]
    distances = np.linalg.norm(around[:, None] - around, axis=-1) ** EXPONENT
    away = np.linalg.norm(around, axis=-1) ** EXPONENT
    S = len(around)
    weights = np.empty((side, side, S, 3))
    for place in np.ndindex(side, side):
        colours = letters[*((place + around) % side).T]
        member = colours[:, None] == np.array(list("RGB"))  # S 3
        system = np.zeros((S + 3, S + 3))
        system[:S, :S] = distances * (1 + CHROMA * (colours[:, None] == colours))
        system[:S, S:], system[S:, :S] = member, member.T
        wanted = np.concatenate([away[:, None] * (1 + CHROMA * member), np.eye(3)])
        weights[place] = np.linalg.solve(system, wanted)[:S]
    return weights
