"""Shares of estimates that minimise the error of their mixture, by Stein's unbiased risk estimate (SURE).

X = x + noise of known variance v; E is an estimate in which each pixel has the weight c on the same pixel of X. For any
x, in expectation (Stein 1981)

    (E - x)^2 = (E - X)^2 - v + 2 c v.

So the error of a mixture B + a (E - B) with another such estimate B, or with X itself (c = 1), is least in a window at

    a = sum [(c_B - c_E) v - (B - X) (E - B)] / sum (E - B)^2,

clipped to [0, 1]. v is read^2 + shot X, which is unbiased. The dependence of a network's weights on X is neglected.

Where X = max(L, Y) is clipped at black, L, Stein's lemma holds for Y: in the sums, X is replaced by Y, of a clipped
pixel by its expected value L - s (h(t) - t), with s its deviation, t = (E - L) / s and h = phi(t) / Phi(-t); and the
sum of v is multiplied by the share of unclipped pixels, as the derivative is 0 elsewhere. At white the same holds,
mirrored, but the sum of v leaves clipped pixels out, where v may be many times that of the pixels beside them; and the
larger the share of clipped pixels in a window, the more of X is taken, as light may lie beyond the limit.

Of interpolated colours, the sums run over what was measured: X is biased elsewhere. A sample is part of the
interpolated light around it, so that c is the sum of E's weights on these pixels, each times the weight that
interpolation gave the sample there (cokriging.sample_weights). n counts estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from scipy.special import log_ndtr

from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.motion_check import Map, MotionCheck, Reference

BOX = 9  # side of a window, in pixels (of a mosaic's planes)
SOFTENING = 5  # side of the windows over which shares are averaged twice, in pixels
# deviations of its mean square by which the residual of a tested estimate may exceed that of the best
SLACK = 2.0
FAR_FROM_LIMIT = np.float32(7)  # deviations: no pixel is clipped so far from it


class LightEstimate(NamedTuple):
    """An estimate of the picture (C, H, W). own_weight: (H, W), of each pixel on the same pixel of X, or on its sample.
    uses_other_frames: whether other frames contribute, too. noise: what its weights leave, where it is measured."""

    light: Planes
    own_weight: Map
    uses_other_frames: bool = True
    noise: Planes | None = None


class Risk(Reference):
    """Risk of estimates, given a reference X."""

    @property
    def box(self) -> int:
        """Side of a window in pixels: where one colour a pixel counts, about twice that of a mosaic's planes."""
        return BOX if self.measured is None else 2 * BOX - 1

    def estimate_share(self, estimate: LightEstimate) -> Map:
        """Compute how much of an estimate that passed the tests is taken, the rest being X, (H, W) in [0, 1]; all of it
        where it is as near to X as expected. An estimate from X alone has no slack."""
        Y, step = self.unclip_reference(estimate.light), estimate.light - self.light
        v = self._variance(Y)
        better = self._sum_unclipped((1 - estimate.own_weight) * v) + self._sum((Y - self.light) * step)
        square, total = self._sum(np.square(step)), self._sum_unclipped(np.abs(v))
        values = self.box**2 * (len(v) if self.measured is None else 1)
        slack = estimate.uses_other_frames * SLACK * np.sqrt(2 / values) * total
        return np.clip(divide_or(better, np.maximum(better, square - slack), np.float32(1)), 0, 1)

    def mixture_shares(self, estimates: Sequence[LightEstimate]) -> npt.NDArray[np.float32]:
        """Compute the share of each estimate, the best last, (n, H, W); each is mixed into the mixture before it."""
        B, c = self.light, np.ones(self.light.shape[1:], np.float32)
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
        clipped = (self.light >= self.limits.high).astype(np.float32)
        return np.clip(uniform_filter(clipped, (0, BOX, BOX), mode="nearest"), 0, 1) if clipped.any() else clipped

    def excess_error(self, estimate: LightEstimate, other: LightEstimate) -> Map:
        """Estimate how far an estimate's mean square error exceeds another's, (H, W), in variances of the noise."""
        Y = self.unclip_reference(other.light)
        v = self._variance(Y)
        square = self._sum(np.square(estimate.light - Y) - np.square(other.light - Y))
        excess = square + 2 * self._sum_unclipped((estimate.own_weight - other.own_weight) * v)
        return divide_or(excess, self._sum_unclipped(np.abs(v)), np.float32(0))

    def unclip_reference(self, estimate: Planes) -> Planes:
        """Compute Y (C, H, W): the reference, where clipped its expected value before, given the estimate as light."""
        X, Y = self.light, self.light
        for limit, sign in ((self.limits.low, np.float32(1)), (self.limits.high, np.float32(-1))):
            clipped = sign * X <= sign * limit
            if not clipped.any():
                continue
            Y = Y.copy()
            for level, there, light, plane in zip(self.noise, clipped, estimate, Y, strict=True):
                E = np.clip(light[there], self.limits.low, self.limits.high)
                s = np.sqrt(np.maximum(np.float32(level.read**2) + np.float32(level.shot) * E, np.float32(1e-12)))
                t = np.minimum(sign * (E - np.float32(limit)) / s, FAR_FROM_LIMIT)
                plane[there] = np.float32(limit) - sign * s * truncation_mean(t)
        return Y

    def _sum_unclipped(self, values: Planes) -> Map:
        """Sum values (C, H, W) over windows: at white without clipped ones, at black times the others' share."""
        below, above = self.light < self.limits.high, self.light > self.limits.low
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


def apply_risk_shares(verdict: MotionCheck, risk: Risk, estimates: Sequence[LightEstimate | None]) -> MotionCheck:
    """Replace the shares of a check by those of least risk: where the best estimate is trusted, its share; where it is
    in doubt, a mixture of all that were computed; and around clipped pixels the reference."""
    computed = [estimate for k in reversed(verdict.estimate_numbers) if (estimate := estimates[k]) is not None]
    trusted, shares = verdict.shares[0], np.zeros_like(verdict.shares)
    shares[0] = trusted * risk.estimate_share(computed[-1])
    if trusted.min() < 1:
        shares[: len(computed)] += (1 - trusted) * risk.mixture_shares(computed)[::-1]
    shares[: len(computed)] = [soften_edges(share) for share in shares[: len(computed)]]
    kept = verdict.kept + (1 - verdict.kept) * risk.clipped_share
    return replace(verdict, shares=shares, kept=kept)


def soften_edges(share: Map) -> Map:
    """Average a map of shares (H, W) twice over small windows: as those it was estimated in are square and weigh all
    their pixels alike, it has steps at their borders."""
    for _ in range(2):
        share = uniform_filter(share, SOFTENING, mode="nearest")
    return share


def truncation_mean(t: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute phi(t) / Phi(-t) - t: by how many deviations a normal variable of mean t lies below 0, where it does."""
    return np.exp(-(t**2) / 2 - np.float32(math.log(2 * math.pi) / 2) - log_ndtr(-t)) - t


def window_sums(values: npt.NDArray[np.float32], box: int = BOX) -> Map:
    """Sum (C, H, W) over channels and windows, (H, W), the border repeated."""
    return uniform_filter(values.sum(0), box, mode="nearest") * np.float32(box**2)


def divide_or(top: Map, bottom: Map, else_: np.float32) -> Map:
    """Divide where the denominator is positive; `else_` elsewhere."""
    return np.where(bottom > 0, top / np.maximum(bottom, np.float32(1e-20)), else_)
