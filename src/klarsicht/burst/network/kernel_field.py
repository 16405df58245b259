"""Predicted kernels of many sizes, fused to one for each pixel and frame, and applied to a burst."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from klarsicht.burst.data.burst import Burst
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.apply import Filtered, apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec


@dataclass(frozen=True, eq=False)
class KernelField:
    """One K x K kernel for every pixel and frame of a burst (arXiv 1902.05392), stored as its taps.

    taps: (N T, h, w), as a network predicts them, h and w those of the frames over spec.upscale, rounded up. size:
    height and width of the frames. Weights are taken as given: they may be negative and need not sum to 1. Raises
    UsageError for taps that do not fit.
    """

    taps: torch.Tensor
    spec: KernelSpec
    size: tuple[int, int]

    def __post_init__(self) -> None:
        h, w = (self.spec.coarse(side) for side in self.size)
        fits = self.taps.ndim == 3 and self.taps.shape[0] % self.spec.taps == 0 and self.taps.shape[1:] == (h, w)
        if not fits:
            rule = f"needs (N {self.spec.taps}, {h}, {w}) for frames of {self.size}"
            raise UsageError("taps of a kernel field", got=tuple(self.taps.shape), rule=rule)

    @property
    def frames(self) -> int:
        """Number of frames, N."""
        return self.taps.shape[0] // self.spec.taps

    def apply(self, burst: Burst) -> Filtered:
        """Filter each frame by its kernels, (N, C, H, W), and average the valid frames, (C, H, W)."""
        X, valid = (torch.from_numpy(x).to(self.taps.device)[None] for x in (burst.frames, burst.valid))
        each, merged = apply_kernels(self.taps[None], X, self.spec, valid)
        return Filtered(each[0], merged[0])

    def select_size(self, K: int) -> KernelField:
        """Select the unfused kernels of one size; this field is the mean of all such fields. Raises UsageError for a
        size that it does not have."""
        if K not in self.spec.sizes:
            raise UsageError("kernel size", got=K, rule=f"this field has {self.spec.sizes}")
        runs = [slice(start, start + n) for start, n in self._tap_ranges(self.spec.sizes.index(K))]
        rows = self.taps.reshape(self.frames, self.spec.taps, *self.taps.shape[1:])
        return replace(
            self, taps=torch.cat([rows[:, run] for run in runs], 1).flatten(0, 1), spec=replace(self.spec, sizes=(K,))
        )

    def apply_each_size(self, burst: Burst) -> dict[int, Filtered]:
        """Filter the burst by each size alone; the fused result is their mean (their sum where the spec says so)."""
        return {K: self.select_size(K).apply(burst) for K in self.spec.sizes}

    def kernel_at(self, y: int, x: int) -> torch.Tensor:
        """Compute the fused kernels of one pixel, (N, K, K), K the largest size: the weights that multiply its
        neighbourhoods. Raises UsageError for a pixel outside the frames."""
        H, W = self.size
        if not (0 <= y < H and 0 <= x < W):
            raise UsageError("pixel", got=(y, x), rule=f"frames are {H} x {W}")
        here = self._upsample_taps(y, y + 1)[:, :, :, x : x + 1]
        reach = range(self.spec.side)
        entries = [
            torch.stack([reference.fused_entry(here, self.spec, i, j)[:, 0, 0] for j in reach], -1) for i in reach
        ]
        return torch.stack(entries, -2) * self.spec.gain

    def energy(self) -> torch.Tensor:
        """Compute the energy of each of S sizes in the kernels of each frame, (N, S): the mean over pixels of sum (gain
        k_K)^2."""
        H, W = self.size
        total = torch.zeros(self.frames, len(self.spec.sizes), dtype=torch.float64)
        for y0, y1 in reference.bands(self.taps[None], H, W):
            squares = self._upsample_taps(y0, y1).square()
            sums = [
                self._squared_norm(squares, s).sum((-2, -1), dtype=torch.float64) for s in range(len(self.spec.sizes))
            ]
            total += torch.stack(sums, 1).cpu()
        return total * self.spec.gain**2 / (H * W)

    def _tap_ranges(self, s: int) -> list[tuple[int, int]]:
        """List (first channel, length) of the columns and the rows of size number s, or of its entries."""
        step = len(self.spec.sizes)
        return list(zip(self.spec.starts[s::step], self.spec.lengths[s::step], strict=True))

    def _squared_norm(self, squares: torch.Tensor, s: int) -> torch.Tensor:
        """Compute |a b^T|^2 = |a|^2 |b|^2, or |k|^2."""
        parts = [squares[:, start : start + n].sum(1) for start, n in self._tap_ranges(s)]
        return parts[0] * parts[1] if self.spec.separable else parts[0]

    def _upsample_taps(self, y0: int, y1: int) -> torch.Tensor:
        """Upsample rows y0 to y1 of the taps to full resolution, (N, T, rows, W)."""
        fine = reference.upsample_taps(reference.widen(self.taps)[None], self.spec, y0, y1, self.size[1])[0]
        return fine.reshape(self.frames, self.spec.taps, y1 - y0, self.size[1])
