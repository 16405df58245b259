"""Weights of the frames of an exposure bracket, which are scaled to a common exposure.

Frame k, multiplied by its gain g_k, has at light x noise of the variance v_k(x) = g_k^2 read^2 + g_k shot x; the mean
of least variance weighs it by 1 / v_k. A pixel at white says only that light is above. It is left out, in its own
channel, with all that was read from it between pixels. If a pixel's own value decided, those that noise made dark would
remain, and the mean would be too dark just below white: so frames with less exposure must also say that its light lies
clear of its white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SMOOTHED = 9  # side of the window whose mean is taken as the light of a pixel
FORETOLD = 3  # side of the window whose mean, in less exposed frames, foretells whether a pixel is clipped
CLEAR_OF_WHITE = 3.0  # deviations of a frame's noise that this light must lie below its white
LONGER = 1.2  # times the exposure, from which a frame is longer than another
LEAST_TAP = 0.02  # weight of a clipped pixel in what is read between pixels, from which that is left out
EXPOSURE_MARGIN = SMOOTHED // 2 + FORETOLD // 2  # pixels around one that decide on its weights


@dataclass(frozen=True)
class ClippedFrames(FrameStore):
    """Masks (C, H, W), 1 where a frame of another store is clipped. whites: of each of its frames."""

    source: FrameStore
    whites: tuple[float, ...]

    def read_inner_window(self, frame: int, inside: Window) -> Planes:
        return (self.source.read_inner_window(frame, inside) >= np.float32(self.whites[frame])).astype(np.float32)


def weigh_by_exposure(
    frames: Frames,
    agreement: npt.NDArray[np.float32],
    noise: Sequence[Sequence[NoiseLevel]],
    whites: Sequence[float],
    clipped: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Multiply the agreement (N, H, W) of frames by 1 / v_k, relative to the greatest, for each channel, (N, C, H, W);
    the reference, frame 0, has all the weight where nothing else is left. noise: of each frame and channel. whites: the
    clipped value of each frame. clipped: (N, C, H, W), the weight of clipped pixels in each of their pixels."""
    usable: npt.NDArray[np.float32] = agreement[:, None] * (np.abs(clipped) < LEAST_TAP).astype(np.float32)
    shot = np.array([[level.shot for level in levels] for levels in noise], np.float32)[..., None, None]
    read = np.array([[level.read for level in levels] for levels in noise], np.float32)[..., None, None]
    rough: npt.NDArray[np.float32] = (1 / np.maximum(shot, np.float32(1e-9))).astype(np.float32)
    for k in np.argsort(whites)[::-1]:
        shorter = [i for i in range(len(frames)) if whites[i] > LONGER * whites[k]]
        if not shorter:
            continue
        light, known = _smooth_mean(frames[shorter], usable[shorter] * rough[shorter], FORETOLD)
        deviation = np.sqrt(np.square(read[k]) + shot[k] * np.maximum(light, 0))
        usable[k] *= ~known | (light + CLEAR_OF_WHITE * deviation < np.float32(whites[k]))
    light, _ = _smooth_mean(frames, usable * rough, SMOOTHED)
    variance = np.square(read) + shot * np.maximum(light, 0)
    weights: npt.NDArray[np.float32] = usable * variance.min(0) / np.maximum(variance, np.float32(1e-20))
    weights[0] = np.where(weights.sum(0) > 0, weights[0], 1)
    return weights


def _smooth_mean(frames: Frames, weights: npt.NDArray[np.float32], side: int) -> tuple[Planes, npt.NDArray[np.bool_]]:
    """Compute the weighted mean (C, H, W) of frames in windows, and whether any counts there."""
    total, light = (uniform_filter(one.sum(0), (0, side, side), mode="nearest") for one in (weights, weights * frames))
    return light / np.maximum(total, np.float32(1e-20)), total > np.float32(1e-12)
