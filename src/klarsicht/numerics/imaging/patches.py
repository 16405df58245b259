"""Small image windows and their correlation, to find windows that show the same picture: natural groups of images share
*similar* windows; a watermark or a tag shares *identical* ones. Images are (n, H, W, C); places are (row, column) of a
window's upper left pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from klarsicht.ground.arrays import Floats

Ints = NDArray[np.intp]

SOFT = 12.0  # grey levels of 255: windows of a smaller deviation are similar by chance; their correlation is reduced


def box_mean(x: Floats, w: int) -> Floats:
    """Average over w x w windows, (n, H, W, ...) -> (n, H - w + 1, W - w + 1, ...)."""
    size = (1, w, w) + (1,) * (x.ndim - 3)
    first, last = w // 2, (w - 1) // 2
    means = uniform_filter(x, size)
    return np.asarray(means[:, first : means.shape[1] - last, first : means.shape[2] - last])


def high_pass(x: Floats) -> Floats:
    """Subtract from images the mean of their 3 x 3 neighbourhood, with edge pixels replicated; same shape."""
    return np.asarray(x - uniform_filter(x, (1, 3, 3, 1), mode="nearest"))


def select_peaks(density: Floats, distance: int, k: int) -> Ints:
    """Select the places (n, k, 2) of the k largest values of (n, h, w) greedily, each more than `distance` from earlier
    ones along at least one axis; where no place is left, the last one is repeated."""
    density_left = np.array(density, np.float64)
    n, h, w = density_left.shape
    places = np.zeros((n, k, 2), np.intp)
    rows, columns = np.arange(h)[None, :, None], np.arange(w)[None, None, :]
    for i in range(k):
        flat = density_left.reshape(n, -1)
        best = flat.argmax(1)
        fresh = np.isfinite(flat[np.arange(n), best])
        here = np.stack(np.divmod(best, w), 1)
        places[:, i] = np.where(fresh[:, None], here, places[:, max(i - 1, 0)])
        a, b = places[:, i, 0, None, None], places[:, i, 1, None, None]
        density_left[(abs(rows - a) <= distance) & (abs(columns - b) <= distance)] = -np.inf
    return places


def extract_windows(x: Floats, places: Ints, w: int) -> Floats:
    """Extract windows (n, k, w, w, C) of images (n, H, W, C) at places (n, k, 2)."""
    n, span = np.arange(len(x))[:, None, None, None], np.arange(w)
    return np.asarray(x[n, places[..., 0, None, None] + span[:, None], places[..., 1, None, None] + span])


def normalise_windows(windows: Floats, soft: float = SOFT) -> NDArray[np.float32]:
    """Normalise windows (..., w, w, C) to vectors (..., D) without mean, of square norm plus D soft^2: the dot product
    of two of them is a correlation, reduced for windows of low contrast."""
    flat = np.asarray(windows, np.float32).reshape(*windows.shape[:-3], -1)
    centred = flat - flat.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1, keepdims=True) + np.float32(flat.shape[-1] * soft**2))
    return np.asarray(centred / norm, np.float32)


def max_correlation(a: NDArray[np.float32], neighbours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the largest correlation (p, q) of vectors a (p, D) with any shift of others (s, q, D)."""
    best = a @ neighbours[0].T
    for other in neighbours[1:]:
        np.maximum(best, a @ other.T, out=best)
    return np.asarray(best)
