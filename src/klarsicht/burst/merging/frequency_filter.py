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
        """The picture (C, h, w), and the weights (N, h, w) of a frame's pixel on itself, in the mean over channels and
        frequencies."""
        return self._merge(self.frames)

    @property
    def share_of_frames(self) -> Agreement:
        return self.result[1] / self.result[1].sum(0)

    def centre_weights(self, frames: Sequence[int], pattern: Pattern | None = None) -> Agreement:
        """Return the weights in the mean over frequencies; what weights that differ by frequency take from around is
        neglected."""
        return self.result[1][list(frames)]

    def crop(self, part: Part) -> FrequencyWeights:
        return FrequencyWeights(self.frames[:, :, *part], self.noise, self.spectrum, self.agreement[:, *part])

    def __call__(self, frames: Frames | None = None) -> Planes:
        return self.result[0] if frames is None else self._merge(frames)[0]

    def _merge(self, frames: Frames) -> tuple[Planes, Agreement]:
        """Apply the weights to frames of the same shape; return the picture (C, h, w), and weights as in `result`."""
        N, C, H, W = frames.shape
        agreement = tile_means(self.agreement)
        basis, fade = cosines(MERGED_TILE), raised_cosine(MERGED_TILE)
        read, shot = (np.array([getattr(n, name) for n in self.noise], np.float32) for name in ("read", "shot"))
        out, shares = np.zeros((C, H, W), np.float32), np.zeros((N, H, W), np.float32)
        given = [np.ascontiguousarray(x, np.float32) for x in (self.frames, frames)]
        _merge_tiles(
            *given, frames is self.frames, agreement, np.square(read), shot, self.spectrum, basis, fade, out, shares
        )
        return out, shares


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
def _multiply(a: Any, b: Any, out: Any) -> None:
    """Multiply two matrices of a tile. Four products in one expression: each sum is written four times, not sixteen."""
    for y in range(MERGED_TILE):
        for x in range(MERGED_TILE):
            out[y, x] = a[y, 0] * b[0, x] + a[y, 1] * b[1, x] + a[y, 2] * b[2, x] + a[y, 3] * b[3, x]
        for k in range(4, MERGED_TILE, 4):
            for x in range(MERGED_TILE):
                out[y, x] += (
                    a[y, k] * b[k, x]
                    + a[y, k + 1] * b[k + 1, x]
                    + a[y, k + 2] * b[k + 2, x]
                    + a[y, k + 3] * b[k + 3, x]
                )


@compile_inlined
def _transform(tile: Any, basis: Any, across: Any, half: Any, out: Any) -> None:
    """Compute the cosine transform of a tile."""
    _multiply(basis, tile, half)
    _multiply(half, across, out)


@compile_inlined
def _cut(frame: Any, y0: int, x0: int, out: Any) -> None:
    """Cut a tile from a frame (H, W), whose edge is repeated."""
    H, W = frame.shape
    for y in range(MERGED_TILE):
        v = min(max(y0 + y, 0), H - 1)
        for x in range(MERGED_TILE):
            out[y, x] = frame[v, min(max(x0 + x, 0), W - 1)]


@compile_inlined
def _subtract(tile: Any, other: Any) -> None:
    """Subtract one tile from another, in its place."""
    for y in range(MERGED_TILE):
        for x in range(MERGED_TILE):
            other[y, x] = tile[y, x] - other[y, x]


@compile_inlined
def _accumulate(a: Any, b: Any, factor: Any, out: Any) -> None:
    """Add the products of a tile's entries, times a factor. Loops over few arrays become vector code."""
    for y in range(MERGED_TILE):
        for x in range(MERGED_TILE):
            out[y, x] += factor * a[y, x] * b[y, x]


@compile_with({"fast"})
def _merge_tiles(
    frames: Frames,
    inputs: Frames,
    same: bool,
    agreement: Agreement,
    read: npt.NDArray[np.float32],
    shot: npt.NDArray[np.float32],
    spectrum: Spectrum,
    basis: npt.NDArray[np.float32],
    fade: npt.NDArray[np.float32],
    out: Planes,
    shares: Agreement,
) -> None:
    """Merge tile by tile. frames decide on the weights, which inputs get. same: whether these are the same.
    read: variances (C,)."""
    N, C, H, W = frames.shape
    across = np.ascontiguousarray(basis.T)
    X, A = np.empty((MERGED_TILE, MERGED_TILE), np.float32), np.empty((MERGED_TILE, MERGED_TILE), np.float32)
    D, E, half, T, S = np.empty_like(X), np.empty_like(X), np.empty_like(X), np.empty_like(X), np.empty_like(X)
    sums, squares, V = np.empty_like(X), np.empty_like(X), np.empty_like(X)
    weights, share, one = np.empty((N, MERGED_TILE, MERGED_TILE), np.float32), np.empty(N, np.float32), np.float32(1)
    for r in range(agreement.shape[1]):
        for q in range(agreement.shape[2]):
            y0, x0 = MERGED_STEP * (r - 1), MERGED_STEP * (q - 1)
            share[:] = 0
            for c in range(C):
                _cut(frames[0, c], y0, x0, X)
                _transform(X, basis, across, half, T)
                mean = max(T[0, 0] / np.float32(MERGED_TILE), np.float32(0))
                level = read[c] + shot[c] * mean
                if same:
                    A[:], S[:] = X, T
                else:
                    _cut(inputs[0, c], y0, x0, A)
                    _transform(A, basis, across, half, S)
                sums[:], squares[:] = 0, 0
                for y in range(MERGED_TILE):
                    for x in range(MERGED_TILE):
                        V[y, x] = np.float32(TEMPORAL) * level * (spectrum[0, c, y, x] + spectrum[1, c, y, x])
                for z in range(1, N):
                    a = agreement[z, r, q] / np.float32(N)
                    if a <= 0:
                        weights[z] = 0
                        continue
                    _cut(frames[z, c], y0, x0, D)
                    _subtract(X, D)
                    _transform(D, basis, across, half, D)
                    if not same:
                        _cut(inputs[z, c], y0, x0, E)
                        _subtract(A, E)
                        _transform(E, basis, across, half, E)
                    w = weights[z]
                    for y in range(MERGED_TILE):
                        for x in range(MERGED_TILE):
                            w[y, x] = a * V[y, x] / (D[y, x] * D[y, x] + V[y, x])
                    _accumulate(w, w, one, squares)
                    _accumulate(w, D, -one, T)
                    _accumulate(w, D if same else E, -one, S)
                    for y in range(MERGED_TILE):
                        for x in range(MERGED_TILE):
                            sums[y, x] += w[y, x]
                for y in range(MERGED_TILE):
                    for x in range(MERGED_TILE):
                        own, power = one - sums[y, x], T[y, x] * T[y, x]
                        U = level * (own * own * spectrum[0, c, y, x] + squares[y, x] * spectrum[1, c, y, x])
                        V[y, x] = power / (power + np.float32(SPATIAL) * U + TINY)
                V[0, 0] = one
                weights[0] = one - sums
                for z in range(N):
                    w = weights[z]
                    for y in range(MERGED_TILE):
                        for x in range(MERGED_TILE):
                            share[z] += V[y, x] * w[y, x]
                for y in range(MERGED_TILE):
                    for x in range(MERGED_TILE):
                        S[y, x] *= V[y, x]
                _multiply(across, S, half)
                _multiply(half, basis, D)
                for y in range(max(0, -y0), min(MERGED_TILE, H - y0)):
                    for x in range(max(0, -x0), min(MERGED_TILE, W - x0)):
                        out[c, y0 + y, x0 + x] += fade[y] * fade[x] * D[y, x]
            for y in range(max(0, -y0), min(MERGED_TILE, H - y0)):
                for x in range(max(0, -x0), min(MERGED_TILE, W - x0)):
                    for z in range(N):
                        shares[z, y0 + y, x0 + x] += (
                            fade[y] * fade[x] * share[z] / np.float32(C * MERGED_TILE * MERGED_TILE)
                        )
