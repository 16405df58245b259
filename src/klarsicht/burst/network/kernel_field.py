"""KernelField: kernels of many sizes, fused to one for each pixel and frame, and applied to a burst."""

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
    """One K x K kernel for every pixel and frame of a burst (arXiv 1902.05392), kept as the taps it is made of.

    taps: (N T, h, w), as a network predicts them, h and w those of the frames over spec.upscale, rounded up.
    size: height and width of the frames. Weights are taken as given: they may be negative and need not sum to 1.
    Raises UsageError for taps that do not fit.
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
        """N."""
        return self.taps.shape[0] // self.spec.taps

    def filtered(self, burst: Burst) -> Filtered:
        """Each frame through its kernels, (N, C, H, W), and their mean over valid frames, (C, H, W)."""
        X, valid = (torch.from_numpy(x).to(self.taps.device)[None] for x in (burst.frames, burst.valid))
        each, merged = apply_kernels(self.taps[None], X, self.spec, valid)
        return Filtered(each[0], merged[0])

    def only(self, K: int) -> KernelField:
        """The kernels of one size, unfused: the mean of all such fields is this one."""
        if K not in self.spec.sizes:
            raise UsageError("kernel size", got=K, rule=f"this field has {self.spec.sizes}")
        runs = [slice(start, start + n) for start, n in self._runs(self.spec.sizes.index(K))]
        rows = self.taps.reshape(self.frames, self.spec.taps, *self.taps.shape[1:])
        return replace(
            self, taps=torch.cat([rows[:, run] for run in runs], 1).flatten(0, 1), spec=replace(self.spec, sizes=(K,))
        )

    def separately(self, burst: Burst) -> dict[int, Filtered]:
        """The burst filtered by each size alone; fusion is their mean (their sum where the spec says so)."""
        return {K: self.only(K).filtered(burst) for K in self.spec.sizes}

    def kernel_at(self, y: int, x: int) -> torch.Tensor:
        """The fused kernels of one pixel, (N, K_max, K_max): the weights that its neighbourhoods are multiplied by."""
        H, W = self.size
        if not (0 <= y < H and 0 <= x < W):
            raise UsageError("pixel", got=(y, x), rule=f"frames are {H} x {W}")
        here = self._fine(y, y + 1)[:, :, :, x : x + 1]
        reach = range(self.spec.side)
        entries = [torch.stack([reference.fused(here, self.spec, i, j)[:, 0, 0] for j in reach], -1) for i in reach]
        return torch.stack(entries, -2) * self.spec.gain

    def energy(self) -> torch.Tensor:
        """(N, |S|): mean over pixels of sum (gain k_K)^2, what each size brings to the kernels of each frame."""
        H, W = self.size
        total = torch.zeros(self.frames, len(self.spec.sizes), dtype=torch.float64)
        for y0, y1 in reference.bands(self.taps[None], H, W):
            squares = self._fine(y0, y1).square()
            sums = [self._norm(squares, s).sum((-2, -1), dtype=torch.float64) for s in range(len(self.spec.sizes))]
            total += torch.stack(sums, 1).cpu()
        return total * self.spec.gain**2 / (H * W)

    def _runs(self, s: int) -> list[tuple[int, int]]:
        """(first channel, length) of the columns and the rows of size number s, or of its entries."""
        step = len(self.spec.sizes)
        return list(zip(self.spec.starts[s::step], self.spec.lengths[s::step], strict=True))

    def _norm(self, squares: torch.Tensor, s: int) -> torch.Tensor:
        """|a b^T|^2 = |a|^2 |b|^2, or |k|^2."""
        parts = [squares[:, start : start + n].sum(1) for start, n in self._runs(s)]
        return parts[0] * parts[1] if self.spec.separable else parts[0]

    def _fine(self, y0: int, y1: int) -> torch.Tensor:
        """Rows y0 to y1 of the taps at full resolution, (N, T, rows, W)."""
        fine = reference.upsampled(reference.widened(self.taps)[None], self.spec, y0, y1, self.size[1])[0]
        return fine.reshape(self.frames, self.spec.taps, y1 - y0, self.size[1])
