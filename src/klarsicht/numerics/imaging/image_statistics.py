"""What images are like without looking at what they show: noise, sharpness, colour cast, blocks, borders.

Each function takes images (n, H, W, C) in grey levels 0 to 255 of one colour or three and gives one number an image.
Artifacts without a place push some images of a class far into a tail of one of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from klarsicht.ground.arrays import Floats

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


def veil(x: Floats) -> Floats:
    """Log of the level that one in a hundred of the pixels is darker than: light over all of it leaves no black."""
    return np.asarray(np.log1p(np.quantile(x.mean(-1).reshape(len(x), -1), 0.01, axis=1)))


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
    """Log ratio of the step behind the outermost pixels to their unrest, on the worst of the four sides.

    A border of one colour is at rest and ends with a step; a white background is at rest, a scene steps, neither both.
    """
    return np.asarray(_edges(x).min(0))


def bars(x: Floats) -> Floats:
    """The same on two opposite sides, whichever two are the better: letter boxes."""
    top, bottom, left, right = _edges(x)
    return np.asarray(np.maximum(np.minimum(top, bottom), np.minimum(left, right)))


def rims(x: Floats) -> NDArray[np.intp]:
    """Pixels (4, n) of one colour at the top, bottom, left and right: down to the largest step; nought on sides that
    have no such border."""
    deep = np.stack([_steps(side, _deepest(x)).argmax(1) + 1 for side in _turned(x)])
    return np.asarray(np.where(_edges(x) > 1, deep, 0), np.intp)


def _edges(x: Floats) -> Floats:
    """Log (step + 1) / (unrest + 1) for top, bottom, left and right (4, n); ratios below e, as noise has, say nothing.

    The step is the largest within a tenth of the image: the median over a side's pixels of the difference of neighbours
    across. Unrest is the deviation of the outermost pixels of that side.
    """
    steps = [_steps(side, _deepest(x)).max(1) for side in _turned(x)]
    found = [
        np.log1p(step) - np.log1p(side[:, 0].std(1).mean(-1)) for step, side in zip(steps, _turned(x), strict=True)
    ]
    return np.asarray(np.maximum(found, 1.0))


def _turned(x: Floats) -> list[Floats]:
    """Images so that the top, the bottom, the left and the right side is on top."""
    return [x, x[:, ::-1], x.swapaxes(1, 2), x.swapaxes(1, 2)[:, ::-1]]


def _deepest(x: Floats) -> int:
    return max(1, round(int(min(x.shape[1:3])) / 10))


def _steps(x: Floats, deepest: int) -> Floats:
    """Of the top side: the median step behind each of the rows down to `deepest` (n, deepest)."""
    jumps = np.abs(np.diff(x[:, : deepest + 1], axis=1)).mean(-1)
    return np.asarray(np.median(jumps, axis=2))
