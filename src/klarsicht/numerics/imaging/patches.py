"""Small windows of images, and which of them are the same picture.

Natural groups of images share *similar* windows; a watermark, a tag, a ruler shares *identical* ones. So windows are
compared by their correlation, and a threshold near one tells the two apart. All arrays hold images last-channel,
(n, H, W, C); places are (row, column) of a window's upper left pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from klarsicht.ground.arrays import Floats

Ints = NDArray[np.intp]

SOFT = 12.0  # grey levels of 255: windows that vary less than this are alike by chance, and correlate little


def box(x: Floats, w: int) -> Floats:
    """Means over w x w windows, (n, H, W, ...) -> (n, H - w + 1, W - w + 1, ...)."""
    size = (1, w, w) + (1,) * (x.ndim - 3)
    first, last = w // 2, (w - 1) // 2
    means = uniform_filter(x, size)
    return np.asarray(means[:, first : means.shape[1] - last, first : means.shape[2] - last])


def high_pass(x: Floats) -> Floats:
    """Images less the mean of their 3 x 3 neighbourhood, the margin repeated; same shape."""
    return np.asarray(x - uniform_filter(x, (1, 3, 3, 1), mode="nearest"))


def texture(x: Floats, w: int) -> Floats:
    """Mean square of the high-passed image in each window (n, H - w + 1, W - w + 1)."""
    return box((high_pass(x) ** 2).mean(-1), w)


def densest(density: Floats, apart: int, k: int) -> Ints:
    """Places (n, k, 2) of the k largest values of (n, h, w), each more than `apart` from the ones before on an axis.

    Where no place is left, the last one is repeated.
    """
    left = np.array(density, np.float64)
    n, h, w = left.shape
    found = np.zeros((n, k, 2), np.intp)
    rows, columns = np.arange(h)[None, :, None], np.arange(w)[None, None, :]
    for i in range(k):
        flat = left.reshape(n, -1)
        best = flat.argmax(1)
        fresh = np.isfinite(flat[np.arange(n), best])
        here = np.stack(np.divmod(best, w), 1)
        found[:, i] = np.where(fresh[:, None], here, found[:, max(i - 1, 0)])
        a, b = found[:, i, 0, None, None], found[:, i, 1, None, None]
        left[(abs(rows - a) <= apart) & (abs(columns - b) <= apart)] = -np.inf
    return found


def cut(x: Floats, places: Ints, w: int) -> Floats:
    """Windows (n, k, w, w, C) of images (n, H, W, C) at places (n, k, 2)."""
    n, span = np.arange(len(x))[:, None, None, None], np.arange(w)
    return np.asarray(x[n, places[..., 0, None, None] + span[:, None], places[..., 1, None, None] + span])


def normalised(windows: Floats, soft: float = SOFT) -> NDArray[np.float32]:
    """Windows (..., w, w, C) as vectors (..., D) less their mean, over the root of their square norm + D soft^2.

    The product of two of them is a correlation, held down where there is little to correlate.
    """
    flat = np.asarray(windows, np.float32).reshape(*windows.shape[:-3], -1)
    centred = flat - flat.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1, keepdims=True) + np.float32(flat.shape[-1] * soft**2))
    return np.asarray(centred / norm, np.float32)


def likeness(a: NDArray[np.float32], shifted: NDArray[np.float32]) -> NDArray[np.float32]:
    """(p, q) largest correlation of vectors a (p, D) with any shift of others (s, q, D)."""
    best = a @ shifted[0].T
    for other in shifted[1:]:
        np.maximum(best, a @ other.T, out=best)
    return np.asarray(best)
