"""Never worse than the reference: an estimate is kept where what it takes off the reference looks like its noise.

If an estimate E is right, X_1 - E has hardly more than the variance of the noise of X_1. That is tested in overlapping
windows of three sizes, by the mean square of the normalised residual (chi-squared) and by its mean (normal), each with
a stated rate of false alarms, and near white, where residuals are cut off, by how many pixels are clipped; where a
window fails, the next best estimate is tried, and where all of them fail, the reference is left. Tests of single pixels
would throw good results away. How much is taken of what was tried, `risk` says.

Nothing here knows where a window lies in the picture but that windows begin at multiples of their step: a tile with its
margin gives what the whole gives. Axes: C channels, H W pixels.
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

from klarsicht.burst.data.photograph import Planes
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Map = npt.NDArray[np.float32]  # H W

WINDOWS = (8, 16, 32)  # sides, in pixels (of a mosaic's planes)
FALSE_ALARMS = 1e-6  # of a window and test, where the estimate is right
LEAVE = 1.15  # times the noise of X_1, in X_1 - E: estimates may use little of X_1 and have noise of their own
FADE = 8  # pixels over which a fallback fades in
MARGIN = max(WINDOWS) + FADE + 3  # pixels around a tile that decide about its own
NEAR = 3  # deviations of noise from where a frame is clipped
AT_LIMIT = 0.1  # deviations: an estimate so near to where frames are clipped is there
CUT = 0.5  # deviations: what clipped frames' mean may lack; at the limit it lacks .4
FAR = 7.0  # deviations below white: no pixel is clipped there
SURROUNDED = 5  # side of the window in which saturated pixels are counted


@dataclass(frozen=True)
class Limits:
    """Between which values a frame can show light; beyond, it is clipped."""

    low: float = -np.inf
    high: float = np.inf


NO_LIMITS = Limits()


def doubtful(
    reference: Planes, estimate: Planes, noise: Sequence[NoiseLevel], limits: Limits = NO_LIMITS
) -> npt.NDArray[np.bool_]:
    """(H, W): whether any window around a pixel fails."""
    r, variance, counted = residual(reference, estimate, noise, limits)
    H, W = reference.shape[1:]
    fails = torch.zeros(H, W, dtype=torch.bool)
    for side in WINDOWS:
        windows = failing(r, variance, counted, side)
        if np.isfinite(limits.high):
            windows |= miscounted(torch.from_numpy(reference), torch.from_numpy(estimate), variance, limits.high, side)
        fails |= spread(windows, side, (H, W))
    return fails.numpy()


def residual(
    reference: Planes, estimate: Planes, noise: Sequence[NoiseLevel], limits: Limits
) -> tuple[Tensor, Tensor, Tensor]:
    """What was taken off, the variance that the noise would have, and what counts: each (C, H, W). Where both are near
    the end of what a frame can show, its noise is cut off, and the residual is not that of the model."""
    read, shot = (torch.tensor([getattr(n, k) for n in noise])[:, None, None] for k in ("read", "shot"))
    X, E = torch.from_numpy(reference), torch.from_numpy(estimate)
    variance = (read**2 + shot * E.clamp(min=0)).clamp(min=1e-12)
    near, far = NEAR * variance.sqrt(), 2 * NEAR * variance.sqrt()
    beyond = (limits.high - near <= E) & (limits.high - far <= X) | (limits.low + near >= E) & (limits.low + far >= X)
    return X - E, variance, ~beyond


def failing(r: Tensor, variance: Tensor, counted: Tensor, side: int) -> Tensor:
    """(Y, X): the windows, a half side apart, whose residual is not noise."""
    n = _sums(counted.float(), side)
    energy = _sums(torch.where(counted, r.square() / variance, 0.0), side).sum(0)
    total = n.sum(0)
    loud = energy > LEAVE * total * chi_squared_bound(total)
    z = (
        _sums(torch.where(counted, r, 0.0), side)
        / _sums(torch.where(counted, variance, 0.0), side).clamp(min=1e-20).sqrt()
    )
    shifted = (z.abs() > norm.isf(FALSE_ALARMS / 2 / len(r))).any(0)
    fails: Tensor = loud | shifted
    return fails


def miscounted(X: Tensor, E: Tensor, variance: Tensor, high: float, side: int) -> Tensor:
    """(Y, X): the windows, a half side apart, in which more or fewer pixels are clipped than the estimate, give or take
    CUT deviations, lets expect: no light below the limit goes with a window that is all white."""
    below = (high - E) / variance.sqrt()
    told, clipped = below > AT_LIMIT, (high <= X).float()
    if float(below.min()) > FAR and not clipped.any():
        return torch.zeros(1, dtype=torch.bool)
    fails = torch.zeros(1, dtype=torch.bool)
    for sign in (1, -1):
        p = torch.special.ndtr(sign * CUT - below)
        more, spread_of = (_sums(torch.where(told, x, 0.0), side) for x in (sign * (clipped - p), p * (1 - p)))
        fails = fails | (more > bernstein_bound(spread_of, FALSE_ALARMS / (2 * len(X)))).any(0)
    return fails


def bernstein_bound(variance: Tensor, rate: float) -> Tensor:
    """What a sum of independent trials of that variance in all exceeds its mean by, at most so often (Bernstein)."""
    L = float(-np.log(rate))
    bound: Tensor = L / 3 + (L**2 / 9 + 2 * L * variance).sqrt()
    return bound


def chi_squared_bound(n: Tensor) -> Tensor:
    """What the mean of n squared normal numbers exceeds with the probability of a false alarm (Wilson and Hilferty
    1931)."""
    c = torch.full_like(n, 2 / 9) / n.clamp(min=1)
    bound: Tensor = (1 - c + float(norm.isf(FALSE_ALARMS)) * c.sqrt()) ** 3
    return bound


def _sums(x: Tensor, side: int) -> Tensor:
    """(C, Y, X): over windows, the last of which may reach beyond the picture."""
    step = side // 2
    below, right = (-(-length // step) * step - length + step for length in x.shape[1:])
    quarters = avg_pool2d(pad(x, (0, right, 0, below)), step)
    sums: Tensor = avg_pool2d(quarters, 2, 1) * side**2
    return sums


def spread(fails: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(H, W): the pixels that lie in a failing window."""
    step = side // 2
    cells = pad(fails, (1, 1, 1, 1))
    covered = cells[1:, 1:] | cells[:-1, 1:] | cells[1:, :-1] | cells[:-1, :-1]
    return covered.repeat_interleave(step, 0).repeat_interleave(step, 1)[: size[0], : size[1]]


def faded(doubt: npt.NDArray[np.bool_]) -> Map:
    """(H, W): 0 where there is doubt, rising to 1 over FADE pixels."""
    sure = minimum_filter(1 - doubt.astype(np.float32), FADE + 1, mode="nearest")
    soft: Map = np.clip(uniform_filter(sure, FADE + 1, mode="nearest"), 0, 1)
    return soft


def saturated(reference: Planes, limits: Limits) -> Map:
    """(C, H, W) in [0, 1]: 1 where a pixel and most around it are clipped: there the reference shows all there is."""
    clipped: Map = (reference >= limits.high).astype(np.float32)
    if not clipped.any():
        return clipped
    share = uniform_filter(clipped, (0, SURROUNDED, SURROUNDED), mode="nearest")
    surrounded: Map = clipped * np.clip(2 * share - 1, 0, 1)
    return surrounded


@dataclass(frozen=True, eq=False)
class MotionCheck:
    """shares: (K, H, W), how much of the picture each estimate makes; the rest is the reference. kept: (C, H, W), where
    that is clipped. made: which estimates were wanted at all."""

    shares: npt.NDArray[np.float32]
    kept: Planes
    made: tuple[int, ...]

    def mixed(self, estimates: Sequence[Planes | None], reference: Planes) -> Planes:
        """Of all estimates, those not made left out (their share is 0)."""
        trusted = (1 - self.shares.sum(0)) * reference
        for k in self.made:
            estimate = estimates[k]
            assert estimate is not None
            trusted += self.shares[k] * estimate
        picture: Planes = (1 - self.kept) * trusted + self.kept * reference
        return picture


def judge(
    reference: Planes,
    estimates: Sequence[Callable[[Map], Planes]],
    noise: Sequence[NoiseLevel],
    limits: Limits = NO_LIMITS,
) -> MotionCheck:
    """estimates: the best first; the others are made where it is in doubt, told as (H, W) in [0, 1], all of them or
    none: one that is made anywhere has a say wherever there is doubt (`risk`)."""
    left = doubted = np.ones(reference.shape[1:], np.float32)
    shares, made = np.zeros((len(estimates), *left.shape), np.float32), []
    for k, estimate in enumerate(estimates):
        if doubted.max() <= 0:
            break
        made.append(k)
        shares[k] = left * faded(doubtful(reference, estimate(doubted), noise, limits))
        left, doubted = left - shares[k], 1 - shares[0]
    return MotionCheck(shares, saturated(reference, limits), tuple(made))
