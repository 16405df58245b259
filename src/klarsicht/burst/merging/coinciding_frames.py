"""Mixture of a filtered burst with the mean of frames that coincide, as on a tripod, by Stein's estimate.

Where frames are read without interpolation, their mean M = sum_i s_i X_i is white noise of variance v_M = v sum_i s_i^2
around the light x. In a filtered burst E the pixel of frame i itself has the weight c_i, so that Cov[E, M] = v sum_i
s_i c_i =: v_EM, and in expectation

    (E - x)^2 = (E - M)^2 - v_M + 2 v_EM.

The error of M + a (E - M) is least in a window at a = sum (v_M - v_EM) / sum (E - M)^2, as in `sure`, where a single
frame takes the place of M. A share is lowered only where E - M is louder than expected by SLACK deviations of its mean
square. Where M fails the tests of `motion_check`, E is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.cokriging import Pattern
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.filters import Agreement, MeanWeights, PixelWeights
from klarsicht.burst.merging.motion_check import ClippingLimits, Map, Reference, fade_mask, find_failing_pixels
from klarsicht.burst.merging.sure import BOX, SLACK, divide_or, window_sums
from klarsicht.burst.network.unet import Part
from klarsicht.burst.noise import clipped_noise
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel


@dataclass(frozen=True, eq=False)
class MixedWeights:
    """Weights of share (h, w) times a filter's, plus the rest times those of a mean."""

    filter_weights: PixelWeights
    mean: MeanWeights
    share: Map

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> npt.NDArray[np.float32]:
        own, others = (weights.centre_weights(frames, pattern) for weights in (self.filter_weights, self.mean))
        return others + self.share * (own - others)

    def crop(self, part: Part) -> MixedWeights:
        return MixedWeights(self.filter_weights.crop(part), self.mean.crop(part), self.share[part])

    def __call__(self, frames: Frames | None = None) -> Planes:
        M = self.mean(frames)
        return M + self.share * (self.filter_weights(frames) - M)


def mix_with_mean(
    filtered: PixelWeights,
    frames: Frames,
    coinciding: Agreement,
    noise: Sequence[NoiseLevel],
    limits: ClippingLimits,
) -> MixedWeights:
    """Mix the weights of a filter with those of the mean. frames: (N, C, h, w), aligned, the reference first.
    coinciding: (N, h, w) in [0, 1], how far each frame agrees with the reference and is read without interpolation.
    noise: of the reference."""
    shown = coinciding.copy()
    shown[0] = 1
    mean = MeanWeights(shown / shown.sum(0), frames)
    M, E = mean(), filtered()
    centres = filtered.centre_weights(range(len(frames)))
    own, joint = np.square(mean.share).sum(0), (mean.share * centres).sum(0)
    v = mean_variance(M, noise, limits)
    better, square = window_sums((own - joint) * v), window_sums(np.square(E - M))
    slack = SLACK * np.sqrt(2 / (len(M) * BOX**2)) * window_sums(own * np.abs(v))
    share = np.clip(divide_or(better, np.maximum(better, square - slack), np.float32(1)), 0, 1)
    sound = fade_mask(find_failing_pixels(Reference(frames[0], noise, limits), M))
    return MixedWeights(filtered, mean, 1 - sound * (1 - share))


def mean_variance(M: Planes, noise: Sequence[NoiseLevel], limits: ClippingLimits) -> Planes:
    """Compute the variance (C, h, w) of a frame's noise at a mean; of frames clipped at black, what was left."""
    variances = []
    for level, plane in zip(noise, M, strict=True):
        if np.isneginf(limits.low):
            variances.append(np.float32(level.read**2) + np.float32(level.shot) * plane)
            continue
        before = clipped_noise.unclip(plane.ravel() - limits.low, level.variance)
        variances.append((level.variance(before.mean) * before.variance_left).reshape(plane.shape).astype(np.float32))
    return np.stack(variances)
