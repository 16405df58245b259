"""Test of estimates against the reference: one is kept where its difference from the reference looks like the noise, so
that the result is never worse than the reference.

If an estimate E is right, X_1 - E has hardly more than the variance of the noise of X_1. That is tested in overlapping
windows of three sizes, by the mean square of the normalised residual (chi-squared) and by its mean (normal), each at a
stated rate of false alarms, and near white by the number of clipped pixels. Where a window fails, the next best
estimate is tried, and where all fail, the reference is kept. `sure` decides how much is taken of the estimates that
were tried. Of interpolated colours only those measured at a pixel count, whose noise is white. Windows begin at
multiples of their step, so that a tile with its margin gives the same result as the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import minimum_filter, uniform_filter
from scipy.stats import norm
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from klarsicht.burst.data.cokriging import Mask
from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Map = npt.NDArray[np.float32]  # H W

WINDOW_SIDES = (8, 16, 32)  # sides, in pixels (of a mosaic's planes)
FALSE_ALARMS = 1e-6  # probability for a window and test, where the estimate is right
LEAVE = (
    1.15  # variance of X_1 - E over that of X_1's noise: estimates may use little of X_1 and have noise of their own
)
FADE = 8  # pixels over which a fallback fades in
CHECK_MARGIN = max(WINDOW_SIDES) + FADE + 3  # pixels around a tile that influence its result
NEAR = 3  # deviations of noise from the clipping limit
AT_LIMIT = 0.1  # deviations: an estimate so near to the clipping limit is at the limit
CLIPPED_MEAN_TOLERANCE = 0.5  # deviations that the mean of clipped frames may lack; at the limit it lacks .4
FAR_FROM_WHITE = 7.0  # deviations below white: no pixel is clipped there
SURROUNDED = 5  # side of the window in which saturated pixels are counted


@dataclass(frozen=True)
class ClippingLimits:
    """Range of values that a frame can represent; beyond it, values are clipped."""

    low: float = -np.inf
    high: float = np.inf


NO_LIMITS = ClippingLimits()


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference X (C, H, W) that estimates are tested against. measured: (C, H, W), the values that count."""

    light: Planes
    noise: Sequence[NoiseLevel]
    limits: ClippingLimits = NO_LIMITS
    measured: Mask | None = None


def find_failing_pixels(reference: Reference, estimate: Planes) -> npt.NDArray[np.bool_]:
    """Find the pixels (H, W) for which any window around them fails."""
    r, variance, counted = compute_residual(reference, estimate)
    limits, (H, W) = reference.limits, reference.light.shape[1:]
    fails = torch.zeros(H, W, dtype=torch.bool)
    for side in WINDOW_SIDES:
        windows = find_failing_windows(r, variance, counted, side)
        if np.isfinite(limits.high):
            seen, said = torch.from_numpy(reference.light), torch.from_numpy(estimate)
            windows |= find_clipping_mismatch(seen, said, variance, limits.high, side, reference.measured)
        fails |= expand_windows(windows, side, (H, W))
    return fails.numpy()


def compute_residual(reference: Reference, estimate: Planes) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the residual, the modelled variance of its noise, and a mask of the pixels that are used, each (C, H, W):
    where both pictures are near a clipping limit, the noise is truncated."""
    limits, counts = reference.limits, reference.measured
    read, shot = (torch.tensor([getattr(n, k) for n in reference.noise])[:, None, None] for k in ("read", "shot"))
    X, E = torch.from_numpy(reference.light), torch.from_numpy(estimate)
    variance = (read**2 + shot * E.clamp(min=0)).clamp(min=1e-12)
    near, far = NEAR * variance.sqrt(), 2 * NEAR * variance.sqrt()
    beyond = (limits.high - near <= E) & (limits.high - far <= X) | (limits.low + near >= E) & (limits.low + far >= X)
    return X - E, variance, ~beyond if counts is None else ~beyond & torch.from_numpy(counts)


def find_failing_windows(r: Tensor, variance: Tensor, counted: Tensor, side: int) -> Tensor:
    """Find the windows (Y, X), a half side apart, whose residual is not noise."""
    n = _window_sums(counted.float(), side)
    energy = _window_sums(torch.where(counted, r.square() / variance, 0.0), side).sum(0)
    total = n.sum(0)
    loud = energy > LEAVE * total * chi_squared_bound(total)
    z = (
        _window_sums(torch.where(counted, r, 0.0), side)
        / _window_sums(torch.where(counted, variance, 0.0), side).clamp(min=1e-20).sqrt()
    )
    shifted = (z.abs() > norm.isf(FALSE_ALARMS / 2 / len(r))).any(0)
    return loud | shifted


def find_clipping_mismatch(
    X: Tensor, E: Tensor, variance: Tensor, high: float, side: int, measured: Mask | None = None
) -> Tensor:
    """Find the windows (Y, X), a half side apart, in which the number of clipped pixels differs from the expected
    number given the estimate, with a tolerance of CLIPPED_MEAN_TOLERANCE deviations."""
    below = (high - E) / variance.sqrt()
    countable, clipped = below > AT_LIMIT, (high <= X).float()
    countable = countable if measured is None else countable & torch.from_numpy(measured)
    if float(below.min()) > FAR_FROM_WHITE and not clipped.any():
        return torch.zeros(1, dtype=torch.bool)
    fails = torch.zeros(1, dtype=torch.bool)
    for sign in (1, -1):
        p = torch.special.ndtr(sign * CLIPPED_MEAN_TOLERANCE - below)
        more, spread_of = (
            _window_sums(torch.where(countable, x, 0.0), side) for x in (sign * (clipped - p), p * (1 - p))
        )
        fails = fails | (more > bernstein_bound(spread_of, FALSE_ALARMS / (2 * len(X)))).any(0)
    return fails


def bernstein_bound(variance: Tensor, rate: float) -> Tensor:
    """Bound the excess of a sum of independent trials of that total variance, at a rate of exceedance (Bernstein)."""
    L = float(-np.log(rate))
    return L / 3 + (L**2 / 9 + 2 * L * variance).sqrt()


def chi_squared_bound(n: Tensor) -> Tensor:
    """Bound the mean of n squared normal variables at the probability of a false alarm (Wilson and Hilferty 1931)."""
    c = torch.full_like(n, 2 / 9) / n.clamp(min=1)
    return (1 - c + float(norm.isf(FALSE_ALARMS)) * c.sqrt()) ** 3


def _window_sums(x: Tensor, side: int) -> Tensor:
    """Sum over windows, (C, Y, X), of which the last may extend beyond the picture."""
    step = side // 2
    below, right = (-(-length // step) * step - length + step for length in x.shape[1:])
    quarters = avg_pool2d(pad(x, (0, right, 0, below)), step)
    return avg_pool2d(quarters, 2, 1) * side**2


def expand_windows(fails: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Mark the pixels (H, W) that lie in a failing window."""
    step = side // 2
    cells = pad(fails, (1, 1, 1, 1))
    covered = cells[1:, 1:] | cells[:-1, 1:] | cells[1:, :-1] | cells[:-1, :-1]
    return covered.repeat_interleave(step, 0).repeat_interleave(step, 1)[: size[0], : size[1]]


def fade_mask(doubt: npt.NDArray[np.bool_]) -> Map:
    """Compute a mask (H, W) that is 0 where there is doubt and rises to 1 over FADE pixels."""
    sure = minimum_filter(1 - doubt.astype(np.float32), FADE + 1, mode="nearest")
    return np.clip(uniform_filter(sure, FADE + 1, mode="nearest"), 0, 1)


def saturation_mask(reference: Planes, limits: ClippingLimits) -> Map:
    """Compute a mask (C, H, W) that is 1 where a pixel and most around it are clipped: the reference is kept."""
    clipped: Map = (reference >= limits.high).astype(np.float32)
    if not clipped.any():
        return clipped
    share = uniform_filter(clipped, (0, SURROUNDED, SURROUNDED), mode="nearest")
    return clipped * np.clip(2 * share - 1, 0, 1)


@dataclass(frozen=True, eq=False)
class MotionCheck:
    """Result of the test. shares: (n, H, W), of each of n estimates in the mixture; the rest is the reference. kept:
    (C, H, W) in [0, 1], how much of a channel is the reference, because it is clipped. estimate_numbers: those that
    were computed."""

    shares: npt.NDArray[np.float32]
    kept: Planes
    estimate_numbers: tuple[int, ...]

    @property
    def shares_of_picture(self) -> npt.NDArray[np.float32]:
        """Share of each estimate in the picture, (n, H, W), in the mean over the channels."""
        return self.shares * (1 - self.kept.mean(0))

    def mix(self, estimates: Sequence[Planes | None], reference: Planes) -> Planes:
        """Mix the estimates by their shares, without those not computed (their share is 0)."""
        trusted = (1 - self.shares.sum(0)) * reference
        for k in self.estimate_numbers:
            estimate = estimates[k]
            assert estimate is not None
            trusted += self.shares[k] * estimate
        return (1 - self.kept) * trusted + self.kept * reference


def check_estimates(reference: Reference, estimates: Sequence[Callable[[Map], Planes]]) -> MotionCheck:
    """Test estimates, given as functions, the best first. The others are computed where the first is in doubt, which
    they receive as (H, W) in [0, 1]; all or none, as each contributes wherever there is doubt (`sure`)."""
    remaining = doubt = np.ones(reference.light.shape[1:], np.float32)
    shares, computed = np.zeros((len(estimates), *remaining.shape), np.float32), []
    for k, estimate in enumerate(estimates):
        if doubt.max() <= 0:
            break
        computed.append(k)
        shares[k] = remaining * fade_mask(find_failing_pixels(reference, estimate(doubt)))
        remaining, doubt = remaining - shares[k], 1 - shares[0]
    return MotionCheck(shares, saturation_mask(reference.light, reference.limits), tuple(computed))
