"""Statistics of kernels that explain a picture: share of each frame, effective number of averaged pixels, energy of
each size. Weights may be negative, so shares are of |weight|; those of a network's mean frame are attributed to the
frames that it averages. h and w are the sides of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.merging.filters import MeanWeights, NetworkWeights, PixelWeights
from klarsicht.burst.merging.frequency_filter import FrequencyWeights
from klarsicht.burst.merging.tiles import Tile, TileRecord
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

Numbers = npt.NDArray[np.float32]

MAP_STEP = 8  # pixels between points of a map; tiles begin at multiples of it


@dataclass(frozen=True, eq=False)
class KernelSamples:
    """Weights at G points. kernels: (G, N, K, K), of each frame, the mean frame last if there is one. sizes: (G, S),
    the part of each size in the energy sum w^2. mean_frame_weights: (G, n), of the frames in the mean frame; empty
    without one."""

    kernels: Numbers
    sizes: Numbers
    mean_frame_weights: Numbers

    @property
    def shares(self) -> Numbers:
        """Share of each frame in sum |w|, (G, n)."""
        size = np.abs(self.kernels).sum((2, 3))
        if self.mean_frame_weights.size:
            size = size[:, : self.mean_frame_weights.shape[1]] + size[:, -1:] * self.mean_frame_weights
        return size / np.maximum(size.sum(1, keepdims=True), 1e-12)

    @property
    def effective_pixels(self) -> Numbers:
        """Number of pixels whose mean has as little noise, (sum w)^2 / sum w^2, (G,)."""
        square = np.square(self.kernels).sum((2, 3))
        if self.mean_frame_weights.size:
            frames = self.kernels[:, : self.mean_frame_weights.shape[1]] + (
                self.kernels[:, -1:] * self.mean_frame_weights[:, :, None, None]
            )
            square = np.square(frames).sum((2, 3))
        total = self.kernels.sum((1, 2, 3))
        return np.square(total) / np.maximum(square.sum(1), 1e-12)

    @property
    def reach(self) -> Numbers:
        """Root mean square distance of |w| from the pixel, in pixels, (G,)."""
        K = self.kernels.shape[-1]
        r = np.arange(K) - K // 2
        size = np.abs(self.kernels).sum(1)
        spread = (size * (r[:, None] ** 2 + r**2)).sum((1, 2)) / np.maximum(size.sum((1, 2)), 1e-12)
        return np.sqrt(spread)


def sample_kernels(weights: PixelWeights, y: Sequence[int], x: Sequence[int]) -> KernelSamples:
    """Sample the weights at the points (y[g], x[g]) of their part."""
    if isinstance(weights, MeanWeights | FrequencyWeights):
        share = weights.share_of_frames[:, list(y), list(x)].T
        return KernelSamples(
            share[:, :, None, None], np.ones((len(share), 1), np.float32), np.zeros((0, 0), np.float32)
        )
    assert isinstance(weights, NetworkWeights)
    return _sample_network(weights, torch.tensor(list(y)), torch.tensor(list(x)))


def _sample_network(weights: NetworkWeights, y: Tensor, x: Tensor) -> KernelSamples:
    kernels, n = weights.kernels, len(weights.agreement)
    spec, valid = kernels.spec, kernels.valid[0] > 0
    taps = interpolate_taps(kernels.taps[0], y, x, spec.upscale)
    by_size = expand_kernels(taps.reshape(len(y), -1, spec.taps), spec)[:, :, valid.cpu()] / int(valid.sum())
    border = torch.from_numpy(weights.border)[y, x]
    by_size = by_size * border.reshape(-1, 1, 1, 1, 1)
    fused = by_size.sum(1)
    energy = (by_size * fused[:, None]).sum((2, 3, 4))
    shares = energy / energy.sum(1, keepdim=True).clamp_min(1e-12)
    back = np.zeros((0, 0), np.float32)
    if weights.network.preset.mean_frame:
        agreed = weights.agreement[:, y.numpy(), x.numpy()].T
        back = agreed / np.maximum(agreed.sum(1, keepdims=True), 1e-6)
    assert fused.shape[1] == n + bool(back.size)
    return KernelSamples(fused.numpy(), shares.numpy(), back)


def interpolate_taps(taps: Tensor, y: Tensor, x: Tensor, upscale: int) -> Tensor:
    """Interpolate taps (T, h, w) at pixels of the frames, (G, T), float32: bilinear, half-pixel centres, edges
    repeated."""
    (y0, fy), (x0, fx) = (_between(p, upscale) for p in (y, x))
    h, w = taps.shape[1:]
    corners = [
        taps[:, (y0 + i).clamp(0, h - 1), (x0 + j).clamp(0, w - 1)].float().cpu()
        * (fy if i else 1 - fy)
        * (fx if j else 1 - fx)
        for i in (0, 1)
        for j in (0, 1)
    ]
    return torch.stack(corners).sum(0).T


def _between(pixel: Tensor, upscale: int) -> tuple[Tensor, Tensor]:
    place = (pixel + 0.5) / upscale - 0.5
    return place.floor().long(), place - place.floor()


def expand_kernels(taps: Tensor, spec: KernelSpec) -> Tensor:
    """Expand taps (G, N, T) to the kernel of each size, centred in the largest, (G, S, N, K, K), gain included."""
    runs, S, K = torch.split(taps, list(spec.lengths), -1), len(spec.sizes), spec.side
    out = taps.new_zeros(len(taps), S, taps.shape[1], K, K)
    for s, k in enumerate(spec.sizes):
        inner = slice((K - k) // 2, (K + k) // 2)
        full = (
            runs[s].reshape(*runs[s].shape[:-1], k, k)
            if not spec.separable
            else runs[s][..., :, None] * runs[S + s][..., None, :]
        )
        out[:, s, :, inner, inner] = full * spec.gain
    return out


@dataclass(frozen=True, eq=False)
class MapWriter:
    """Observer that writes maps of every MAP_STEPth pixel, (1, n + 2 + S, h, w): shares, pixels, reach, sizes."""

    maps: FrameStore

    def __call__(self, tile: Tile, weighing: PixelWeights) -> TileRecord:
        rows = range(tile.core.y0, tile.core.y1, MAP_STEP)
        values = np.stack([self._row(tile, weighing, y) for y in rows], 1)
        top, left = tile.core.y0 // MAP_STEP, tile.core.x0 // MAP_STEP
        self.maps.write_window(0, Window(top, top + values.shape[1], left, left + values.shape[2]), values)
        return {}

    def _row(self, tile: Tile, weighing: PixelWeights, y: int) -> Numbers:
        """Compute one row of the maps, (n + 2 + S, w); a row at a time, as each point has N K^2 weights."""
        x = range(tile.core.x0 - tile.context.x0, tile.core.x1 - tile.context.x0, MAP_STEP)
        found = sample_kernels(weighing, [y - tile.context.y0] * len(x), list(x))
        parts = [found.shares, found.effective_pixels[:, None], found.reach[:, None], found.sizes]
        return np.concatenate(parts, 1).T.astype(np.float32)


@dataclass(frozen=True)
class KernelGrid:
    """Observer that keeps the kernels of a grid of about `count` points over a picture of a size."""

    size: tuple[int, int]
    count: int = 96

    def __call__(self, tile: Tile, weighing: PixelWeights) -> TileRecord:
        own = tile.core
        here = [(y, x) for y, x in self.points if own.y0 <= y < own.y1 and own.x0 <= x < own.x1]
        if not here:
            return {}
        found = sample_kernels(weighing, [y - tile.context.y0 for y, _ in here], [x - tile.context.x0 for _, x in here])
        rows = zip(here, found.kernels, found.shares, found.effective_pixels, strict=True)
        return {
            "kernels": [
                {
                    "y": y,
                    "x": x,
                    "k": k.round(4).tolist(),
                    "share": share.round(3).tolist(),
                    "averaged": round(float(a), 1),
                }
                for (y, x), k, share, a in rows
            ]
        }

    @property
    def points(self) -> list[tuple[int, int]]:
        H, W = self.size
        step = max(1.0, (H * W / self.count) ** 0.5)
        rows, columns = (max(1, round(side / step)) for side in (H, W))
        return [(int((i + 0.5) * H / rows), int((j + 0.5) * W / columns)) for i in range(rows) for j in range(columns)]
