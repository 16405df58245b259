"""Weights of the frames of an exposure bracket, which are scaled to a common exposure.

Frame k, multiplied by its gain g_k, has at light x noise of the variance v_k(x) = g_k^2 read^2 + g_k shot x; the mean
of least variance weighs it by 1 / v_k. A pixel at white says only that light is above, and is left out, with the pixels
around it: else noise would decide, and the mean would be too dark just below white.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, uniform_filter

from klarsicht.burst.data.burst import Frames
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SMOOTHED = 9  # side of the window whose mean is taken as the light of a pixel
BESIDE_WHITE = 5  # side of the window around a clipped pixel that is left out, with what reading between pixels spreads
EXPOSURE_MARGIN = SMOOTHED // 2 + BESIDE_WHITE // 2  # pixels around one that decide on its weights


def weigh_by_exposure(
    frames: Frames,
    agreement: npt.NDArray[np.float32],
    noise: Sequence[Sequence[NoiseLevel]],
    whites: Sequence[float],
) -> npt.NDArray[np.float32]:
    """Multiply the agreement (N, H, W) of frames by 1 / v_k, relative to the greatest; the reference, frame 0, has all
    the weight where nothing else is left. noise: of each frame and channel. whites: the clipped value of each frame."""
    whole = np.array(whites, np.float32)[:, None, None, None]
    clipped = maximum_filter((frames >= whole).any(1), (1, BESIDE_WHITE, BESIDE_WHITE), mode="nearest")
    valid = agreement * ~clipped
    shot = np.array([np.mean([level.shot for level in levels]) for levels in noise])
    rough = valid / np.maximum(shot, 1e-9).astype(np.float32)[:, None, None]
    total = uniform_filter(rough.sum(0), SMOOTHED, mode="nearest")
    light = uniform_filter(np.einsum("nhw,nchw->chw", rough, frames), (0, SMOOTHED, SMOOTHED), mode="nearest")
    light /= np.maximum(total, np.float32(1e-20))
    variance = np.stack(
        [np.mean([n.variance(x) for n, x in zip(levels, light, strict=True)], 0, np.float32) for levels in noise]
    )
    weights: npt.NDArray[np.float32] = valid * variance.min(0) / np.maximum(variance, np.float32(1e-20))
    weights[0] = np.where(weights.sum(0) > 0, weights[0], 1)
    return weights
