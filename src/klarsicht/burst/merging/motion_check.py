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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import minimum_filter, uniform_filter
from scipy.stats import norm
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from klarsicht.burst.data.cokriging import Mask
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.tiles import cover_marked
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Map = npt.NDArray[np.float32]  # H W

WINDOW_SIDES = (8, 16, 32)  # sides, in pixels (of a mosaic's planes)
FALSE_ALARMS = 1e-6  # probability for a window and test, where the estimate is right
LEAVE = (
    1.15  # variance of X_1 - E over that of X_1's noise: estimates may use little of X_1 and have noise of their own
)
FADE = 8  # pixels over which a fallback fades in
CHECK_MARGIN = max(WINDOW_SIDES) + FADE + 7  # pixels around a tile that influence its result, softened shares included
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

    def crop(self, part: tuple[slice, slice]) -> Reference:
        """Return the reference for some of the rows and columns."""
        measured = None if self.measured is None else np.ascontiguousarray(self.measured[:, *part])
        return Reference(np.ascontiguousarray(self.light[:, *part]), self.noise, self.limits, measured)


def find_failing_pixels(reference: Reference, estimate: Planes) -> npt.NDArray[np.bool_]:
    """Find the pixels (H, W) for which any window around them fails."""
    residual = compute_residual(reference, estimate)
    values = [split_residual(*residual)]
    if np.isfinite(reference.limits.high):
        values.append(count_clipped(reference, estimate, residual[1]))
    fails = torch.zeros(reference.light.shape[1:], dtype=torch.bool)
    for side, sums in zip(WINDOW_SIDES, window_sums(values, WINDOW_SIDES), strict=True):
        fails |= expand_windows(find_failing_windows(sums), side, (fails.shape[0], fails.shape[1]))
    return fails.numpy()


def compute_residual(reference: Reference, estimate: Planes) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the residual, the modelled variance of its noise, and a mask of the pixels that are used, each (C, H, W):
    where both pictures are near a clipping limit, the noise is truncated."""
    limits, counts = reference.limits, reference.measured
    read, shot = (
        torch.tensor([float(getattr(n, k)) for n in reference.noise])[:, None, None] for k in ("read", "shot")
    )
    X, E = torch.from_numpy(reference.light), torch.from_numpy(estimate)
    variance = (read**2 + shot * E.clamp(min=0)).clamp(min=1e-12)
    near, far = NEAR * variance.sqrt(), 2 * NEAR * variance.sqrt()
    beyond = (limits.high - near <= E) & (limits.high - far <= X) | (limits.low + near >= E) & (limits.low + far >= X)
    return X - E, variance, ~beyond if counts is None else ~beyond & torch.from_numpy(counts)


def split_residual(r: Tensor, variance: Tensor, counted: Tensor) -> Tensor:
    """Compute the values (4, C, H, W) whose sums over windows are tested: ones, squares over their variance, the
    residual and its variance, each where it counts."""
    values = torch.stack([torch.ones_like(r), r.square() / variance, r, variance.expand_as(r)])
    return torch.where(counted, values, 0.0)


def find_failing_windows(sums: Tensor) -> Tensor:
    """Find the windows (Y, X) whose residual is not noise, or that have another number of clipped pixels than is
    expected. sums: (K, C, Y, X), of split_residual and, where K > 4, of count_clipped."""
    n, energy, total, variance = sums[:4]
    count = n.sum(0)
    loud = energy.sum(0) > LEAVE * count * chi_squared_bound(count)
    z = total / variance.clamp(min=1e-20).sqrt()
    fails = loud | (z.abs() > norm.isf(FALSE_ALARMS / 2 / len(total))).any(0)
    for more, spread in zip(sums[4::2], sums[5::2], strict=True):
        fails = fails | (more > bernstein_bound(spread, FALSE_ALARMS / (2 * len(more)))).any(0)
    return fails


def count_clipped(reference: Reference, estimate: Planes, variance: Tensor) -> Tensor:
    """Compute by how much the number of clipped pixels exceeds that which is expected given the estimate, its variance,
    and the same for what it lacks, (4, C, H, W), with a tolerance of CLIPPED_MEAN_TOLERANCE deviations; where all is
    far below white, nothing, (0, C, H, W)."""
    X, high = torch.from_numpy(reference.light), reference.limits.high
    below = (high - torch.from_numpy(estimate)) / variance.sqrt()
    clipped, near = (high <= X).float(), below <= FAR_FROM_WHITE
    if not near.any() and not clipped.any():
        return X.new_zeros(0, *X.shape)
    countable = below > AT_LIMIT
    if reference.measured is not None:
        countable &= torch.from_numpy(reference.measured)
    values = []
    for sign in (1, -1):
        p = torch.zeros_like(below)  # of what is far from white hardly anything is clipped
        p[near] = torch.special.ndtr(sign * CLIPPED_MEAN_TOLERANCE - below[near])
        values += [sign * (clipped - p), p * (1 - p)]
    return torch.where(countable, torch.stack(values), 0.0)


def bernstein_bound(variance: Tensor, rate: float) -> Tensor:
    """Bound the excess of a sum of independent trials of that total variance, at a rate of exceedance (Bernstein)."""
    L = float(-np.log(rate))
    return L / 3 + (L**2 / 9 + 2 * L * variance).sqrt()


def chi_squared_bound(n: Tensor) -> Tensor:
    """Bound the mean of n squared normal variables at the probability of a false alarm (Wilson and Hilferty 1931)."""
    c = torch.full_like(n, 2 / 9) / n.clamp(min=1)
    return (1 - c + float(norm.isf(FALSE_ALARMS)) * c.sqrt()) ** 3


def window_sums(values: Sequence[Tensor], sides: Sequence[int]) -> Iterator[Tensor]:
    """Sum values (k, C, H, W), together (K, C, H, W), over windows of sides that are each twice the one before, a half
    side apart, (K, C, Y, X). The last windows may extend beyond the picture."""
    step = sides[0] // 2
    blocks = torch.cat([_sum_blocks(x, step) for x in values if len(x)])
    for side in sides:
        blocks, step = (blocks, step) if 2 * step == side else (_sum_blocks(blocks, 2), 2 * step)
        assert 2 * step == side
        wide = pad(blocks, (0, 1, 0, 1))
        yield wide[..., :-1, :-1] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., 1:, 1:]


def _sum_blocks(x: Tensor, side: int) -> Tensor:
    """Sum (..., H, W) over blocks, the last of which may extend beyond it."""
    below, right = (-length % side for length in x.shape[-2:])
    return avg_pool2d(pad(x, (0, right, 0, below)), side) * side**2


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

    def crop(self, part: tuple[slice, slice]) -> MotionCheck:
        """Return the result for some of the rows and columns."""
        return replace(self, shares=self.shares[:, *part], kept=self.kept[:, *part])

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
        shares[k] = remaining * fade_mask(_find_failing_around(reference, estimate(doubt), remaining > 0))
        remaining, doubt = remaining - shares[k], 1 - shares[0]
    return MotionCheck(shares, saturation_mask(reference.light, reference.limits), tuple(computed))


def _find_failing_around(reference: Reference, estimate: Planes, marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find the failing pixels (H, W) on which `fade_mask` depends at marks."""
    H, W = marks.shape
    fails = np.zeros((H, W), bool)
    here = Window(0, H, 0, W)
    for window in cover_marked(marks, CHECK_MARGIN, within=here):
        part = window.intersect(here).slices_in(here)
        fails[part] |= find_failing_pixels(reference.crop(part), np.ascontiguousarray(estimate[:, *part]))
    return fails
