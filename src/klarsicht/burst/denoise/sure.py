"""How much of each estimate a picture takes: as much as makes its error least, by Stein's unbiased estimate of risk.

X = x + noise of known variance v; E an estimate that takes the part c of each pixel from the same pixel of X. Whatever
x is, in expectation (Stein 1981)

    (E - x)^2 = (E - X)^2 - v + 2 c v.

So the error of a mixture B + a (E - B) with another such estimate B, or with X itself (c = 1), is least in a window at

    a = sum [(c_B - c_E) v - (B - X) (E - B)] / sum (E - B)^2,

cut to [0, 1]. Detail that E lost makes E - X large and a small; the mixture is worse than B only by what a window
misjudges. v is read^2 + shot X, which is right in the mean. That the weights of a network depend on X as well is left
out. Where X is clipped its noise is cut off: such pixels say nothing, and the more of a window they are, the more of X
itself is taken.

Axes: K estimates, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.denoise import motion_check
from klarsicht.burst.denoise.motion_check import Limits, Map, MotionCheck
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIDE = 9  # of a window, in pixels (of a mosaic's planes)
SLACK = (
    2.0  # deviations of its mean square by which a residual that passed the tests may be louder than that of the best
)


class LightEstimate(NamedTuple):
    """light: (C, H, W). own: (H, W), the part of each pixel that is the same pixel of X. others: whether other frames
    have a part in it, too."""

    light: Planes
    own: Map
    others: bool = True


@dataclass(frozen=True, eq=False)
class Risk:
    """What a reference X (C, H, W) says of estimates. noise: one level a channel."""

    reference: Planes
    noise: Sequence[NoiseLevel]
    limits: Limits

    def alone(self, estimate: LightEstimate) -> Map:
        """(H, W) in [0, 1]: how much of an estimate that passed the tests is taken, beside X; all of it where it is as
        near to X as it should be. What nothing but X itself speaks for has no slack."""
        counted, v = self._counted(estimate), self._variance
        better = sums(counted * (1 - estimate.own) * v)
        square = sums(counted * np.square(estimate.light - self.reference))
        slack = estimate.others * SLACK * np.sqrt(2 / (len(v) * SIDE**2)) * sums(counted * np.abs(v))
        taken: Map = np.clip(over(better, np.maximum(better, square - slack), np.float32(1)), 0, 1)
        return taken

    def mixture(self, estimates: Sequence[LightEstimate]) -> npt.NDArray[np.float32]:
        """(K, H, W): how much of each; the best of them last. Each is mixed into what those before it gave."""
        B, c = self.reference, np.ones(self.reference.shape[1:], np.float32)
        shares = np.zeros((len(estimates), *c.shape), np.float32)
        for k, estimate in enumerate(estimates):
            step = estimate.light - B
            better = self._counted(estimate) * ((c - estimate.own) * self._variance - (B - self.reference) * step)
            a = np.clip(over(sums(better), sums(np.square(step)), np.float32(0)), 0, 1)
            B, c, shares = B + a * step, c + a * (estimate.own - c), shares * (1 - a)
            shares[k] = a
        return shares

    @property
    def unclipped(self) -> Map:
        """(H, W) in [0, 1]: the share of the pixels around that are not clipped."""
        clipped = sums((self.reference >= self.limits.high).astype(np.float32)) / (SIDE**2 * len(self.reference))
        share: Map = np.clip(1 - clipped, 0, 1)
        return share

    @property
    def _variance(self) -> Planes:
        planes = zip(self.noise, self.reference, strict=True)
        return np.stack([np.float32(n.read**2) + np.float32(n.shot) * X for n, X in planes])

    def _counted(self, estimate: LightEstimate) -> Planes:
        _, _, counted = motion_check.residual(self.reference, estimate.light, self.noise, self.limits)
        numbers: Planes = counted.numpy().astype(np.float32)
        return numbers


def weighed(
    verdict: MotionCheck,
    reference: Planes,
    estimates: Sequence[LightEstimate | None],
    noise: Sequence[NoiseLevel],
    limits: Limits,
) -> MotionCheck:
    """The verdict with shares by risk: where the best estimate is trusted, as much of it as it is good for; where it is
    in doubt, a mixture of all that were made."""
    risk = Risk(reference, noise, limits)
    made = [estimate for k in reversed(verdict.made) if (estimate := estimates[k]) is not None]
    trusted, shares = verdict.shares[0], np.zeros_like(verdict.shares)
    shares[0] = trusted * risk.alone(made[-1])
    if trusted.min() < 1:
        shares[: len(made)] += (1 - trusted) * risk.mixture(made)[::-1]
    return replace(verdict, shares=shares * risk.unclipped)


def sums(values: npt.NDArray[np.float32]) -> Map:
    """(H, W) of (C, H, W): over channels and windows, the border repeated."""
    total: Map = uniform_filter(values.sum(0), SIDE, mode="nearest") * np.float32(SIDE**2)
    return total


def over(top: Map, bottom: Map, else_: np.float32) -> Map:
    quotient: Map = np.where(bottom > 0, top / np.maximum(bottom, np.float32(1e-20)), else_)
    return quotient
