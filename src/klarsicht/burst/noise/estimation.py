"""Estimation of the noise model v = read^2 + shot m from the frames themselves, fitted to flat blocks of 8 x 8 pixels.

Of two aligned frames a, b, the variance of (a - b) / sqrt(2) in a block is the noise's, and its flatness is judged by
(a + b) / 2, whose noise is independent. One frame alone: the same with the highest and the lowest coefficients of the
block's cosine transform. Texture leaks into the difference by the error of alignment to whole pixels. Where the frames'
places are known, each block is that of the two frames whose places are closest between pixels.

Where frames are clipped, the mean of a block near the limit is off and its variance too low: the fit is repeated with
what both were before (`clipped_noise`). A block at white may be white in part, and look like noise of no variance; so
its distance from white is computed from its own mean and variance, and nearer ones than CLIP_DISTANCE are left out.

Y X are blocks of a frame, M blocks in a list (the points of the noise curve).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dctn
from scipy.optimize import nnls

from klarsicht.burst.align.alignment import align
from klarsicht.burst.data.burst import Frames
from klarsicht.burst.noise import clipped_noise
from klarsicht.ground.errors import InputError
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Numbers = npt.NDArray[np.float64]

BLOCK_SIDE = 8  # pixels
FLATTEST_SHARE = 0.3  # of the blocks of a brightness bin
MAX_LEAKAGE = 0.5  # share of the noise that may be taken for the leaked texture of one
BRIGHTNESS_BINS, MIN_BLOCKS = 24, 6  # bins of brightness; least number of blocks in each
FIT_ROUNDS = 16  # of the fit, in which the line before says what is noise
LEAST_BLOCKS = 3 * MIN_BLOCKS  # of a fit
LEAST_CANDIDATES = 4 * LEAST_BLOCKS  # of which the flattest are enough for a fit
CLIP_DISTANCE = 1.0  # least distance of a usable block from white, in deviations of its samples
LEAST_LEFT = 0.1  # share of the variance that clipping leaves in a usable block; at black it leaves .17
CLIPPED_SHARE = 1e-4  # share of values at an extreme above which it is a clipping level
DISTANCE_CLASSES = 3  # of the blocks of frames whose places are known, by the distance of the two frames
ALIGNED_TILE = 64  # pixels: side of a tile of the alignment


@dataclass(frozen=True, eq=False)
class Blocks:
    """Statistics of M blocks. mean, variance (of the noise, plus leaked texture), texture: each (M,). share: of the
    noise's variance that enters `texture`. dof: degrees of freedom. source: (M,), a label of blocks with the same
    leakage."""

    mean: Numbers
    variance: Numbers
    texture: Numbers
    share: float
    dof: int
    source: Numbers

    @classmethod
    def concatenate(cls, parts: Iterable[Blocks]) -> Blocks:
        """Concatenate several lists of blocks, each with a source label of its own."""
        parts = list(parts)
        mean, variance, texture = (
            np.concatenate([getattr(p, k) for p in parts]) for k in ("mean", "variance", "texture")
        )
        source = np.repeat(np.arange(len(parts), dtype=float), [len(p.mean) for p in parts])
        return cls(mean, variance, texture, parts[0].share, parts[0].dof, source)

    def select(self, rows: npt.NDArray[Any]) -> Blocks:
        """Return the blocks at some indices or a mask."""
        fields = {name: getattr(self, name)[rows] for name in ("mean", "variance", "texture", "source")}
        return replace(self, **fields)


@dataclass(frozen=True, eq=False)
class NoiseSpectrum:
    """Variance of noise in blocks, over that of a sample's noise, by channel; 1 where noise is white. pair: of a
    difference. high, low: of the coefficients that tell noise and texture of one frame. white: of the white noise that
    alignment takes it to be."""

    pair: Numbers
    high: Numbers
    low: Numbers
    white: float

    @classmethod
    def measure(cls, noise: npt.NDArray[np.float32], white: float) -> NoiseSpectrum:
        """Measure noise (C, H, W) that was white, of variance 1, before it was filtered."""
        blocks = cut_blocks(noise[None])
        power = np.square(dctn(blocks, axes=(-2, -1), norm="ortho"))
        high, low = single_frame_coefficients()
        by_channel = (0, 2, 3)
        pair = blocks.var((-2, -1), ddof=1).mean(by_channel)
        return cls(pair, power[..., high].mean(-1).mean(by_channel), power[..., low].mean(-1).mean(by_channel), white)


ONE = np.ones(1)
WHITE_NOISE = NoiseSpectrum(ONE, ONE, ONE, 1.0)


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise level of one frame. read_known: whether any block was dark enough to determine the read noise. blocks:
    the number used. curve: (M, 2), their means and variances."""

    noise: NoiseLevel
    read_known: bool
    blocks: int
    curve: Numbers


@dataclass(frozen=True, eq=False)
class BlockPlaces:
    """Places of a window's blocks in each of its frames. offsets: (N, Y, X, 2), frame i shows at p + offset what the
    reference shows at p. agrees: (N, Y, X), whether it shows the same."""

    offsets: npt.NDArray[np.float32]
    agrees: npt.NDArray[np.bool_]


def estimate(
    windows: Iterable[Frames], spectrum: NoiseSpectrum = WHITE_NOISE, places: Sequence[BlockPlaces] | None = None
) -> NoiseEstimate:
    """Estimate the noise of samples from windows (N, C, H, W) of the burst, linear, whose noise has that spectrum.
    places: of the blocks of each window; None: the frames are aligned here. Raises InputError where no block is
    usable."""
    windows, clip = clip_alike(list(windows))
    single = Blocks.concatenate(single_frame_blocks(w[:1], spectrum) for w in windows)
    alone = fit_noise(select_unclipped(single, clip), clip)
    if len(windows[0]) == 1:
        return alone
    if places is None:
        counted_windows = track(windows, len(windows), "noise of the frames")
        parts = [part for w in counted_windows for part in frame_pair_blocks(w, alone.noise, spectrum)]
    else:
        pairings = zip(windows, places, strict=True)
        parts = [part for w, there in pairings for part in placed_pair_blocks(w, there, spectrum)]
    if not parts:  # no block of one frame agrees with another's
        return alone
    pairs = Blocks.concatenate(parts)
    usable = select_unclipped(pairs, clip)
    return fit_noise(usable, clip) if len(usable.mean) >= BRIGHTNESS_BINS * MIN_BLOCKS else alone


# Blocks


def single_frame_coefficients() -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return masks of the high and of the low DCT coefficients of a block."""
    u = np.add.outer(np.arange(BLOCK_SIDE), np.arange(BLOCK_SIDE))
    return u >= BLOCK_SIDE + 1, (u > 0) & (u <= BLOCK_SIDE // 2)


def single_frame_blocks(frames: Frames, spectrum: NoiseSpectrum = WHITE_NOISE) -> Blocks:
    """Compute the statistics of the blocks of each frame by itself, from the high and low DCT coefficients."""
    blocks = cut_blocks(frames)
    power = np.square(dctn(blocks, axes=(-2, -1), norm="ortho"))
    high, low = single_frame_coefficients()
    of_high, of_low = (x[:, None, None] for x in (spectrum.high, spectrum.low))
    mean, variance, texture = (
        x.ravel()
        for x in (blocks.mean((-2, -1)), power[..., high].mean(-1) / of_high, power[..., low].mean(-1) / of_low)
    )
    return Blocks(mean, variance, texture, 1.0, int(high.sum()), np.zeros(len(mean)))


def frame_pair_blocks(frames: Frames, guess: NoiseLevel, spectrum: NoiseSpectrum = WHITE_NOISE) -> list[Blocks]:
    """Compute the statistics of the blocks of pairs of frames (N, C, H, W), after alignment by whole pixels."""
    light, valid = torch.from_numpy(frames)[None], torch.ones(1, len(frames), dtype=torch.bool)
    seen = guess.scale_variance(spectrum.white)
    read, shot = (torch.tensor([max(x, 1e-6)]) for x in (seen.read, seen.shot))
    found = align(light, read, shot, valid, ALIGNED_TILE)
    there = _uniform_shift_blocks(found.shifts[0], found.agrees[0], found.mesh.shape, frames.shape[-2:])
    aligned = found.apply_whole_pixels(light)[0].numpy()
    rest = (found.whole.shifts[0] - found.whole.shifts[0].round()).numpy()
    return [_difference_blocks(aligned[i], aligned[j], there[i] & there[j], spectrum) for i, j in closest_pairs(rest)]


def placed_pair_blocks(frames: Frames, places: BlockPlaces, spectrum: NoiseSpectrum = WHITE_NOISE) -> list[Blocks]:
    """Compute the statistics of the blocks of frames (N, C, H, W): of each place that of the two frames, read at whole
    pixels, whose offsets differ least between pixels; in lists by how much they differ, as texture leaks by it."""
    N, (H, W) = len(frames), frames.shape[2:]
    whole = np.rint(places.offsets)
    rest = places.offsets - whole
    Y, X = whole.shape[1:3]
    corners = [BLOCK_SIDE * np.arange(count) for count in (Y, X)]
    y, x = (corners[0][:, None] + whole[..., 0]).astype(np.int64), (corners[1] + whole[..., 1]).astype(np.int64)
    there = places.agrees & (y >= 0) & (x >= 0) & (y + BLOCK_SIDE <= H) & (x + BLOCK_SIDE <= W)
    first, second, least = np.zeros((Y, X), np.int64), np.zeros((Y, X), np.int64), np.full((Y, X), np.inf)
    for i, j in combinations(range(N), 2):
        apart = np.where(there[i] & there[j], np.square(rest[i] - rest[j]).sum(-1), np.inf)
        closer = apart < least
        first[closer], second[closer], least[closer] = i, j, apart[closer]
    rows, columns = np.nonzero(np.isfinite(least))
    nearest_first = np.argsort(least[rows, columns], kind="stable")
    inside = np.arange(BLOCK_SIDE)

    def read(number: npt.NDArray[np.int64], which: npt.NDArray[np.int64]) -> Numbers:
        r, q = rows[which], columns[which]
        k = number[r, q]
        at = y[k, r, q][:, None, None] + inside[:, None], x[k, r, q][:, None, None] + inside
        return frames[k[:, None, None], :, *at].transpose(3, 0, 1, 2).astype(np.float64)  # C M 8 8

    classes = [one for one in np.array_split(nearest_first, DISTANCE_CLASSES) if len(one)]
    return [_difference_statistics(read(first, one), read(second, one), spectrum) for one in classes]


def closest_pairs(rest: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Choose disjoint pairs of frames of the closest rounding errors, rest (N, 2): the better half of them."""
    apart = sorted((float(np.square(rest[i] - rest[j]).sum()), i, j) for i, j in combinations(range(len(rest)), 2))
    pairs: list[tuple[int, int]] = []
    for _, i, j in apart:
        if not {i, j} & {k for pair in pairs for k in pair}:
            pairs.append((i, j))
    return pairs[: -(-len(pairs) // 2)]


def _uniform_shift_blocks(
    shifts: torch.Tensor, agrees: torch.Tensor, shape: tuple[int, int], size: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Select the blocks (N, Y, X) whose pixels have one shift, and agree with the reference."""
    same = torch.ones(len(shifts), shape[0] - 1, shape[1] - 1, dtype=torch.bool)
    for below, right in ((0, 1), (1, 0), (1, 1)):
        there = slice(below, shape[0] - 1 + below), slice(right, shape[1] - 1 + right)
        same &= (shifts[:, *there] == shifts[:, : shape[0] - 1, : shape[1] - 1]).all(-1) & agrees[:, *there]
    same &= agrees[:, : shape[0] - 1, : shape[1] - 1]
    repeats = ALIGNED_TILE // 2 // BLOCK_SIDE
    wide = same.repeat_interleave(repeats, 1).repeat_interleave(repeats, 2).numpy()
    return wide[:, : size[0] // BLOCK_SIDE, : size[1] // BLOCK_SIDE]


def _difference_blocks(a: Frames, b: Frames, there: npt.NDArray[np.bool_], spectrum: NoiseSpectrum) -> Blocks:
    """Compute the statistics of the blocks of two aligned frames from their difference and their mean."""
    first, second = (cut_blocks(x[None])[0][:, there] for x in (a, b))
    return _difference_statistics(first, second, spectrum)


def _difference_statistics(a: Numbers, b: Numbers, spectrum: NoiseSpectrum) -> Blocks:
    """Compute the statistics of blocks (C, M, 8, 8) of two aligned frames."""
    D, S = (a - b) * 0.5**0.5, (a + b) * 0.5
    variance, texture = ((x.var((-2, -1), ddof=1) / spectrum.pair[:, None]).ravel() for x in (D, S))
    return Blocks(
        S.mean((-2, -1)).ravel(), variance, texture, 0.5, BLOCK_SIDE * BLOCK_SIDE - 1, np.zeros(len(variance))
    )


def cut_blocks(frames: Frames) -> Numbers:
    """Split (N, C, H, W) into blocks (N, C, Y, X, 8, 8); a remainder at the right and bottom is dropped."""
    N, C, H, W = frames.shape
    Y, X = H // BLOCK_SIDE, W // BLOCK_SIDE
    whole = frames[..., : Y * BLOCK_SIDE, : X * BLOCK_SIDE].astype(np.float64)
    return whole.reshape(N, C, Y, BLOCK_SIDE, X, BLOCK_SIDE).swapaxes(3, 4)


def clip_alike(windows: list[Frames]) -> tuple[list[Frames], tuple[float, float]]:
    """Clip windows (N, C, H, W) where any frame is clipped; return these limits, infinite where there are none."""
    limits = [clipping_levels([w[i] for w in windows]) for i in range(len(windows[0]))]
    low, high = max(low for low, _ in limits), min(high for _, high in limits)
    return [np.clip(w, low, high) for w in windows], (low, high)


def clipping_levels(windows: list[Frames]) -> tuple[float, float]:
    """Return the values at which the frames are clipped, below and above; infinite where they are not."""
    values = np.concatenate([w.ravel()[:: max(1, w.size // 200_000)] for w in windows])
    low, high = float(values.min()), float(values.max())
    piled = [float(np.mean(np.abs(values - end) < 1e-6)) > CLIPPED_SHARE for end in (low, high)]
    return (low if piled[0] else -np.inf), (high if piled[1] else np.inf)


def select_unclipped(blocks: Blocks, clip: tuple[float, float]) -> Blocks:
    """Select the blocks that are not all black, and CLIP_DISTANCE from white, or farthest if these are too few."""
    open_blocks = blocks.select((blocks.mean > clip[0]) & (blocks.mean < clip[1]))
    variance_of_samples = open_blocks.texture + (1 - open_blocks.share) * open_blocks.variance
    distances = clipped_noise.distance_from_limit(clip[1] - open_blocks.mean, variance_of_samples)
    enough = np.sort(distances)[-LEAST_CANDIDATES:]
    return open_blocks.select(distances >= np.min(enough, initial=CLIP_DISTANCE))


# The line


def fit_noise(blocks: Blocks, clip: tuple[float, float]) -> NoiseEstimate:
    """Fit variance = O + S mean + k (texture - share (O + S mean)) by least squares, with a leakage k for each source.
    Raises InputError where too few blocks are left."""
    flat = select_flattest(blocks)
    if len(flat.mean) < LEAST_BLOCKS:
        remedy = "Give the noise by --noise READ,SHOT, or calibrate the camera."
        raise InputError("the noise cannot be estimated from these frames", rule="too few flat blocks", remedy=remedy)
    line = NoiseLine.fit(flat, NoiseLine(float(flat.variance.mean()), 0.0, 0.0, {}))
    for _ in range(FIT_ROUNDS):
        again = select_flattest(unclip_blocks(blocks, line, clip))
        flat = again if len(again.mean) >= LEAST_BLOCKS else flat
        line = NoiseLine.fit(flat, line)
    known = 2 * line.error < line.O
    return NoiseEstimate(
        NoiseLevel(float(np.sqrt(line.O)), line.S), known, len(flat.mean), np.stack([flat.mean, flat.variance], 1)
    )


def unclip_blocks(blocks: Blocks, line: NoiseLine, clip: tuple[float, float]) -> Blocks:
    """Compute means and variances before clipping, for noise of that line, without blocks too dark for any light."""
    low, high = clip
    if np.isfinite(low):
        moments = clipped_noise.unclip(blocks.mean - low, lambda m: line.variance_at(m + low), high - low)
        mean, possible = moments.mean + low, moments.possible
    elif np.isfinite(high):  # white is the black of the negative, but light may lie beyond it
        moments = clipped_noise.unclip(high - blocks.mean, lambda m: line.variance_at(high - m))
        mean, possible = high - moments.mean, np.ones(len(blocks.mean), bool)
    else:
        return blocks
    f = 1 / np.maximum(moments.variance_left, LEAST_LEFT)
    return replace(blocks, mean=mean, variance=blocks.variance * f, texture=blocks.texture * f).select(possible)


@dataclass(frozen=True, eq=False)
class NoiseLine:
    """The line v = O + S m; error: the standard error of O; leakage: k by source, 0 where none is said."""

    O: float  # noqa: E741 - the symbols of the DNG specification
    S: float
    error: float
    leakage: Mapping[float, float]

    def variance_at(self, m: Numbers) -> Numbers:
        """Compute the variance at mean m."""
        return np.maximum(self.O + self.S * np.maximum(m, 0), 1e-14)

    def texture_of(self, blocks: Blocks) -> Numbers:
        """Compute the texture (M,) of blocks without the noise in it."""
        return blocks.texture - blocks.share * self.variance_at(blocks.mean)

    def expected_variance(self, blocks: Blocks) -> Numbers:
        """Compute the variance (M,) of blocks, leaked texture included."""
        k = np.array([self.leakage.get(i, 0.0) for i in blocks.source])
        return self.variance_at(blocks.mean) + k * self.texture_of(blocks)

    @classmethod
    def fit(cls, blocks: Blocks, before: NoiseLine) -> NoiseLine:
        """Fit the line by non-negative least squares, weighted by the variance of a variance, 2 v^2 / dof. The line
        before says what v is, and what of the texture is noise. A leakage beyond its bound is set to it, and the line
        fitted again."""
        weight = np.sqrt(blocks.dof / 2) / before.expected_variance(blocks)
        sources, most = np.unique(blocks.source), MAX_LEAKAGE / blocks.share
        leaks = (blocks.source[:, None] == sources) * before.texture_of(blocks)[:, None]
        noise = np.stack([np.ones_like(weight), np.maximum(blocks.mean, 0)], 1)
        A = np.hstack([noise, leaks]) * weight[:, None]
        x, _ = nnls(A, blocks.variance * weight)
        k = np.minimum(x[2:], most)
        if (x[2:] > most).any():
            x, _ = nnls(noise * weight[:, None], (blocks.variance - leaks @ k) * weight)
        error = float(np.sqrt(np.linalg.pinv(A.T @ A)[0, 0]))
        return cls(float(x[0]), float(x[1]), error, dict(zip(sources.tolist(), k.tolist(), strict=True)))


def select_flattest(blocks: Blocks) -> Blocks:
    """Select the blocks with the least texture within each bin of brightness."""
    order = np.argsort(blocks.mean, kind="stable")
    count = max(1, min(BRIGHTNESS_BINS, int(len(order) * FLATTEST_SHARE) // MIN_BLOCKS))
    parts = np.array_split(order, count)
    flat = [p[np.argsort(blocks.texture[p], kind="stable")[: int(len(p) * FLATTEST_SHARE)]] for p in parts]
    return blocks.select(np.concatenate(flat))
