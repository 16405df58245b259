"""Merge of aligned frames by frequency, after HDR+ (Hasinoff et al., ACM Trans. Graph. 35(6), 2016), without a network.

Frames are cut into tiles of n x n pixels that overlap by half. With D_z the cosine transform of the difference of the
reference and frame z in a tile, V the variance of its noise at that frequency, and a_z the agreement of the frame,

    w_z = a_z c V / (D_z^2 + c V),    T = T_0 - 1/N sum_z w_z D_z,

so that a frame counts where noise explains how it differs. What is left is then shrunk, but for the mean of a tile, by

    s = T^2 / (T^2 + b U),

U the variance of the noise in T. Tiles are put together by raised cosines, which sum to 1. The noise of frame z was
read between pixels; it is that of all fractions of a pixel in the mean. R, Q and n as in the HDR+ merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch.nn.functional import avg_pool2d, pad

from klarsicht.burst.align.tile_grid import cubic_taps
from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.cokriging import Pattern
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.merging.filters import Agreement
from klarsicht.burst.network.unet import WHOLE, Part
from klarsicht.numerics.compiled.jit import compile_inlined, compile_with
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

MERGED_TILE = 16  # pixels of a tile's side, n
MERGED_STEP = MERGED_TILE // 2
TEMPORAL, SPATIAL = 32.0, 3.0  # c, b
TINY = np.float32(1e-20)  # variance: no division by 0
# places of a tile's values in the working memory of `_merge_tiles`: the cosines of the reference, and of the
# reference of what the weights are given; their weighted means; sums of the others' weights and of their squares;
# variances that explain a difference, those of the noise, and the shares that are left
FIRST, GIVEN, MERGED, SEEN, OTHERS, SQUARES, ALLOWED, OWN, READ_BETWEEN, SHRUNK, WORK = range(
    0, 11 * MERGED_TILE**2, MERGED_TILE**2
)
FRACTIONS = 16  # of a pixel, over which the noise of frames read between pixels is averaged

Spectrum = npt.NDArray[np.float32]  # 2 C n n


@dataclass(frozen=True, eq=False)
class FrequencyWeights:
    """Weights of frames by frequency. frames: (N, C, h, w), which decide on the weights. noise: of each channel.
    spectrum: (2, C, n, n), of the noise of the reference and of another frame, over that of `noise`. agreement: (N, h,
    w)."""

    frames: Frames
    noise: Sequence[NoiseLevel]
    spectrum: Spectrum
    agreement: Agreement

    @cached_property
    def result(self) -> tuple[Planes, Agreement]:
        """The picture (C, h, w), and the weights (N, R, Q) of a tile's frames on themselves, in the mean over channels
        and frequencies."""
        return self._merge(self.frames)

    @property
    def share_of_frames(self) -> Agreement:
        own = self.centre_weights(range(len(self.frames)))
        return own / own.sum(0)

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> Agreement:
        """Return the weights in the mean over frequencies; what weights that differ by frequency take from around is
        neglected."""
        down, across = (blend_matrix(side) for side in self.frames.shape[2:])
        return np.asarray(down @ self.result[1][list(frames)] @ across.T)

    def crop(self, part: Part) -> FrequencyWeights:
        return FrequencyWeights(self.frames[:, :, *part], self.noise, self.spectrum, self.agreement[:, *part])

    def __call__(self, frames: Frames | None = None) -> Planes:
        return self.result[0] if frames is None else self._merge(frames)[0]

    def _merge(self, frames: Frames) -> tuple[Planes, Agreement]:
        """Apply the weights to frames of the same shape; return the picture (C, h, w), and weights as in `result`."""
        C, H, W = frames.shape[1:]
        agreement, fade = tile_means(self.agreement), raised_cosine(MERGED_TILE)
        parity = np.concatenate([np.arange(0, MERGED_TILE, 2), np.arange(1, MERGED_TILE, 2)])
        basis = np.ascontiguousarray(cosines(MERGED_TILE).T[:MERGED_STEP, parity]).ravel()
        spectrum = np.ascontiguousarray(self.spectrum[:, :, parity[None], parity[:, None]]).reshape(2, C, -1)
        read, shot = (np.array([getattr(n, name) for n in self.noise], np.float32) for name in ("read", "shot"))
        out, shares = np.zeros((C, H, W), np.float32), np.zeros(agreement.shape, np.float32)
        given = [np.ascontiguousarray(x, np.float32) for x in (self.frames, frames)]
        same = frames is self.frames
        _merge_tiles(*given, same, agreement, np.square(read), shot, spectrum, basis, fade, out, shares)
        return out, shares / np.float32(C * MERGED_TILE**2)


@dataclass(frozen=True, eq=False)
class FrequencyFilter:
    """Merge by frequency. spectrum: (2, C, n, n), of the noise of the reference and of a frame that was read between
    pixels, over that of a frame's level as it is told."""

    spectrum: Spectrum
    frames: int = 8
    halo: int = 0
    reach: int = MERGED_TILE
    name: str = "merging by frequency (no network)"

    @classmethod
    def of(cls, channels: int, colours: InterpolatedNoise | None) -> FrequencyFilter:
        """Make the filter of frames of so many channels, whose colours were interpolated, or not (None)."""
        white = np.ones((channels, 1, 1))
        return cls(noise_spectra(white if colours is None else colours.covariance.sum(1)))

    def compute_weights(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> FrequencyWeights:
        """Compute the weights of aligned frames. agreement: (N, H, W). part: rows and columns wanted, which begin at
        multiples of half a tile."""
        return FrequencyWeights(frames[:, :, *part], noise, self.spectrum, agreement[:, *part])


@cache
def cosines(n: int) -> npt.NDArray[np.float32]:
    """Return the orthonormal cosine transform of n values, (n, n)."""
    return np.asarray(dct(np.eye(n), axis=0, norm="ortho"), np.float32)


def raised_cosine(n: int) -> npt.NDArray[np.float32]:
    """Return the weights (n,) of a tile's pixels, which sum to 1 with those of tiles half a tile away."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)).astype(np.float32)


@cache
def blend_matrix(side: int) -> npt.NDArray[np.float32]:
    """Return the weights (side, R) of tiles on the pixels along a side, by `raised_cosine`."""
    pixels, tiles = np.arange(side)[:, None], np.arange(-(-side // MERGED_STEP) + 1)
    place = pixels - MERGED_STEP * (tiles - 1)
    inside = (place >= 0) & (place < MERGED_TILE)
    return np.asarray(np.where(inside, raised_cosine(MERGED_TILE)[place % MERGED_TILE], 0), np.float32)


def tile_means(agreement: Agreement) -> Agreement:
    """Compute the means (N, R, Q) of an agreement (N, h, w) over tiles; beyond the border it is repeated."""
    below, right = (-side % MERGED_STEP for side in agreement.shape[1:])
    wide = pad(
        torch.from_numpy(agreement)[None],
        (MERGED_STEP, MERGED_STEP + right, MERGED_STEP, MERGED_STEP + below),
        mode="replicate",
    )
    return np.asarray(avg_pool2d(wide, MERGED_TILE, MERGED_STEP)[0].numpy())


def noise_spectra(covariance: npt.NDArray[np.float64]) -> Spectrum:
    """Compute the spectra (2, C, n, n) of noise of a covariance (C, L, L), by lag, and of such noise that was read
    between pixels, at all fractions in the mean."""
    taps = cubic_taps(torch.arange(FRACTIONS, dtype=torch.float64) / FRACTIONS).numpy()
    read = np.mean([np.correlate(one, one, "full") for one in taps], 0)  # by lag
    moved = np.stack([_convolve_both(one, read) for one in covariance])
    return np.stack([_power(covariance), _power(moved)])


def _power(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Compute the variances (C, n, n) of a tile's cosines in noise of a covariance (C, L, L)."""
    own = lag_products(covariance.shape[-1])
    return np.asarray(np.einsum("cij,ui,vj->cuv", covariance, own, own), np.float32)


def _convolve_both(covariance: npt.NDArray[np.float64], taps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convolve a covariance (L, L) with taps along both axes, at full length."""
    down = np.apply_along_axis(np.convolve, 0, covariance, taps)
    return np.asarray(np.apply_along_axis(np.convolve, 1, down, taps))


def lag_products(length: int) -> npt.NDArray[np.float64]:
    """Compute the sums (n, length) of products of a cosine with itself at each lag, 0 in the middle: its variance in
    noise is their sum over the lags, each times the covariance there."""
    waves, middle = dct(np.eye(MERGED_TILE), axis=0, norm="ortho"), length // 2
    lags = np.abs(np.arange(length) - middle)
    return np.stack(
        [
            (waves[:, lag:] * waves[:, : MERGED_TILE - lag]).sum(1) if lag < MERGED_TILE else waves[:, 0] * 0
            for lag in lags
        ],
        1,
    )


@compile_inlined
def _transform_rows(frame: Any, y0: int, basis: Any, sums: Any, strip: Any) -> None:
    """Compute the cosines down of the rows of a row of tiles, (16 values a column), from a frame (H, W) whose edge is
    repeated. Sums and differences of mirrored rows, (2 n / 2, columns), serve the even and the odd cosines."""
    H, W = frame.shape
    T, half = MERGED_TILE, MERGED_STEP
    for k in range(half):
        upper, lower = frame[min(max(y0 + k, 0), H - 1)], frame[min(max(y0 + T - 1 - k, 0), H - 1)]
        even, odd = sums[k], sums[half + k]
        for x in range(W):
            even[x + half] = upper[x] + lower[x]
            odd[x + half] = upper[x] - lower[x]
        even[:half], odd[:half] = even[half], odd[half]
        even[W + half :], odd[W + half :] = even[W + half - 1], odd[W + half - 1]
    for u in range(T):
        b, s = basis[u::T], sums[:half] if u < half else sums[half:]
        b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
        for x in range(s.shape[1]):
            strip[x * T + u] = (
                b0 * s[0, x] + b1 * s[1, x] + b2 * s[2, x] + b3 * s[3, x]
                + b4 * s[4, x] + b5 * s[5, x] + b6 * s[6, x] + b7 * s[7, x]
            )  # fmt: skip


@compile_inlined
def _transform_columns(strip: Any, first: int, basis: Any, sums: Any, out: Any) -> None:
    """Compute a tile's cosines across; the tile begins at a value of the strip. sums: of mirrored
    columns, and differences. Loops over few arrays become vector code."""
    T, half = MERGED_TILE, MERGED_STEP
    for x in range(half):
        for u in range(T):
            a, b = strip[first + x * T + u], strip[first + (T - 1 - x) * T + u]
            sums[x * T + u] = a + b
            sums[(half + x) * T + u] = a - b
    for v in range(T):
        i = 0 if v < half else half * T
        b0, b1, b2, b3 = basis[v], basis[T + v], basis[2 * T + v], basis[3 * T + v]
        b4, b5, b6, b7 = basis[4 * T + v], basis[5 * T + v], basis[6 * T + v], basis[7 * T + v]
        for u in range(T):
            out[v * T + u] = (
                b0 * sums[i + u] + b1 * sums[i + T + u] + b2 * sums[i + 2 * T + u] + b3 * sums[i + 3 * T + u]
                + b4 * sums[i + 4 * T + u] + b5 * sums[i + 5 * T + u] + b6 * sums[i + 6 * T + u]
                + b7 * sums[i + 7 * T + u]
            )  # fmt: skip


@compile_inlined
def _invert_columns(work: Any, basis: Any, fade: Any, strip: Any, first: int) -> None:
    """Add a tile, work[SEEN:], to the strip (its cosines down), faded across."""
    T, half = MERGED_TILE, MERGED_STEP
    for x in range(half):
        near, far = fade[x], fade[T - 1 - x]
        for u in range(T):
            even, odd = np.float32(0), np.float32(0)
            for v in range(half):
                even += basis[x * T + v] * work[SEEN + v * T + u]
                odd += basis[x * T + half + v] * work[SEEN + (half + v) * T + u]
            strip[first + x * T + u] += near * (even + odd)
            strip[first + (T - 1 - x) * T + u] += far * (even - odd)


@compile_inlined
def _invert_rows(strip: Any, y0: int, basis: Any, fade: Any, out: Any) -> None:
    """Add a row of tiles, given by its cosines down, to a picture (H, W), faded down."""
    H, W = out.shape
    T, half = MERGED_TILE, MERGED_STEP
    for k in range(half):
        upper, lower = y0 + k, y0 + T - 1 - k
        for x in range(W):
            even, odd, first = np.float32(0), np.float32(0), (x + half) * T
            for u in range(half):
                even += basis[k * T + u] * strip[first + u]
                odd += basis[k * T + half + u] * strip[first + half + u]
            if 0 <= upper < H:
                out[upper, x] += fade[k] * (even + odd)
            if 0 <= lower < H:
                out[lower, x] += fade[T - 1 - k] * (even - odd)


@compile_with({"fast"})
def _merge_tiles(
    frames: Frames,
    inputs: Frames,
    same: bool,
    agreement: Agreement,
    read: npt.NDArray[np.float32],
    shot: npt.NDArray[np.float32],
    spectrum: npt.NDArray[np.float32],
    basis: npt.NDArray[np.float32],
    fade: npt.NDArray[np.float32],
    out: Planes,
    shares: Agreement,
) -> None:
    """Merge row by row of tiles. frames decide on the weights, which inputs get. same: whether these are the same.
    read: variances (C,). spectrum: (2, C, n n), across, then down, even cosines first; basis: (n / 2 n,), by pixel,
    likewise. shares: (N, R, Q), the sums of a tile's weights."""
    N, C = frames.shape[:2]
    R, Q = agreement.shape[1:]
    count, one = MERGED_TILE * MERGED_TILE, np.float32(1)
    length = (Q + 1) * MERGED_STEP * MERGED_TILE
    strips, input_strips = np.empty((N, length), np.float32), np.empty((1 if same else N, length), np.float32)
    sum_strip, work, weights = (
        np.empty(length, np.float32),
        np.zeros(WORK, np.float32),
        np.empty((N, count), np.float32),
    )
    rows, sums = np.empty((MERGED_TILE, (Q + 1) * MERGED_STEP), np.float32), np.empty(count, np.float32)
    other = np.empty(count, np.float32)
    for r in range(R):
        y0 = MERGED_STEP * (r - 1)
        for c in range(C):
            sum_strip[:] = 0
            for z in range(N):
                _transform_rows(frames[z, c], y0, basis, rows, strips[z])
                if not same:
                    _transform_rows(inputs[z, c], y0, basis, rows, input_strips[z])
            for i in range(count):
                work[OWN + i] = spectrum[0, c, i]
                work[READ_BETWEEN + i] = spectrum[1, c, i]
            for q in range(Q):
                first = q * MERGED_STEP * MERGED_TILE
                _transform_columns(strips[0], first, basis, sums, other)
                for i in range(count):
                    work[FIRST + i] = work[SEEN + i] = work[MERGED + i] = other[i]
                level = read[c] + shot[c] * max(work[FIRST] / np.float32(MERGED_TILE), np.float32(0))
                if not same:
                    _transform_columns(input_strips[0], first, basis, sums, other)
                    for i in range(count):
                        work[GIVEN + i] = work[SEEN + i] = other[i]
                for i in range(count):
                    work[OTHERS + i] = 0
                    work[SQUARES + i] = 0
                    work[ALLOWED + i] = np.float32(TEMPORAL) * level * (work[OWN + i] + work[READ_BETWEEN + i])
                for z in range(1, N):
                    a, w = agreement[z, r, q] / np.float32(N), weights[z]
                    if a <= 0:
                        w[:] = 0
                        continue
                    _transform_columns(strips[z], first, basis, sums, other)
                    for i in range(count):
                        D = work[FIRST + i] - other[i]
                        weight = a * work[ALLOWED + i] / (D * D + work[ALLOWED + i])
                        w[i] = weight
                        work[OTHERS + i] += weight
                        work[SQUARES + i] += weight * weight
                        work[MERGED + i] -= weight * D
                    if same:
                        for i in range(count):
                            work[SEEN + i] = work[MERGED + i]
                        continue
                    _transform_columns(input_strips[z], first, basis, sums, other)
                    for i in range(count):
                        work[SEEN + i] -= w[i] * (work[GIVEN + i] - other[i])
                for i in range(count):
                    own, power = one - work[OTHERS + i], work[MERGED + i] * work[MERGED + i]
                    U = level * (own * own * work[OWN + i] + work[SQUARES + i] * work[READ_BETWEEN + i])
                    kept_share = power / (power + np.float32(SPATIAL) * U + TINY) if i else one
                    work[SHRUNK + i] = kept_share
                    work[SEEN + i] *= kept_share
                    weights[0, i] = own
                for z in range(N):
                    share, w = np.float32(0), weights[z]
                    for i in range(count):
                        share += w[i] * work[SHRUNK + i]
                    shares[z, r, q] += share
                _invert_columns(work, basis, fade, sum_strip, first)
            _invert_rows(sum_strip, y0, basis, fade, out[c])
