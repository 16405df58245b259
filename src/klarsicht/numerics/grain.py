"""What images are like without looking at what they show: noise, sharpness, colour cast, blocks, borders.

Each function takes images (n, H, W, C) in grey levels 0 to 255 of one colour or three and gives one number an image.
Artifacts without a place push some images of a class far into a tail of one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Floats = NDArray[np.floating[Any]]

WINDOW = 5  # pixels a side, over which local noise is averaged
BLOCK = 8  # of JPEG
LAPLACE = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])  # Immerkaer (1996): blind to planes; its square sums to 36


def laplacian(x: Floats) -> Floats:
    """Images folded with LAPLACE / 6: white noise keeps its deviation, slopes vanish. (n, H - 2, W - 2, C)."""
    along = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    return np.asarray((along[:, :, :-2] - 2 * along[:, :, 1:-1] + along[:, :, 2:]) / 6)


def _energy(x: Floats) -> Floats:
    """Local mean square of the Laplacian, colours averaged (n, h * w)."""
    square = (laplacian(x) ** 2).mean(-1)
    w = min(WINDOW, *square.shape[1:])
    size, first, last = (1, w, w), w // 2, (w - 1) // 2
    inside = uniform_filter(square, size)[:, first : square.shape[1] - last, first : square.shape[2] - last]
    return np.asarray(np.maximum(inside.reshape(len(x), -1), 0))


def noise(x: Floats) -> Floats:
    """Log deviation of the quietest window: where the scene shows nothing, sensor noise remains."""
    return np.asarray(np.log1p(np.sqrt(_energy(x).min(1))))


def roughness(x: Floats) -> Floats:
    """Log deviation of the window that a tenth of the windows are quieter than."""
    return np.asarray(np.log1p(np.sqrt(np.quantile(_energy(x), 0.1, axis=1))))


def sharpness(x: Floats) -> Floats:
    """Log deviation of the liveliest window: small where the whole image is blurred."""
    return np.asarray(np.log1p(np.sqrt(_energy(x).max(1))))


def ringing(x: Floats) -> Floats:
    """Log share of fine contrast in all contrast: small where the whole image is blurred, whatever it shows."""
    fine = np.sqrt((laplacian(x) ** 2).mean((1, 2, 3)))
    step = np.sqrt((np.diff(x, axis=1) ** 2).mean((1, 2, 3)) + (np.diff(x, axis=2) ** 2).mean((1, 2, 3)))
    return np.asarray(np.log((fine + 0.5) / (step + 0.5)))


def chroma_noise(x: Floats) -> Floats:
    """Log deviation of the differences of colours in their quietest window; 0 for grey images."""
    return noise(x - x.mean(-1, keepdims=True))


def red_cast(x: Floats) -> Floats:
    """Log ratio of red to green."""
    return _ratio(x, 0)


def blue_cast(x: Floats) -> Floats:
    """Log ratio of blue to green."""
    return _ratio(x, -1)


def _ratio(x: Floats, colour: int) -> Floats:
    means = np.log(x.mean((1, 2)) + 4)  # 4 levels: black images have no colour
    return np.asarray(means[:, colour] - means[:, x.shape[-1] // 2])


def blockiness(x: Floats) -> Floats:
    """Log ratio of second differences across the borders of 8 x 8 blocks to those inside them: JPEG at low quality."""
    grey = x.mean(-1)
    return np.asarray(np.mean([_across(grey), _across(grey.swapaxes(1, 2))], 0))


def _across(grey: Floats) -> Floats:
    jump = np.abs(grey[:, :-3] - 3 * grey[:, 1:-2] + 3 * grey[:, 2:-1] - grey[:, 3:]).mean(2)
    if jump.shape[1] < BLOCK:
        return np.zeros(len(grey))
    at = (np.arange(jump.shape[1]) + 2) % BLOCK == 0  # between the middle two of four pixels lies a border
    return np.asarray(np.log((jump[:, at].mean(1) + 0.5) / (jump[:, ~at].mean(1) + 0.5)))


def frame(x: Floats) -> Floats:
    """Log deviation of the outermost pixels among themselves: 0 where a border of one colour surrounds the image."""
    return np.asarray(np.log1p(_ring(x).std(1).mean(-1)))


def bars(x: Floats) -> Floats:
    """The same for two opposite sides, whichever two are flatter: letter boxes."""
    pairs = ((x[:, 0], x[:, -1]), (x[:, :, 0], x[:, :, -1]))
    return np.asarray(np.min([np.log1p(np.concatenate(pair, 1).std(1).mean(-1)) for pair in pairs], 0))


def _ring(x: Floats) -> Floats:
    """The outermost pixels (n, p, C)."""
    return np.concatenate([x[:, 0], x[:, -1], x[:, 1:-1, 0], x[:, 1:-1, -1]], 1)


def frame_step(x: Floats) -> Floats:
    """Log of the least mean step over the four sides, the widest found within a tenth of the image.

    A border that ends everywhere on a line parallel to its side steps on all four; a scene hardly ever does.
    """
    deepest = max(1, round(min(x.shape[1:3]) / 10))
    return np.asarray(np.log1p(np.max([_step(x, b) for b in range(1, deepest + 1)], 0)))


def _step(x: Floats, b: int) -> Floats:
    """Least over the sides of the median step between pixel b - 1 and pixel b from the side."""
    inner = x[:, b:-b, b:-b]
    sides = [
        inner[:, 0] - x[:, b - 1, b:-b],
        inner[:, -1] - x[:, -b, b:-b],
        inner[:, :, 0] - x[:, b:-b, b - 1],
        inner[:, :, -1] - x[:, b:-b, -b],
    ]
    return np.asarray(np.min([np.median(np.abs(side).mean(-1), axis=1) for side in sides], 0))
