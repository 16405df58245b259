"""The noise of frames from the frames themselves: v = read^2 + shot m, fitted to flat blocks of 8 x 8 pixels.

Two aligned frames a, b of one scene: the variance of (a - b) / sqrt(2) in a block is the noise's, and its flatness is
judged by (a + b) / 2, whose noise is independent of the difference's, so that the choice of flat blocks does not prefer
quiet ones. One frame alone: the same with the highest and the lowest coefficients of the block's cosine transform.
Texture reaches a difference by what alignment to whole pixels leaves; of a slope that doubles the variance of the sum,
half a pixel leaves about a hundredth.

Axes: N frames, C channels, H W pixels, Y X blocks, M blocks in a list.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Numbers = npt.NDArray[np.float64]

BLOCK = 8
FLATTEST = 0.3  # of the blocks of a brightness
MOST_LEAK = 1.0  # of texture into a variance
BINS, FEWEST = 24, 6  # of brightness; blocks in each at least
ROUNDS = 8  # of the fit, whose weights need its result
FAR = 3.5  # deviations from where a sensor clips, for blocks to count
CLIPPED = 1e-4  # of the values at the very end: then the end is a clip
TILE = 64


@dataclass(frozen=True, eq=False)
class Blocks:
    """mean, variance of noise (and what leaks in of texture), texture: each (M,). share: of the noise's variance, what
    reaches `texture`. dof: degrees of freedom of a variance. source: (M,), which blocks leak alike."""

    mean: Numbers
    variance: Numbers
    texture: Numbers
    share: float
    dof: int
    source: Numbers

    @classmethod
    def joined(cls, parts: Iterable[Blocks]) -> Blocks:
        parts = list(parts)
        mean, variance, texture = (
            np.concatenate([getattr(p, k) for p in parts]) for k in ("mean", "variance", "texture")
        )
        source = np.repeat(np.arange(len(parts), dtype=float), [len(p.mean) for p in parts])
        return cls(mean, variance, texture, parts[0].share, parts[0].dof, source)

    def where(self, kept: npt.NDArray[Any]) -> Blocks:
        fields = {name: getattr(self, name)[kept] for name in ("mean", "variance", "texture", "source")}
        return replace(self, **fields)


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """noise: of one frame. read_known: whether anything was dark enough to tell the read noise. blocks: how many were
    used. curve: (M, 2), their means and variances."""

    noise: NoiseLevel
    read_known: bool
    blocks: int
    curve: Numbers


def estimate(windows: Iterable[Frames]) -> NoiseEstimate:
    """From windows (N, C, H, W) of the burst, linear, not aligned. Raises InputError where no block is usable."""
    windows = list(windows)
    alone = fitted(Blocks.joined(single(w[:1]) for w in windows), ends(windows))
    if len(windows[0]) == 1:
        return alone
    pairs = [part for w in windows for part in paired(w, alone.noise)]
    return fitted(Blocks.joined(pairs), ends(windows)) if sum(len(p.mean) for p in pairs) >= BINS * FEWEST else alone


# Blocks


def single(frames: Frames) -> Blocks:
    """Of each frame by itself."""
    blocks = cut(frames)
    power = np.square(dctn(blocks, axes=(-2, -1), norm="ortho"))
    u = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    high, low = u >= BLOCK + 1, (u > 0) & (u <= BLOCK // 2)
    mean, variance, texture = (
        x.ravel() for x in (blocks.mean((-2, -1)), power[..., high].mean(-1), power[..., low].mean(-1))
    )
    return Blocks(mean, variance, texture, 1.0, int(high.sum()), np.zeros(len(mean)))


def paired(frames: Frames, guess: NoiseLevel) -> list[Blocks]:
    """Of neighbouring frames (N, C, H, W), aligned by whole pixels."""
    light, valid = torch.from_numpy(frames)[None], torch.ones(1, len(frames), dtype=torch.bool)
    read, shot = (torch.tensor([max(x, 1e-6)]) for x in (guess.read, guess.shot))
    found = align(light, read, shot, valid, TILE)
    there = _copied(found.shifts[0], found.agrees[0], found.mesh.shape, frames.shape[-2:])
    aligned = found.copied(light)[0].numpy()
    rest = (found.whole.shifts[0] - found.whole.shifts[0].round()).numpy()
    return [_pair(aligned[i], aligned[j], there[i] & there[j]) for i, j in closest(rest)]


def closest(rest: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs of frames, none in two, between which alignment leaves least: rest (N, 2) is what rounding took off each.
    The better half of them."""
    apart = sorted((float(np.square(rest[i] - rest[j]).sum()), i, j) for i, j in combinations(range(len(rest)), 2))
    pairs: list[tuple[int, int]] = []
    for _, i, j in apart:
        if not {i, j} & {k for pair in pairs for k in pair}:
            pairs.append((i, j))
    return pairs[: -(-len(pairs) // 2)]


def _copied(
    shifts: torch.Tensor, agrees: torch.Tensor, shape: tuple[int, int], size: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """(N, Y, X) blocks whose pixels are those of one shift, not faded from one to another, and show the reference."""
    same = torch.ones(len(shifts), shape[0] - 1, shape[1] - 1, dtype=torch.bool)
    for below, right in ((0, 1), (1, 0), (1, 1)):
        there = slice(below, shape[0] - 1 + below), slice(right, shape[1] - 1 + right)
        same &= (shifts[:, *there] == shifts[:, : shape[0] - 1, : shape[1] - 1]).all(-1) & agrees[:, *there]
    same &= agrees[:, : shape[0] - 1, : shape[1] - 1]
    repeats = TILE // 2 // BLOCK
    wide = same.repeat_interleave(repeats, 1).repeat_interleave(repeats, 2).numpy()
    copied: npt.NDArray[np.bool_] = wide[:, : size[0] // BLOCK, : size[1] // BLOCK]
    return copied


def _pair(a: Frames, b: Frames, there: npt.NDArray[np.bool_]) -> Blocks:
    D, S = (cut(x[None])[0][:, there] for x in ((a - b) * np.float32(0.5**0.5), (a + b) * np.float32(0.5)))
    variance, texture = (x.reshape(-1, BLOCK * BLOCK).var(1, ddof=1) for x in (D, S))
    return Blocks(S.mean((-2, -1)).ravel(), variance, texture, 0.5, BLOCK * BLOCK - 1, np.zeros(len(variance)))


def cut(frames: Frames) -> Numbers:
    """(N, C, H, W) to blocks (N, C, Y, X, 8, 8); what is left over at the right and below is not used."""
    N, C, H, W = frames.shape
    Y, X = H // BLOCK, W // BLOCK
    whole = frames[..., : Y * BLOCK, : X * BLOCK].astype(np.float64)
    return whole.reshape(N, C, Y, BLOCK, X, BLOCK).swapaxes(3, 4)


def ends(windows: list[Frames]) -> tuple[float, float]:
    """Where values are clipped, below and above; infinite where they are not."""
    values = np.concatenate([w.ravel()[:: max(1, w.size // 200_000)] for w in windows])
    low, high = float(values.min()), float(values.max())
    piled = [float(np.mean(np.abs(values - end) < 1e-6)) > CLIPPED for end in (low, high)]
    return (low if piled[0] else -np.inf), (high if piled[1] else np.inf)


# The line


def fitted(blocks: Blocks, clip: tuple[float, float]) -> NoiseEstimate:
    """Least squares of variance = O + S mean + k (texture - share (O + S mean)), k for each source: what leaks.

    Raises InputError where too few blocks are left.
    """
    near = flattest(blocks)
    if len(near.mean) < FEWEST * 3:
        remedy = "Give the noise by --noise READ,SHOT, or calibrate the camera."
        raise InputError("the noise cannot be estimated from these frames", rule="too few flat blocks", remedy=remedy)
    kept, line = near, Line(float(near.variance.mean()), 1e-9, 0.0, near.variance)
    for _ in range(ROUNDS):
        line = Line.through(kept, line.expected)
        far = FAR * np.sqrt(line.at(near.mean))
        clear = (near.mean - far > clip[0]) & (near.mean + far < clip[1])
        if np.count_nonzero(clear) >= FEWEST * 3 and np.count_nonzero(clear) != len(kept.mean):
            kept = near.where(clear)
            line = Line.through(kept, line.at(kept.mean))
    known = 2 * line.error < line.O
    return NoiseEstimate(
        NoiseLevel(float(np.sqrt(line.O)), line.S), known, len(kept.mean), np.stack([kept.mean, kept.variance], 1)
    )


@dataclass(frozen=True, eq=False)
class Line:
    """v = O + S m; error: the standard error of O; expected: (M,), variances of blocks as fitted, leaks included."""

    O: float  # noqa: E741 - the letters of the standard
    S: float
    error: float
    expected: Numbers

    def at(self, m: Numbers) -> Numbers:
        return np.maximum(self.O + self.S * np.maximum(m, 0), 1e-14)

    @classmethod
    def through(cls, blocks: Blocks, expected: Numbers) -> Line:
        """Weighted by the variance of a variance, 2 v^2 / dof, of what was expected before."""
        weight = np.sqrt(blocks.dof / 2) / np.maximum(expected, 1e-14)
        leaks = [(blocks.source == i) * blocks.texture for i in np.unique(blocks.source)]
        A = np.stack([np.ones_like(weight), np.maximum(blocks.mean, 0), *leaks], 1)
        x, _ = nnls(A * weight[:, None], blocks.variance * weight)
        k = np.minimum(x[2:], MOST_LEAK)
        less = 1 - blocks.share * float(np.mean(k))
        error = float(np.sqrt(np.linalg.pinv((A * weight[:, None]).T @ (A * weight[:, None]))[0, 0]))
        return cls(float(x[0] / less), float(x[1] / less), error, A @ x)


def flattest(blocks: Blocks) -> Blocks:
    """Of each brightness, the blocks with the least texture."""
    order = np.argsort(blocks.mean, kind="stable")
    count = max(1, min(BINS, int(len(order) * FLATTEST) // FEWEST))
    parts = np.array_split(order, count)
    flat = [p[np.argsort(blocks.texture[p], kind="stable")[: int(len(p) * FLATTEST)]] for p in parts]
    return blocks.where(np.concatenate(flat))
