"""Burst alignment and merging by tiles, after HDR+ (Hasinoff et al., ACM Trans. Graph. 35(6), 2016).

Tiles of the reference are located in each frame by whole-pixel searches over a pyramid, and merged in the frequency
domain, each frequency weighted by its agreement. They are n x n and overlap by half: tile (r, c) begins at row n/2 (r -
1), column n/2 (c - 1). Outside a frame its edge is repeated.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import REFERENCE, Burst
from klarsicht.burst.evaluation.phase_correlation import stabilised_grey
from klarsicht.burst.synthesis.scenes import Light, box_mean
from klarsicht.numerics.compiled.jit import compile_with
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

TILE = 16
HALF_TILE = TILE // 2
PYRAMID_LEVELS = 4  # of the pyramid, each half as large as the one before
COARSE_SEARCH, FINEST_SEARCH = 4, 1  # search radius in pixels around the best guess, at coarse levels and at the finest
TUNING = 8.0  # factor on the noise of a difference of tiles

Offsets = npt.NDArray[np.int64]  # R Q 2
Tiles = npt.NDArray[Any]  # C R Q n n
Spectra = npt.NDArray[Any]  # C R Q n n/2+1


def align_and_merge(burst: Burst) -> tuple[Light, NoiseLevel]:
    """Align and merge a burst, without the spatial step of HDR+; return the image (C, H, W) and the residual noise, on
    average over tiles and frequencies."""
    return merge(burst, align(burst))


# Alignment


def align(burst: Burst) -> list[Offsets]:
    """Locate the tiles of the reference in each frame, as offsets (y, x) from their own place."""
    pyramids = [build_pyramid(frame) for frame in stabilised_grey(burst)]
    return [tile_offsets(pyramids[REFERENCE], other) for other in pyramids]


def build_pyramid(frame: Light) -> list[Light]:
    """Build the pyramid of a frame (H, W) by means of 2 x 2 as long as a tile fits in; odd edges are repeated."""
    levels = [frame]
    while len(levels) < PYRAMID_LEVELS and min(levels[-1].shape) >= 2 * TILE:
        H, W = levels[-1].shape
        levels.append(box_mean(np.pad(levels[-1], ((0, H % 2), (0, W % 2)), "edge"), 2))
    return levels


def tile_offsets(reference: list[Light], other: list[Light]) -> Offsets:
    """Search the offsets of tiles, coarse to fine; (R, Q, 2) at the finest level."""
    offsets = np.zeros((*tile_counts(reference[-1].shape), 2), np.int64)
    offsets = search_offsets(reference[-1], other[-1], offsets[:, :, None], COARSE_SEARCH)
    for level in range(len(reference) - 2, -1, -1):
        guesses = upsample_guesses(offsets, tile_counts(reference[level].shape))
        offsets = search_offsets(reference[level], other[level], guesses, COARSE_SEARCH if level else FINEST_SEARCH)
    return offsets


def tile_counts(size: tuple[int, ...]) -> tuple[int, int]:
    """Compute the numbers R and Q of tiles that cover an image."""
    rows, columns = (-(-side // HALF_TILE) + 1 for side in size)
    return rows, columns


def upsample_guesses(coarse: Offsets, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Compute initial guesses (R, Q, 4, 2): twice the offsets of the coarse tiles around each tile's centre."""
    R, Q = (
        [np.minimum(np.arange(n) // 2 + k * (np.arange(n) % 2), m - 1) for k in (0, 1)]
        for n, m in zip(size, coarse.shape, strict=False)
    )
    return 2 * np.stack([coarse[np.ix_(r, q)] for r in R for q in Q], 2)


def search_offsets(reference: Light, other: Light, guesses: npt.NDArray[np.int64], radius: int) -> Offsets:
    """Find for each tile the offset with the least sum of absolute differences, around the best of its guesses."""
    best = np.zeros((*guesses.shape[:2], 2), np.int64)
    _search(np.ascontiguousarray(reference), np.ascontiguousarray(other), guesses, radius, best)
    return best


@compile_with(set())
def _distance(a: Light, b: Light, top: int, left: int, dy: int, dx: int) -> float:
    H, W = a.shape
    total = np.float32(0)
    for y in range(max(top, 0), min(top + TILE, H)):
        v = min(max(y + dy, 0), H - 1)
        for x in range(max(left, 0), min(left + TILE, W)):
            total += abs(a[y, x] - b[v, min(max(x + dx, 0), W - 1)])
    return float(total)


@compile_with(set())
def _search(a: Light, b: Light, guesses: npt.NDArray[np.int64], radius: int, best: Offsets) -> None:
    R, Q, G, _ = guesses.shape
    for r in range(R):
        for q in range(Q):
            top, left = HALF_TILE * (r - 1), HALF_TILE * (q - 1)
            least, y0, x0 = np.inf, 0, 0
            for g in range(G):
                d = _distance(a, b, top, left, guesses[r, q, g, 0], guesses[r, q, g, 1])
                if d < least:
                    least, y0, x0 = d, guesses[r, q, g, 0], guesses[r, q, g, 1]
            best[r, q, 0], best[r, q, 1] = y0, x0
            for dy in range(y0 - radius, y0 + radius + 1):
                for dx in range(x0 - radius, x0 + radius + 1):
                    d = _distance(a, b, top, left, dy, dx)
                    if d < least:
                        least, best[r, q, 0], best[r, q, 1] = d, dy, dx


# Merging


def merge(burst: Burst, offsets: list[Offsets]) -> tuple[Light, NoiseLevel]:
    """Merge tiles: T = 1/N sum_z [T_z + A_z (T_0 - T_z)], A_z = |D_z|^2 / (|D_z|^2 + c sigma^2), D_z = T_0 - T_z.
    sigma^2: noise of the reference's tile at its mean; c sigma^2: TUNING times the variance 2 n^2 sigma^2 of D_z."""
    valid = np.flatnonzero(burst.valid).tolist()
    reference = cut_tiles(burst.reference, offsets[REFERENCE])
    noise = burst.noise.variance(reference.mean((-2, -1), keepdims=True))
    T_0 = np.fft.rfft2(reference)
    agreement = [np.zeros(T_0.shape, np.float32)]  # A_0: the reference agrees with itself, and counts once
    total = T_0.copy()
    for z in valid[1:]:
        T_z = np.fft.rfft2(cut_tiles(burst.frames[z], offsets[z]))
        A_z = wiener_agreement(T_0 - T_z, TUNING * 2 * TILE**2 * noise)
        total += T_z + A_z * (T_0 - T_z)
        agreement.append(A_z)
    share = noise_share(agreement)
    left = NoiseLevel(burst.noise.read * share**0.5, burst.noise.shot * share)
    return blend_tiles(np.fft.irfft2(total / len(valid), s=(TILE, TILE)), burst.size), left


def wiener_agreement(D: Spectra, noise: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute |D|^2 / (|D|^2 + noise); 0 where both are 0."""
    power = np.square(np.abs(D), dtype=np.float32)
    return np.asarray(power / np.maximum(power + noise, np.finfo(np.float32).tiny), np.float32)


def noise_share(agreement: list[npt.NDArray[np.float32]]) -> float:
    """Compute the variance of a merged pixel over that of a frame's: the sum of squared weights, (1 + sum A_z) / N for
    the reference and (1 - A_z) / N for each other frame, averaged."""
    N = len(agreement)
    own = (1 + sum(agreement)) / N
    others = sum(np.square(1 - A) for A in agreement[1:]) / N**2
    return float(np.mean(own**2 + others))


def cut_tiles(frame: Light, offsets: Offsets) -> Tiles:
    """Cut the tiles (C, R, Q, n, n) of a frame (C, H, W), each at its offset."""
    H, W = frame.shape[-2:]
    R, Q = offsets.shape[:2]
    places = HALF_TILE * (np.stack(np.meshgrid(np.arange(R), np.arange(Q), indexing="ij"), -1) - 1) + offsets
    y, x = (np.clip(places[..., k, None] + np.arange(TILE), 0, side - 1) for k, side in enumerate((H, W)))
    return frame[:, y[..., :, None], x[..., None, :]]


def blend_tiles(cut: Tiles, size: tuple[int, int]) -> Light:
    """Blend tiles to the image (C, H, W) by raised-cosine windows, whose overlaps sum to 1."""
    C, R, Q = cut.shape[:3]
    fade = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(TILE) + 0.5) / TILE)).astype(np.float32)
    blocks = np.zeros((C, R + 1, Q + 1, HALF_TILE, HALF_TILE), np.float32)
    halves = list(pairwise((0, HALF_TILE, TILE)))
    for i, (y0, y1) in enumerate(halves):
        for j, (x0, x1) in enumerate(halves):
            blocks[:, i : i + R, j : j + Q] += (cut * np.outer(fade, fade))[..., y0:y1, x0:x1]
    whole = blocks.swapaxes(2, 3).reshape(C, (R + 1) * HALF_TILE, (Q + 1) * HALF_TILE)
    return whole[:, HALF_TILE : HALF_TILE + size[0], HALF_TILE : HALF_TILE + size[1]]
