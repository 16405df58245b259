"""Global image statistics that do not depend on content: noise, sharpness, colour cast, JPEG blocks, borders. Each
function takes images (n, H, W, C), grey levels 0 to 255, C = 1 or 3, and returns one number per image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Floats
from klarsicht.numerics.imaging.patches import box_mean

WINDOW = 5  # side in pixels of the window over which noise is averaged
BLOCK = 8  # side of a JPEG block


def laplacian(x: Floats) -> Floats:
    """Convolve images with a Laplacian that keeps the deviation of white noise; (n, H - 2, W - 2, C)."""
    along = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    return np.asarray((along[:, :, :-2] - 2 * along[:, :, 1:-1] + along[:, :, 2:]) / 6)


def _local_energy(x: Floats) -> Floats:
    """Compute the local mean square of the Laplacian, averaged over channels, (n, h * w)."""
    square = (laplacian(x) ** 2).mean(-1)
    means = box_mean(square, min(WINDOW, *square.shape[1:]))
    return np.asarray(np.maximum(means.reshape(len(x), -1), 0))


def noise(x: Floats) -> Floats:
    """Estimate the log noise deviation in the window of least energy, where there is least image content."""
    return np.asarray(np.log1p(np.sqrt(_local_energy(x).min(1))))


def roughness(x: Floats) -> Floats:
    """Compute the log deviation at the 10 % quantile of the windows."""
    return np.asarray(np.log1p(np.sqrt(np.quantile(_local_energy(x), 0.1, axis=1))))


def sharpness(x: Floats) -> Floats:
    """Compute the log deviation in the window of largest energy: small where the whole image is blurred."""
    return np.asarray(np.log1p(np.sqrt(_local_energy(x).max(1))))


def ringing(x: Floats) -> Floats:
    """Compute the log ratio of fine contrast to all contrast: small where the whole image is blurred."""
    fine = np.sqrt((laplacian(x) ** 2).mean((1, 2, 3)))
    step = np.sqrt((np.diff(x, axis=1) ** 2).mean((1, 2, 3)) + (np.diff(x, axis=2) ** 2).mean((1, 2, 3)))
    return np.asarray(np.log((fine + 0.5) / (step + 0.5)))


def chroma_noise(x: Floats) -> Floats:
    """Estimate the log noise deviation of colour differences in the window of least energy; 0 for grey images."""
    return noise(x - x.mean(-1, keepdims=True))


def veil(x: Floats) -> Floats:
    """Compute the log of the 1 % quantile of the grey levels: veiling glare leaves no black pixels."""
    return np.asarray(np.log1p(np.quantile(x.mean(-1).reshape(len(x), -1), 0.01, axis=1)))


def blockiness(x: Floats) -> Floats:
    """Compute the log ratio of third differences across the borders of 8 x 8 blocks to those inside: JPEG."""
    grey = x.mean(-1)
    return np.asarray(np.mean([_border_step_ratio(grey), _border_step_ratio(grey.swapaxes(1, 2))], 0))


def _border_step_ratio(grey: Floats) -> Floats:
    """Compute the log ratio of steps at block borders to steps inside blocks, along the first image axis; (n,)."""
    jump = np.abs(grey[:, :-3] - 3 * grey[:, 1:-2] + 3 * grey[:, 2:-1] - grey[:, 3:]).mean(2)
    if jump.shape[1] < BLOCK:
        return np.zeros(len(grey))
    at = (np.arange(jump.shape[1]) + 2) % BLOCK == 0  # the border lies between the middle two of the four pixels
    return np.asarray(np.log((jump[:, at].mean(1) + 0.5) / (jump[:, ~at].mean(1) + 0.5)))


def frame(x: Floats) -> Floats:
    """Compute the log ratio of the step behind the outermost pixels to their deviation, least over the four sides: a
    uniform border has a small deviation and ends with a step."""
    return np.asarray(_border_ratios(x).min(0))


def bars(x: Floats) -> Floats:
    """Compute the ratio of `frame` for two opposite sides, the larger of the two pairs: letterbox bars."""
    top, bottom, left, right = _border_ratios(x)
    return np.asarray(np.maximum(np.minimum(top, bottom), np.minimum(left, right)))


def border_widths(x: Floats) -> NDArray[np.intp]:
    """Measure the widths in pixels (4, n) of uniform borders at the top, bottom, left and right; 0 without one."""
    deep = np.stack([_steps(side, _max_border(x)).argmax(1) + 1 for side in _sides_on_top(x)])
    return np.asarray(np.where(_border_ratios(x) > 1, deep, 0), np.intp)


def _border_ratios(x: Floats) -> Floats:
    """Compute log (step + 1) / (deviation + 1) for top, bottom, left and right (4, n), at least 1, as noise gives such
    ratios. The step is the largest median difference of neighbours across, within a tenth of the image; the deviation
    that of the outermost pixels."""
    steps = [_steps(side, _max_border(x)).max(1) for side in _sides_on_top(x)]
    ratios = [
        np.log1p(step) - np.log1p(side[:, 0].std(1).mean(-1))
        for step, side in zip(steps, _sides_on_top(x), strict=True)
    ]
    return np.asarray(np.maximum(ratios, 1.0))


def _sides_on_top(x: Floats) -> list[Floats]:
    """Flip or transpose images so that the top, bottom, left and right side in turn becomes the top."""
    return [x, x[:, ::-1], x.swapaxes(1, 2), x.swapaxes(1, 2)[:, ::-1]]


def _max_border(x: Floats) -> int:
    """Return the largest width of a border, a tenth of the shorter side."""
    return max(1, round(int(min(x.shape[1:3])) / 10))


def _steps(x: Floats, deepest: int) -> Floats:
    """Compute the median step behind each of the rows from the top down to `deepest`, (n, deepest)."""
    jumps = np.abs(np.diff(x[:, : deepest + 1], axis=1)).mean(-1)
    return np.asarray(np.median(jumps, axis=2))
