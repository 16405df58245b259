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

import math
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
from klarsicht.numerics.compiled.jit import FREE, compile_with
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Map = npt.NDArray[np.float32]  # H W

WINDOW_SIDES = (8, 16, 32)  # sides, in pixels (of a mosaic's planes)
SUMMED_SIDE = WINDOW_SIDES[0] // 2  # side of the blocks of which the sums of windows are made
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
    fails = torch.zeros(reference.light.shape[1:], dtype=torch.bool)
    blocks = sum_blocks(reference, estimate, reference.light - estimate)
    for side, sums in zip(WINDOW_SIDES, window_sums(blocks, WINDOW_SIDES), strict=True):
        fails |= expand_windows(find_failing_windows(sums), side, (fails.shape[0], fails.shape[1]))
    return fails.numpy()


def mean_residual(reference: Reference, estimate: Planes, residual: Planes) -> float:
    """Compute the mean square of a residual over the variance of its noise, of the pixels that count; 0 without any."""
    count, energy = sum_blocks(reference, estimate, residual)[:2].double().sum((1, 2, 3)).tolist()
    return energy / count if count else 0.0


def sum_blocks(reference: Reference, estimate: Planes, residual: Planes) -> Tensor:
    """Sum what is tested over blocks of 4 x 4 pixels, (K, C, Y, X): the number of pixels, squares of the
    residual over the variance of its noise given the estimate, the residual, and that variance. Pixels where both
    pictures are near a limit, so that noise is cut off, do not count. Where anything is near white, also by how much
    the number of clipped pixels exceeds that which is expected, its variance, and the same for what it lacks, with a
    tolerance of CLIPPED_MEAN_TOLERANCE deviations."""
    light, limits = reference.light, reference.limits
    mask = np.ones((1, 1, 1), bool) if reference.measured is None else reference.measured
    read2, shot = (
        np.array(one, np.float32) for one in zip(*((n.read**2, n.shot) for n in reference.noise), strict=True)
    )
    sums = np.zeros((8, len(light), *(-(-side // SUMMED_SIDE) for side in light.shape[1:])), np.float32)
    ends = np.array([limits.low, limits.high], np.float32)
    planes = (np.ascontiguousarray(one, np.float32) for one in (light, estimate, residual))
    near_white = _sum_residuals(*planes, mask, read2, shot, ends, sums)
    return torch.from_numpy(sums if near_white else sums[:4])


@compile_with(FREE)
def _sum_residuals(
    light: Planes,
    estimate: Planes,
    residual: Planes,
    measured: Mask,
    read2: npt.NDArray[np.float32],
    shot: npt.NDArray[np.float32],
    limits: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float32],
) -> bool:
    """Fill the sums (8, C, Y, X) of sum_blocks; return whether anything is near white. measured: (C, H, W), or (1, 1,
    1) where all is. limits: low, high."""
    C, H, W = light.shape
    low, high = limits[0], limits[1]
    near, far = np.float32(NEAR), np.float32(2 * NEAR)
    values, ones_here = np.empty((4, W), np.float32), np.ones(W, np.float32)
    any_near = False
    for c in range(C):
        for y in range(H):
            X, E, r = light[c, y], estimate[c, y], residual[c, y]
            ones, squares, rest, spread = values[0], values[1], values[2], values[3]
            if measured.size > 1:
                counts = measured[c, y]
                for x in range(W):
                    ones_here[x] = np.float32(1) if counts[x] else np.float32(0)
            brightest = np.float32(-np.inf)
            for x in range(W):
                v = max(read2[c] + shot[c] * max(E[x], np.float32(0)), np.float32(1e-12))
                s = np.sqrt(v)
                cut = (high - near * s <= E[x]) & (high - far * s <= X[x])
                cut |= (low + near * s >= E[x]) & (low + far * s >= X[x])
                n = np.float32(0) if cut else ones_here[x]
                ones[x], squares[x], rest[x], spread[x] = n, n * r[x] * r[x] / v, n * r[x], n * v
                brightest = max(brightest, E[x] + np.float32(FAR_FROM_WHITE) * s, X[x])
            for k in range(4):
                one, out = values[k], sums[k, c, y // SUMMED_SIDE]
                for x in range(W):
                    out[x // SUMMED_SIDE] += one[x]
            if brightest < high:
                continue
            any_near = True
            for x in range(W):
                s = math.sqrt(max(read2[c] + shot[c] * max(E[x], np.float32(0)), np.float32(1e-12)))
                below, at_white = (high - E[x]) / s, 1.0 if high <= X[x] else 0.0
                if ones_here[x] == 0 or below <= AT_LIMIT or (below > FAR_FROM_WHITE and at_white == 0):
                    continue
                for k in range(2):
                    sign, p = 1 - 2 * k, 0.0
                    if below <= FAR_FROM_WHITE:
                        p = 0.5 * math.erfc((below - sign * CLIPPED_MEAN_TOLERANCE) / math.sqrt(2))
                    sums[4 + 2 * k, c, y // SUMMED_SIDE, x // SUMMED_SIDE] += sign * (at_white - p)
                    sums[5 + 2 * k, c, y // SUMMED_SIDE, x // SUMMED_SIDE] += p * (1 - p)
    return any_near


def find_failing_windows(sums: Tensor) -> Tensor:
    """Find the windows (Y, X) whose residual is not noise, or that have another number of clipped pixels than is
    expected. sums: (K, C, Y, X), of what sum_blocks sums."""
    n, energy, total, variance = sums[:4]
    count = n.sum(0)
    loud = energy.sum(0) > LEAVE * count * chi_squared_bound(count)
    z = total / variance.clamp(min=1e-20).sqrt()
    fails = loud | (z.abs() > norm.isf(FALSE_ALARMS / 2 / len(total))).any(0)
    for more, spread in zip(sums[4::2], sums[5::2], strict=True):
        fails = fails | (more > bernstein_bound(spread, FALSE_ALARMS / (2 * len(more)))).any(0)
    return fails


def bernstein_bound(variance: Tensor, rate: float) -> Tensor:
    """Bound the excess of a sum of independent trials of that total variance, at a rate of exceedance (Bernstein)."""
    L = float(-np.log(rate))
    return L / 3 + (L**2 / 9 + 2 * L * variance).sqrt()


def chi_squared_bound(n: Tensor) -> Tensor:
    """Bound the mean of n squared normal variables at the probability of a false alarm (Wilson and Hilferty 1931)."""
    c = torch.full_like(n, 2 / 9) / n.clamp(min=1)
    return (1 - c + float(norm.isf(FALSE_ALARMS)) * c.sqrt()) ** 3


def window_sums(blocks: Tensor, sides: Sequence[int]) -> Iterator[Tensor]:
    """Sum (K, C, Y, X) over windows of sides that are each twice the one before, a half side apart, (K, C, Y, X).
    blocks: sums over blocks of half the first side. The last windows may extend beyond the picture."""
    step = sides[0] // 2
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
