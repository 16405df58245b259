"""Overlapping tiles with raised-cosine weights, and warping of frames by one shift per tile.

Tiles of side T stand every T / 2 pixels, the outermost half outside, so that every pixel lies in two rows and two
columns of tiles, whose weights add up to 1. Whole shifts copy pixels and keep noise white; at subpixel shifts, Keys'
cubic convolution (1981) reads 4 x 4 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from klarsicht.ground.errors import UsageError


@dataclass(frozen=True)
class Mesh:
    """A grid of overlapping tiles of an even side over frames of height x width."""

    height: int
    width: int
    side: int = 64

    def __post_init__(self) -> None:
        if self.side < 4 or self.side % 2:
            raise UsageError("side of a tile", got=self.side, rule="must be even, 4 or more", remedy="Try 64.")

    @property
    def step(self) -> int:
        """The distance between tiles, half a side."""
        return self.side // 2

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // self.step) + 1, -(-self.width // self.step) + 1

    def corners(self, axis: int) -> range:
        """Return the first pixel of each row (axis 0) or column (axis 1) of tiles, the first before the frame."""
        count = self.shape[axis]
        return range(-self.step, (count - 1) * self.step, self.step)

    def fade_weights(self, axis: int, which: int, device: torch.device) -> Tensor:
        """Compute for every pixel along an axis the weight of the earlier (0) or later (1) of its two tiles."""
        length = (self.height, self.width)[axis]
        p = torch.arange(length, device=device) % self.step
        later = 0.5 - 0.5 * torch.cos(torch.pi * (p + 0.5) / self.step)
        return later if which else 1 - later

    def layer(self, values: Tensor, below: int, right: int) -> Tensor:
        """Expand values (..., Y, X) of tiles to pixels (..., H, W): of the earlier (0) or later (1) row and column."""
        Y, X = self.shape
        cells = values[..., below : Y - 1 + below, right : X - 1 + right, None].unsqueeze(-3)
        full = cells.expand(*cells.shape[:-3], self.step, X - 1, self.step)
        return full.reshape(*values.shape[:-2], (Y - 1) * self.step, -1)[..., : self.height, : self.width]

    def layers(self, device: torch.device) -> Iterator[tuple[int, int, Tensor]]:
        """Yield the four layers of tiles, as (below, right) and their weights (H, W), which add up to 1."""
        for below, right in product((0, 1), repeat=2):
            yield below, right, self.fade_weights(0, below, device)[:, None] * self.fade_weights(1, right, device)

    def blend(self, values: Tensor, shifts: Tensor) -> Tensor:
        """Interpolate values (..., Y, X), one a tile, to a map (..., H, W) by the weights of the tiles; 0 stands for a
        tile's value where its whole shift (..., Y, X, 2) reads beyond the frame, whose border is repeated there."""
        rows = torch.arange(self.height, device=values.device)[:, None]
        columns = torch.arange(self.width, device=values.device)
        total = torch.zeros(*values.shape[:-2], self.height, self.width, device=values.device)
        for below, right, weight in self.layers(values.device):
            y = rows + self.layer(shifts[..., 0], below, right)
            x = columns + self.layer(shifts[..., 1], below, right)
            inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
            total.addcmul_(self.layer(values, below, right) * inside, weight)
        return total


def fetch_shifted(frames: Tensor, shifts: Tensor) -> Tensor:
    """Shift frames (B, N, H, W) by one whole shift (B, N, 2) each, out(p) = frame(p + d), with the border repeated."""
    rows, columns, _ = _source_indices(frames.shape, shifts)
    source = rows[..., :, None] * frames.shape[-1] + columns[..., None, :]
    return _gather_pixels(frames, source)


def inside_mask(size: torch.Size, shifts: Tensor) -> Tensor:
    """Return a mask (B, N, H, W): 1 where p + d is within the frame, else 0."""
    return _source_indices(size, shifts)[2]


def warp(frames: Tensor, shifts: Tensor, mesh: Mesh) -> Tensor:
    """Warp frames (B, N, C, H, W) by shifts (B, N, Y, X, 2) of tiles, blended; integers copy, floats interpolate."""
    layer = _warp_subpixel if shifts.is_floating_point() else _warp_whole_pixels
    out = torch.zeros_like(frames)
    for below, right, weight in mesh.layers(frames.device):
        for n in range(frames.shape[1]):  # one frame at a time, so that it stays in the cache
            one = slice(n, n + 1)
            out[:, one].addcmul_(layer(frames[:, one], shifts[:, one], mesh, below, right), weight)
    return out


def _warp_whole_pixels(frames: Tensor, shifts: Tensor, mesh: Mesh, below: int, right: int) -> Tensor:
    """Warp frames (B, N, C, H, W) by the integer shifts of one layer of tiles."""
    C, H, W = frames.shape[2:]
    rows, columns = torch.arange(H, device=frames.device)[:, None], torch.arange(W, device=frames.device)
    y = (rows + mesh.layer(shifts[..., 0], below, right)).clamp(0, H - 1)
    x = (columns + mesh.layer(shifts[..., 1], below, right)).clamp(0, W - 1)
    return _gather_pixels(frames, (y * W + x)[:, :, None].expand(-1, -1, C, -1, -1))


def _warp_subpixel(frames: Tensor, shifts: Tensor, mesh: Mesh, below: int, right: int) -> Tensor:
    """Warp frames (B, N, C, H, W) by one layer of tiles, cell by cell (b n c y x i j), first down, then across."""
    B, N, C, H, W = frames.shape
    (Y, X), step = mesh.shape, mesh.step
    d = shifts[:, :, below : Y - 1 + below, right : X - 1 + right]
    first = d.floor().long()
    taps = cubic_taps(d - first)[:, :, None, ..., None, None]
    along = torch.arange(-1, step + 2, device=frames.device)
    rows, columns = (torch.arange(n - 1, device=frames.device)[:, None] * step + along for n in (Y, X))
    y = (rows[:, None] + first[..., :1]).clamp(0, H - 1)
    x = (columns + first[..., 1:]).clamp(0, W - 1)
    source = (y[..., :, None] * W + x[..., None, :]).flatten(2)
    cells = frames.flatten(-2).gather(-1, source[:, :, None].expand(-1, -1, C, -1))
    cells = cells.reshape(B, N, C, Y - 1, X - 1, step + 3, step + 3)
    down, across = taps[..., 0, 0, :, :] * cells[..., :step, :], torch.zeros_like(cells[..., :step, :step])
    for k in range(1, 4):
        down.addcmul_(taps[..., 0, k, :, :], cells[..., k : k + step, :])
    for k in range(4):
        across.addcmul_(taps[..., 1, k, :, :], down[..., k : k + step])
    return across.transpose(-3, -2).reshape(B, N, C, (Y - 1) * step, (X - 1) * step)[..., :H, :W]


def cubic_taps(t: Tensor) -> Tensor:
    """Compute the weights (..., 4) of the pixels -1, 0, 1, 2 at t in [0, 1) after pixel 0 (Keys 1981, a = -1/2)."""
    return torch.stack(
        (
            ((-t + 2) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((-3 * t + 4) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ),
        -1,
    )


def _gather_pixels(frames: Tensor, source: Tensor) -> Tensor:
    """Gather frames (..., H, W) at flat row-major indices (..., H, W)."""
    return frames.flatten(-2).gather(-1, source.flatten(-2)).reshape(frames.shape)


def _source_indices(size: torch.Size, shifts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows (B, N, H) and columns (B, N, W) to read, clamped, and the mask (B, N, H, W) of those inside."""
    H, W = size[-2:]
    rows = torch.arange(H, device=shifts.device) + shifts[..., :1]
    columns = torch.arange(W, device=shifts.device) + shifts[..., 1:]
    there = ((rows >= 0) & (rows < H))[..., :, None] & ((columns >= 0) & (columns < W))[..., None, :]
    return rows.clamp(0, H - 1), columns.clamp(0, W - 1), there.float()
