"""Shares of estimates that minimise the error of their mixture, by Stein's unbiased risk estimate (SURE).

X = x + noise of known variance v; E is an estimate in which each pixel has the weight c on the same pixel of X. For any
x, in expectation (Stein 1981)

    (E - x)^2 = (E - X)^2 - v + 2 c v.

So the error of a mixture B + a (E - B) with another such estimate B, or with X itself (c = 1), is least in a window at

    a = sum [(c_B - c_E) v - (B - X) (E - B)] / sum (E - B)^2,

clipped to [0, 1]. Detail that E lost makes E - X large and a small; the mixture is worse than B only by the estimation
error of a window. v is read^2 + shot X, which is unbiased. The dependence of a network's weights on X is neglected.

Where X = max(L, Y) is clipped at black, L, Stein's lemma holds for Y: in the sums, X is replaced by Y, of a clipped
pixel by its expected value L - s (h(t) - t), with s its deviation, t = (E - L) / s and h = phi(t) / Phi(-t) the hazard
of the normal distribution; and the weight of X counts where X is not clipped, as its derivative is 0 there, so that the
sum of v is multiplied by the share of such pixels. h(t) - t falls from .8 at t = 0 to .3 at t = 3: what E says matters
little. At white the same holds, mirrored, but for two things. The sum of v leaves clipped pixels out: v there may be
many times that of the dark pixels beside them, where at black it is v of about the same light. And light may lie beyond
the limit, where nothing is known of it: the larger the share of clipped pixels in a window, the more of X is taken, of
each channel by its own share, since where one is at white the others have noise as elsewhere.

Of colours that were interpolated from a mosaic, the sums run over what was measured: X is biased elsewhere, and would
hold its own errors against an estimate that knows better. A sample is part of the interpolated light around it, too, so
that c is the sum of E's weights on these pixels, each times the weight that interpolation gave the sample there
(cokriging.sample_weights). The share holds for all colours of a pixel.

n counts estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.special import log_ndtr

from klarsicht.burst.data.cokriging import Mask
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.motion_check import ClippingLimits, Map, MotionCheck
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

BOX = 9  # side of a window, in pixels (of a mosaic's planes)
# deviations of its mean square by which the residual of a tested estimate may exceed that of the best
SLACK = 2.0
FAR_FROM_LIMIT = np.float32(7)  # deviations: no pixel is clipped so far from it


class LightEstimate(NamedTuple):
    """An estimate of the picture. light: (C, H, W). own_weight: (H, W), the weight of each pixel on the same pixel of
    X, or on its sample. uses_other_frames: whether other frames contribute, too."""

    light: Planes
    own_weight: Map
    uses_other_frames: bool = True


@dataclass(frozen=True, eq=False)
class Risk:
    """Risk of estimates, given a reference X (C, H, W). noise: one level for each channel. measured: (C, H, W), the
    values that count; None: all."""

    reference: Planes
    noise: Sequence[NoiseLevel]
    limits: ClippingLimits
    measured: Mask | None = None

    @property
    def box(self) -> int:
        """Side of a window in pixels: where one colour a pixel counts, about twice that of a mosaic's planes."""
        return BOX if self.measured is None else 2 * BOX - 1

    def estimate_share(self, estimate: LightEstimate) -> Map:
        """Compute how much of an estimate that passed the tests is taken, the rest being X, (H, W) in [0, 1]; all of it
        where it is as near to X as expected. An estimate from X alone has no slack."""
        Y, step = self.unclip_reference(estimate.light), estimate.light - self.reference
        v = self._variance(Y)
        better = self._sum_unclipped((1 - estimate.own_weight) * v) + self._sum((Y - self.reference) * step)
        square, total = self._sum(np.square(step)), self._sum_unclipped(np.abs(v))
        values = self.box**2 * (len(v) if self.measured is None else 1)
        slack = estimate.uses_other_frames * SLACK * np.sqrt(2 / values) * total
        taken: Map = np.clip(divide_or(better, np.maximum(better, square - slack), np.float32(1)), 0, 1)
        return taken

    def mixture_shares(self, estimates: Sequence[LightEstimate]) -> npt.NDArray[np.float32]:
        """Compute the share of each estimate, the best one last, (n, H, W). Each is mixed into the mixture of those
        before it."""
        B, c = self.reference, np.ones(self.reference.shape[1:], np.float32)
        shares = np.zeros((len(estimates), *c.shape), np.float32)
        for k, estimate in enumerate(estimates):
            Y, step = self.unclip_reference(estimate.light), estimate.light - B
            better = self._sum_unclipped((c - estimate.own_weight) * self._variance(Y)) - self._sum((B - Y) * step)
            a = np.clip(divide_or(better, self._sum(np.square(step)), np.float32(0)), 0, 1)
            B, c, shares = B + a * step, c + a * (estimate.own_weight - c), shares * (1 - a)
            shares[k] = a
        return shares

    @property
    def clipped_share(self) -> Planes:
        """Share of the surrounding pixels of the same channel that are clipped at white, (C, H, W) in [0, 1]."""
        clipped = (self.reference >= self.limits.high).astype(np.float32)
        return np.clip(uniform_filter(clipped, (0, BOX, BOX), mode="nearest"), 0, 1) if clipped.any() else clipped

    def excess_error(self, estimate: LightEstimate, other: LightEstimate) -> Map:
        """Estimate by how much the mean square error of an estimate exceeds that of another, (H, W), in variances of
        the noise."""
        Y = self.unclip_reference(other.light)
        v = self._variance(Y)
        square = self._sum(np.square(estimate.light - Y) - np.square(other.light - Y))
        excess = square + 2 * self._sum_unclipped((estimate.own_weight - other.own_weight) * v)
        return divide_or(excess, self._sum_unclipped(np.abs(v)), np.float32(0))

    def unclip_reference(self, estimate: Planes) -> Planes:
        """Compute Y (C, H, W): the reference, where it is clipped the expected value before clipping, given the
        estimate as light."""
        X, Y = self.reference, self.reference
        for limit, sign in ((self.limits.low, np.float32(1)), (self.limits.high, np.float32(-1))):
            clipped = sign * X <= sign * limit
            if not clipped.any():
                continue
            E = np.clip(estimate, self.limits.low, self.limits.high)
            s = np.sqrt(np.maximum(self._variance(E), np.float32(1e-12)))
            t: Planes = np.minimum(sign * (E - np.float32(limit)) / s, FAR_FROM_LIMIT)
            Y = np.where(clipped, np.float32(limit) - sign * s * truncation_mean(t), Y)
        return Y

    def _sum_unclipped(self, values: Planes) -> Map:
        """Sum values (C, H, W) over the pixels of each window that are not clipped: at white without those that are, at
        black of all times the share of those that are not."""
        below, above = self.reference < self.limits.high, self.reference > self.limits.low
        total = self._sum(values if below.all() else np.where(below, values, np.float32(0)))
        if above.all():
            return total
        counted, open_ = (self._sum(mask.astype(np.float32)) for mask in (below, below & above))
        return total * divide_or(open_, counted, np.float32(0))

    def _sum(self, values: Planes) -> Map:
        """Sum values (C, H, W) over the channels and windows, of a mosaic over what was measured."""
        counted = values if self.measured is None else np.where(self.measured, values, np.float32(0))
        return window_sums(counted, self.box)

    def _variance(self, light: Planes) -> Planes:
        planes = zip(self.noise, light, strict=True)
        return np.stack([np.float32(n.read**2) + np.float32(n.shot) * x for n, x in planes])


def apply_risk_shares(
    verdict: MotionCheck,
    reference: Planes,
    estimates: Sequence[LightEstimate | None],
    noise: Sequence[NoiseLevel],
    limits: ClippingLimits,
    measured: Mask | None = None,
) -> MotionCheck:
    """Replace the shares of a check by those of least risk: where the best estimate is trusted, its share; where it is
    in doubt, a mixture of all estimates that were computed; and around clipped pixels the reference."""
    risk = Risk(reference, noise, limits, measured)
    computed = [estimate for k in reversed(verdict.estimate_numbers) if (estimate := estimates[k]) is not None]
    trusted, shares = verdict.shares[0], np.zeros_like(verdict.shares)
    shares[0] = trusted * risk.estimate_share(computed[-1])
    if trusted.min() < 1:
        shares[: len(computed)] += (1 - trusted) * risk.mixture_shares(computed)[::-1]
    kept = verdict.kept + (1 - verdict.kept) * risk.clipped_share
    return replace(verdict, shares=shares, kept=kept)


def truncation_mean(t: Planes) -> Planes:
    """Compute phi(t) / Phi(-t) - t: by how many deviations a normal variable whose mean is t deviations above a
    threshold lies below it, in the mean of the cases where it does."""
    below: Planes = np.exp(-(t**2) / 2 - np.float32(math.log(2 * math.pi) / 2) - log_ndtr(-t)) - t
    return below


def window_sums(values: npt.NDArray[np.float32], box: int = BOX) -> Map:
    """Sum (C, H, W) over channels and windows, (H, W), the border repeated."""
    total: Map = uniform_filter(values.sum(0), box, mode="nearest") * np.float32(box**2)
    return total


def divide_or(top: Map, bottom: Map, else_: np.float32) -> Map:
    """Divide where the denominator is positive; `else_` elsewhere."""
    quotient: Map = np.where(bottom > 0, top / np.maximum(bottom, np.float32(1e-20)), else_)
    return quotient
