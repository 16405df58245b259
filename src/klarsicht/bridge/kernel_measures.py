"""Measures of a denoiser's kernels, one row of numbers a pixel.

A kernel-predicting network states the attribution of its picture itself: Y(p) = sum_i sum_q w_i(q) X_i(p + q), exactly,
with the weights taken as given. The mean frame of a network is resolved into the frames that it averages, each pixel by
its own trust. Shares, entropy and distances are of |w|, since weights may be negative.

The change that the other frames make is the output less what the same kernels make of copies of the reference,

    D(p) = sum_{i > 1} sum_q w_i(q) (X_i(p + q) - X_1(p + q)).

It needs no truth: where all frames show the same, D is noise, of variance sigma^2 sum_q (sum_{i > 1} w_i(q)^2 + (sum_{i
> 1} w_i(q))^2). An object that moved, and was copied, makes D large. Most of D is noise, since every pixel under the
kernels adds to it. So the copied light

    D'(p) = sum_{i > 1} sum_q w_i(q) m_i(p + q) (X_i(p + q) - X_1(p + q))

is the part of D from pixels that show something else, m_i = 1: there the mean difference of 3 by 3 pixels exceeds three
deviations of its noise and of a shift of the frame by 0.15 pixels. Beyond its own border an aligned frame repeats its
last pixel. Nothing was seen there, and m_i = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter, uniform_filter

from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.merging.filters import NetworkFilter, NetworkWeights
from klarsicht.burst.merging.kernel_maps import sample_kernels
from klarsicht.burst.network.unet import Network
from klarsicht.ground.arrays import Bools, Doubles
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Weights = npt.NDArray[np.float32]

POINTS_AT_ONCE = 512  # points whose weights are held at once: each has n K^2 of them
TINY = 1e-12
COMPARED_SIDE = 3  # pixels, of the window in which frames are compared
REPEATED = 1e-4  # of a pixel, by which one that repeats it may differ: aligned frames are blended from tiles
MOST_ALIKE = 3.0  # deviations by which the mean difference of frames that show the same may differ
SHIFT_LEFT = 0.15  # pixels by which aligned frames may still be shifted
LEAST_COPIED, LEAST_CHANGE = (
    0.25,
    3.0,
)  # copied light and change of a pixel that copies; see benchmarks/bridge/ghosts.py

MEASURES = (
    "reference share", "evenness", "entropy", "sum", "negative share", "reach", "elongation", "orientation", "offset",
    "disagreement", "change", "copied light",
)  # fmt: skip


def weigh_burst(network: Network, burst: Burst) -> NetworkWeights:
    """Predict the kernels of all pixels of a burst, in float32, for its aligned valid frames. Raises UsageError for a
    network that predicts no kernels, or frames that it does not take."""
    frames, valid = (torch.from_numpy(x)[None] for x in (burst.frames[burst.valid], burst.valid[burst.valid]))
    read, shot = (torch.tensor([level]) for level in (burst.noise.read, burst.noise.shot))
    alignment = align_by_colour_filter(frames, read, shot, valid, burst.colour_filter)
    aligned, agreement = alignment.apply(frames)[0], alignment.agreement()[0]
    levels = [burst.noise] * burst.frames.shape[1]
    return NetworkFilter(network).compute_weights(aligned.numpy(), levels, agreement.numpy())


@dataclass(frozen=True, eq=False)
class PixelAttribution:
    """Weights of G pixels, (G, n, K, K), the reference first, and the pixels that they multiply, (G, n, C, K, K), zero
    outside the picture. differs: (G, n, K, K), where these show something else than the reference."""

    weights: Weights
    pixels: Weights
    differs: Bools

    @property
    def output(self) -> Doubles:
        """The denoised pixels, sum_i sum_q w_i(q) X_i(q), (G, C)."""
        return np.asarray(np.einsum("gnij,gncij->gc", self.weights, self.pixels, dtype=np.float64))


def attribute_pixels(weights: NetworkWeights, y: Sequence[int], x: Sequence[int], differs: Bools) -> PixelAttribution:
    """Return the exact weights of the pixels (y[g], x[g]) on all frames, and the pixels that they multiply. differs:
    (n, H, W), of `find_differences`."""
    samples = sample_kernels(weights, y, x)
    n, radius = len(weights.agreement), weights.kernels.spec.radius
    own = samples.kernels[:, :n]
    if weights.network.preset.mean_frame:
        trust = weights.agreement / np.maximum(weights.agreement.sum(0), np.float32(1e-6))
        own = own + samples.kernels[:, -1:] * cut_windows(trust, y, x, radius)
    return PixelAttribution(own, *(cut_windows(one, y, x, radius) for one in (read_frames(weights), differs)))


def read_frames(weights: NetworkWeights) -> Weights:
    """Read the frames that the kernels multiply, (n, C, H, W), without the network's own mean frame."""
    return np.asarray(weights.kernels.frames[0, : len(weights.agreement)].float().cpu().numpy())


def find_differences(weights: NetworkWeights) -> Bools:
    """Mark the pixels of frames that show something else than the reference, (n, H, W), where the frames saw any."""
    frames = read_frames(weights)
    beyond = maximum_filter(find_repeated_borders(frames), (0, COMPARED_SIDE, COMPARED_SIDE))
    return np.asarray(compare_with_reference(frames, weights(), weights.noise) & ~beyond)


def find_repeated_borders(frames: Weights) -> Bools:
    """Mark the pixels of frames (n, C, H, W) that repeat one pixel up to a border, (n, H, W): an aligned frame saw
    nothing there."""
    repeats = np.zeros((len(frames), *frames.shape[2:]), bool)
    for axis in (2, 3):
        for way in (1, -1):
            lines = np.flip(np.moveaxis(frames, axis, -1), -1)[..., ::way]
            same: Bools = np.all(np.isclose(lines[..., 1:], lines[..., :-1], REPEATED, TINY), 1)
            run = np.logical_and.accumulate(np.concatenate([same[..., :1], same], -1), -1)
            repeats |= np.moveaxis(np.flip(run[..., ::way], -1), -1, axis - 1)
    return repeats


def compare_with_reference(frames: Weights, picture: Weights, noise: Sequence[NoiseLevel]) -> Bools:
    """Mark where the mean of frames (n, C, H, W) around a pixel differs from that of the first, (n, H, W): by more than
    MOST_ALIKE deviations of noise and of a shift by SHIFT_LEFT, in the root mean square over the channels. picture:
    the denoised one, (C, H, W), of which both follow."""
    window = (0, COMPARED_SIDE, COMPARED_SIDE)
    steepest = maximum_filter(sum(np.square(one) for one in np.gradient(picture, axis=(1, 2))), window)
    level = np.stack([level.variance(plane) for level, plane in zip(noise, picture, strict=True)])
    variance = np.maximum(2 * level / COMPARED_SIDE**2 + SHIFT_LEFT**2 * steepest, TINY)
    means = (uniform_filter(frame - frames[0], window, mode="nearest") for frame in frames)  # memory of one at once
    return np.stack([(np.square(mean) / variance).mean(0) > MOST_ALIKE**2 for mean in means])


def cut_windows(planes: npt.NDArray[Any], y: Sequence[int], x: Sequence[int], radius: int) -> npt.NDArray[Any]:
    """Cut windows of side K = 2 radius + 1 out of planes (..., H, W), (G, ..., K, K), with zeros outside."""
    wide = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(radius, radius)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * radius + 1,) * 2, (-2, -1))
    return np.ascontiguousarray(np.moveaxis(windows[..., list(y), list(x), :, :], -3, 0))


def measure_pixels(weights: NetworkWeights, y: Sequence[int], x: Sequence[int]) -> Doubles:
    """Measure the kernels of the pixels (y[g], x[g]), one row of MEASURES each, (G, m)."""
    parts = (slice(first, first + POINTS_AT_ONCE) for first in range(0, len(y), POINTS_AT_ONCE))
    differs = find_differences(weights)
    attributions = (attribute_pixels(weights, y[part], x[part], differs) for part in parts)
    return np.concatenate([measure_attribution(one, weights.noise) for one in attributions])


def mark_copies(measures: Doubles) -> Bools:
    """Mark the pixels that copy what moved, (...), by their measures (..., m): the copied light is LEAST_COPIED
    deviations of noise or more, and the change beyond that of noise."""
    light, change = (measures[..., MEASURES.index(name)] for name in ("copied light", "change"))
    return np.asarray((light > LEAST_COPIED) & (change > LEAST_CHANGE))


def measure_attribution(attribution: PixelAttribution, noise: Sequence[NoiseLevel]) -> Doubles:
    """Measure the weights of G pixels, (G, m), in the order of MEASURES.

    reference share: of |w|, 0 to 1. evenness: exp of the entropy of the frames' shares, over n: 1 where all count
    alike. entropy: of |w| over all pixels of all frames, in nats. sum: of w. negative share: of |w|. reach: root mean
    square distance of |w| from the pixel, in pixels. elongation, orientation: of the second moments of |w|, 0 round to
    1 a line; angle of the long axis against the rows, 0 to pi. offset: pixels between the centres of |w| of the
    reference and of the others. disagreement: root mean square difference of the other frames from the reference under
    |w|, over its deviation by noise. change: root mean square of D over the channels, over its deviation by noise.
    copied light: root mean square of D' over the channels, over the deviation of the noise of a pixel.
    """
    w, X = attribution.weights.astype(np.float64), attribution.pixels.astype(np.float64)
    size = np.abs(w)
    total = np.maximum(size.sum((1, 2, 3)), TINY)
    shares = size.sum((2, 3)) / total[:, None]
    place = size.sum(1) / total[:, None, None]
    reach, elongation, orientation = _measure_shape(place)
    variance = _variance(noise, attribution.output)
    disagreement, change = _compare_frames(w, X, place, variance)
    values = {
        "reference share": shares[:, 0],
        "evenness": np.exp(_entropy(shares)) / shares.shape[1],
        "entropy": _entropy((size / total[:, None, None, None]).reshape(len(size), -1)),
        "sum": w.sum((1, 2, 3)),
        "negative share": (size - w).sum((1, 2, 3)) / 2 / total,
        "reach": reach,
        "elongation": elongation,
        "orientation": orientation,
        "offset": _offset(size),
        "disagreement": disagreement,
        "change": change,
        "copied light": _measure_copied(w, X, attribution.differs, variance),
    }
    return np.stack([values[name] for name in MEASURES], 1)


def _variance(noise: Sequence[NoiseLevel], light: Doubles) -> Doubles:
    """Compute the variance of the noise at light (G, C), one level a channel."""
    columns = [level.variance(light[:, c]) for c, level in enumerate(noise)]
    return np.asarray(np.maximum(np.stack(columns, 1), TINY))


def _entropy(shares: Doubles) -> Doubles:
    """Compute -sum s log s of rows (G, k), in nats."""
    return np.asarray(-np.sum(shares * np.log(np.maximum(shares, 1e-300)), 1))


def _measure_shape(place: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Compute reach, elongation and orientation of distributions (G, K, K)."""
    r = np.arange(place.shape[-1]) - place.shape[-1] // 2
    down, across = place.sum(2), place.sum(1)
    my, mx, syy, sxx = down @ r, across @ r, down @ r**2, across @ r**2
    yy, xx, xy = syy - my**2, sxx - mx**2, np.einsum("gij,i,j->g", place, r, r) - my * mx
    elongation = np.hypot(yy - xx, 2 * xy) / np.maximum(yy + xx, TINY)
    return np.sqrt(syy + sxx), elongation, np.arctan2(2 * xy, xx - yy) / 2 % np.pi


def _offset(size: Doubles) -> Doubles:
    """Compute the distance (G,) of the centre of the others' |w| from that of the reference's; 0 where either has
    none."""
    r = np.arange(size.shape[-1]) - size.shape[-1] // 2
    parts = size[:, 0], size[:, 1:].sum(1)
    masses = [part.sum((1, 2)) for part in parts]
    centres = [
        np.stack([part.sum(2) @ r, part.sum(1) @ r], 1) / np.maximum(mass, TINY)[:, None]
        for part, mass in zip(parts, masses, strict=True)
    ]
    both = np.minimum(*masses) > 1e-6 * np.add(*masses)
    return np.where(both, np.linalg.norm(centres[1] - centres[0], axis=1), 0)


def _measure_copied(w: Doubles, X: Doubles, differs: Bools, variance: Doubles) -> Doubles:
    """Compute the root mean square of D' over the channels, over the deviation of noise, (G,)."""
    D = np.einsum("gnij,gncij->gc", w * differs, X - X[:, :1])
    return np.asarray(np.sqrt((np.square(D) / variance).mean(1)))


def _compare_frames(w: Doubles, X: Doubles, place: Doubles, variance: Doubles) -> tuple[Doubles, Doubles]:
    """Compute disagreement and change, each (G,); 0 without other frames."""
    if w.shape[1] == 1:
        return np.zeros(len(w)), np.zeros(len(w))
    others, apart = w[:, 1:], X[:, 1:] - X[:, :1]
    patch = np.einsum("gij,gncij->gnc", place, apart)
    patch_variance = 2 * np.square(place).sum((1, 2))[:, None, None] * variance[:, None]
    D = np.einsum("gnij,gncij->gc", others, apart)
    factor = np.square(others).sum((1, 2, 3)) + np.square(others.sum(1)).sum((1, 2))
    change = np.square(D) / np.maximum(factor[:, None] * variance, TINY**2)
    return np.sqrt((np.square(patch) / patch_variance).mean((1, 2))), np.sqrt(change.mean(1))
