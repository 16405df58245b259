"""Twice the resolution from a raw burst: the enlarged result, corrected by samples of shifted frames.

The enlarged result says what each sample should be. By how much it differs, relative to its light, is laid on the
finer grid, weighted by the inverse of the noise's variance. The mean difference of each colour in a window is taken
off, as samples of two colours would leave a pattern of dots where the result's colour is wrong. Detail is mostly grey:
the mean m of what is left is that of all colours. It is shrunk by what noise alone leaves of its energy in a window
(Wiener). With sums A of weighted differences and a of weights, each colour takes the multiple of m that fits its own
samples best, sum A m / sum a m^2.

The correction counts only where one half of the frames confirms the other: noise alone gives A B / sqrt(a b), of sums A
and B of both, the mean 0 and the deviation NOISE_KEPT. Windows in which its mean does not exceed CONFIRMED deviations
stay enlarged. So does what moves: samples around which a frame shows something else are left out. H, W count fine
pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.resolution.predicted_samples import PREDICTION_REACH, FrameSamples, Prediction
from klarsicht.burst.resolution.sample_sums import DETAIL_WIDTH, REACH, add_samples
from klarsicht.burst.resolution.sampled_burst import SampledBurst

CORE_SIDE = 960  # fine pixels of a tile, without what it depends on
OUTLIER = 3.0  # deviations of the noise, beyond which a difference counts less
MOST_APART = {7: 1.4, 15: 1.2}
"""Mean square of differences in windows around a sample, in variances of noise and scene, above which it is left out,
by their side in samples: small windows find what is far off, large ones what differs little."""
NEARLY_WHITE = 3.0  # deviations of the noise below white, from which a predicted sample does not count
NOISE_KEPT = 0.5  # variance of a weighted mean over the inverse of its weights: those of a Gaussian, squared
SHRINK_BOX = 15  # side of the window, in fine pixels, over which a correction is shrunk
CONFIRM_BOX = 41  # side of the window, in fine pixels, in which the halves are compared
CONFIRMED = 3.0  # deviations of the noise by which they must agree
MOST_COLOURED = 2.0  # multiple of the correction of all colours that one may take
CORRELATED = 2 * np.pi * DETAIL_WIDTH**2  # fine pixels over which the noise of that product is correlated
CONFIRM_FADE = 15  # fine pixels over which a correction fades in
DARKEST_DETAIL = 0.02  # light of a grey surface, down to which detail goes with it
VARIANCE_FLOOR = 1e-12
CORE_MARGIN = 72  # fine pixels around a tile that its correction depends on
assert (
    CONFIRM_FADE // 2 + CONFIRM_BOX // 2 + SHRINK_BOX // 2 + REACH + 2 * (max(MOST_APART) // 2) + 2 + PREDICTION_REACH
    <= CORE_MARGIN
)

Values = npt.NDArray[np.float32]


class Corrected(NamedTuple):
    """A corrected window: light (3, h, w), the variance of noise that the correction adds, and the share (h, w) of the
    correction that was taken."""

    light: Planes
    added_variance: Planes
    share: Values


@dataclass(frozen=True, eq=False)
class DetailCorrector:
    """Corrects windows of an enlarged result. light: (1, C, H, W), R, G, B first. gain: the factor by which it is as
    bright as the frames."""

    light: FrameStore
    burst: SampledBurst
    gain: float

    def correct(self, core: Window) -> Corrected:
        """Correct a window."""
        around = core.grow(CORE_MARGIN)
        start = self.light.read_window(0, around)[:3] * np.float32(self.gain)
        prediction = Prediction.of(start, around)
        halves = np.zeros((2, 3, 2, *around.size), np.float32)
        for k in range(len(self.burst.frames)):
            samples = prediction.read_samples(self.burst, k)
            if samples is not None:
                colours = self.burst.colours_in(samples.window)
                add_samples(samples.places, colours, *self.weigh(samples, k), halves[k % 2])
        remove_colour_offsets(halves)
        grey = halves.sum(1)
        mean, variance = average(grey)
        share = confirmed_share(grey, mean, variance)
        multiple = share * colour_multiples(halves.sum(0), mean)
        inside = core.slices_in(around)
        scale = np.maximum(start, self.darkest[:, None, None])
        picture, added_variance = start + multiple * mean * scale, np.square(multiple * scale) * variance
        gain = np.float32(self.gain)
        return Corrected(picture[:, *inside] / gain, added_variance[:, *inside] / gain**2, share[inside])

    @property
    def darkest(self) -> Values:
        """Light (3,) down to which detail goes with it."""
        return np.float32(DARKEST_DETAIL * self.gain) * self.burst.neutral

    def weigh(self, samples: FrameSamples, k: int) -> tuple[Values, Values]:
        """Compute the differences (h, w) of the k-th frame's samples from their predictions, relative to the light, and
        their weights: the inverse of the variance of that, less for outliers, and 0 for those of something else."""
        colours, noise = self.burst.colours_in(samples.window), self.burst.frame_noise(k).astype(np.float32)
        predicted = np.maximum(samples.predictions, 0)
        variance: Values = noise[colours, 0] + noise[colours, 1] * predicted + np.float32(VARIANCE_FLOOR)
        off = np.where(samples.inside, samples.light - samples.predictions, np.float32(0))
        white = np.float32(self.burst.gains[k] * (1 - 1e-6))
        counts = samples.inside & (samples.light < white)
        counts &= samples.predictions < white - np.float32(NEARLY_WHITE) * np.sqrt(variance)
        if k:
            square = np.square(off) / (variance + samples.spreads)
            for side, most in MOST_APART.items():
                counts &= uniform_filter(square, side, mode="nearest") < most
        scale = np.maximum(samples.predictions, self.darkest[colours])
        robust = np.minimum(
            1, np.float32(OUTLIER**2) * variance / np.maximum(np.square(off), np.float32(VARIANCE_FLOOR))
        )
        weights = counts * robust * np.square(scale) / variance
        return (off / scale).astype(np.float32), weights.astype(np.float32)


def remove_colour_offsets(halves: npt.NDArray[np.float32]) -> None:
    """Take from the sums of weighted differences (2, 3, 2, H, W), in place, the mean difference of their colour in a
    window."""
    sums = halves.sum(0)
    total, weight = (uniform_filter(sums[:, k], (0, SHRINK_BOX, SHRINK_BOX), mode="nearest") for k in (0, 1))
    halves[:, :, 0] -= halves[:, :, 1] * (total / np.maximum(weight, np.float32(1e-9)))


def average(halves: npt.NDArray[np.float32]) -> tuple[Values, Values]:
    """Compute the mean (H, W) of the differences of both halves (2, 2, H, W), sums and weights, and the variance that
    noise leaves in it."""
    total, weight = halves.sum(0)
    weight = np.maximum(weight, np.float32(1e-9))
    return total / weight, np.float32(NOISE_KEPT) / weight


def confirmed_share(halves: npt.NDArray[np.float32], mean: Values, variance: Values) -> Values:
    """Compute how much of the mean differences is taken, (H, W) in [0, 1]: what noise does not explain of their energy,
    where the halves confirm each other."""
    energy, noise = (uniform_filter(x, SHRINK_BOX, mode="nearest") for x in (np.square(mean), variance))
    share = np.clip(1 - noise / np.maximum(energy, np.float32(1e-20)), 0, 1)
    (one, a), (other, b) = halves
    alike = one * other / np.sqrt(np.maximum(a * b, np.float32(1e-20)))
    chance = CONFIRMED * NOISE_KEPT * np.sqrt(CORRELATED) / CONFIRM_BOX
    confirmed = uniform_filter(alike, CONFIRM_BOX, mode="nearest") > chance
    return share * uniform_filter(confirmed.astype(np.float32), CONFIRM_FADE, mode="nearest")


def colour_multiples(sums: npt.NDArray[np.float32], mean: Values) -> Values:
    """Compute the multiple (3, H, W) of the mean differences that fits those of each colour best around a pixel, from
    its sums (3, 2, H, W), in [0, MOST_COLOURED]."""
    product, square = sums[:, 0] * mean, sums[:, 1] * np.square(mean)
    top, bottom = (uniform_filter(x, (0, SHRINK_BOX, SHRINK_BOX), mode="nearest") for x in (product, square))
    return np.clip(top / np.maximum(bottom, np.float32(1e-20)), 0, MOST_COLOURED)


def cut_tiles(size: tuple[int, int]) -> Iterator[Window]:
    """Yield tiles of a picture of that size."""
    for y in range(0, size[0], CORE_SIDE):
        for x in range(0, size[1], CORE_SIDE):
            yield Window(y, y + CORE_SIDE, x, x + CORE_SIDE).clip_to(size)
