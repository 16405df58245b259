"""Vectors that describe an image by what does not depend on its content: texture, processing, colours, borders.

Each function takes images (n, H, W, C), grey levels 0 to 255, C = 1 or 3, and returns float64 (n, d), of which an
unknown artifact moves some direction."""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Floats

SIDE = 32  # pixels a side of the square windows in which texture is described, at the image's own resolution
GRID = 4  # windows a side of an image, at most
LAG = 5  # pixels, largest lag of an autocorrelation
SOFT = 8.0  # grey levels; differences well above count alike, so that few edges do not decide
DEPTH = 5  # lines below each side of an image, a 32nd of the side apart
LEVELS = (0.02, 0.1, 0.5, 0.9, 0.98)  # quantiles of each channel
DIFFERENCES = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles of differences of channels
MARGINS = (4.0, 24.0)  # grey levels by which a neighbour must be brighter: fine and coarse texture
NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))  # of the pixel (1, 1), clockwise


def spectrum(x: Floats) -> Floats:
    """Compute the log amplitude at each frequency, averaged over windows: scan lines, moire, blur, resampling."""
    grey = _windows(x.mean(-1))
    grey = grey - grey.mean((2, 3), keepdims=True)
    taper = np.hanning(grey.shape[2])[:, None] * np.hanning(grey.shape[3])
    power = (np.abs(np.fft.rfft2(grey * taper)) ** 2).mean(1)
    return np.asarray(0.5 * np.log(power + 100).reshape(len(x), -1))


def autocorrelations(x: Floats) -> Floats:
    """Compute the correlations of neighbour differences at all lags up to LAG, along rows and along columns, and the
    size of these differences d, which count as d / (|d| + SOFT): noise, sharpening and compression correlate them."""
    grey = _windows(x.mean(-1))
    parts = []
    for step in (np.diff(grey, axis=2), np.diff(grey, axis=3)):
        soft = _soften(step)
        size = [side + LAG for side in soft.shape[2:]]
        power = (np.abs(np.fft.rfft2(soft, size)) ** 2).mean(1)
        product = np.fft.irfft2(power, size) / (soft.shape[2] * soft.shape[3])
        lags = [(i, j) for i in range(LAG + 1) for j in range(-LAG, LAG + 1) if (i, j) > (0, 0)]
        energy = product[:, 0, 0][:, None]
        parts += [np.stack([product[:, i, j] for i, j in lags], 1) / (energy + 0.02), np.log(energy + 0.02)]
    return np.concatenate(parts, 1)


def channel_correlations(x: Floats) -> Floats:
    """Compute the size of neighbour differences in each channel, and their correlations between channels."""
    parts = []
    for step in (np.diff(x, axis=1), np.diff(x, axis=2)):
        soft = _soften(step)
        energy = (soft**2).mean((1, 2))
        parts.append(np.log(energy + 0.02))
        for a, b in _pairs(x.shape[-1]):
            product = (soft[..., a] * soft[..., b]).mean((1, 2))
            parts.append((product / np.sqrt((energy[:, a] + 0.02) * (energy[:, b] + 0.02)))[:, None])
    return np.asarray(np.concatenate(parts, 1), np.float64)


def colours(x: Floats) -> Floats:
    """Compute the quantiles of each channel and of the differences of channels, and correlations between channels."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    parts = [np.quantile(flat, LEVELS, axis=1).swapaxes(0, 1).reshape(len(x), -1)]
    centred = flat - flat.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(1))
    for a, b in _pairs(x.shape[-1]):
        parts.append(np.quantile(flat[..., a] - flat[..., b], DIFFERENCES, axis=1).T)
        product = (centred[..., a] * centred[..., b]).mean(1)
        correlation = (product + 1) / (deviation[:, a] * deviation[:, b] + 1)
        parts.append(np.arctanh(np.clip(correlation, -0.999, 0.999))[:, None])
    return np.asarray(np.concatenate(parts, 1), np.float64)


def borders(x: Floats) -> Floats:
    """Compute how uniform the lines at each side are, and how far they differ from the next: stripes and frames."""
    parts = []
    for side in (x, x[:, ::-1], x.swapaxes(1, 2), x.swapaxes(1, 2)[:, ::-1]):
        stride = max(1, side.shape[1] // SIDE)
        for line in range(min(DEPTH, (side.shape[1] - 1) // stride)):
            here, next_one = side[:, line * stride], side[:, (line + 1) * stride]
            step = next_one - here
            parts.append(np.log(here.std(1).mean(-1) + 2))
            parts.append(np.log(np.abs(np.median(step, 1)).mean(-1) + 4))
            parts.append(np.log(np.abs(step).mean((1, 2)) + 4))
    return np.asarray(np.stack(parts, 1), np.float64)


def binary_patterns(x: Floats) -> Floats:
    """Compute the log shares of local binary patterns (Ojala 1996): which of the eight neighbours are brighter than a
    pixel, by each margin of MARGINS."""
    grey = x.mean(-1)
    height, width = grey.shape[1:]
    parts = []
    for margin in MARGINS:
        pattern = np.zeros((len(x), height - 2, width - 2), np.uint8)
        for bit, (row, column) in enumerate(NEIGHBOURS):
            neighbour = grey[:, row : height - 2 + row, column : width - 2 + column]
            pattern |= (neighbour > grey[:, 1:-1, 1:-1] + margin).astype(np.uint8) << bit
        share = np.stack([np.bincount(one.ravel(), minlength=256) for one in pattern]) / max(1, pattern[0].size)
        parts.append(np.log(share + 0.002))
    return np.concatenate(parts, 1)


def _windows(grey: Floats) -> Floats:
    """Cut images (n, H, W) into at most GRID x GRID spread windows, (n, w, SIDE, SIDE), or smaller images whole."""
    h, w = (min(SIDE, side) for side in grey.shape[1:])
    tops, lefts = (_spread(side, part) for side, part in zip(grey.shape[1:], (h, w), strict=True))
    return np.stack([grey[:, a : a + h, b : b + w] for a in tops for b in lefts], 1)


def _spread(side: int, part: int) -> list[int]:
    """Spread at most GRID starts of parts evenly over a side; parts do not overlap."""
    count = min(GRID, side // part)
    return np.rint(np.linspace(0, side - part, count)).astype(int).tolist() if count > 1 else [(side - part) // 2]


def _soften(step: Floats) -> Floats:
    return np.asarray(step / (np.abs(step) + SOFT))


def _pairs(channels: int) -> list[tuple[int, int]]:
    return [(0, 1), (0, 2), (1, 2)] if channels == 3 else []
