"""Specification of per-pixel kernels: sizes, rank, resolution and fusion of the taps that a network predicts."""

from __future__ import annotations

from dataclasses import dataclass

from klarsicht.ground.errors import UsageError

MAX_SIDE = 31


@dataclass(frozen=True)
class KernelSpec:
    """Layout of kernels in taps (multi-kernel prediction, arXiv 1902.05392; one full size: KPN, arXiv 1712.02327);
    UsageError for invalid sizes or upscale.

    Channels of one frame: separable, the columns of every size, then the rows of every size; full, the row-major
    entries of every size. Frames follow one another. sizes: odd kernel sides K, strictly rising, at most 31. separable:
    a kernel is the outer product a b^T of a column a and a row b; else its K x K entries are given. upscale: 2 when
    taps are at half the resolution of the frames, 1 when at full. averaged: the fused kernel is the mean over sizes
    (else their sum)."""

    sizes: tuple[int, ...] = (1, 3, 5, 7, 9)
    separable: bool = True
    upscale: int = 2
    averaged: bool = True

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        odd = all(K % 2 == 1 and 0 < K <= MAX_SIDE for K in self.sizes)
        if not (self.sizes and rising and odd):
            rule = f"sizes must be odd, between 1 and {MAX_SIDE}, strictly rising"
            raise UsageError("kernel sizes", got=self.sizes, rule=rule, remedy="Try (1, 3, 5, 7, 9).")
        if self.upscale not in (1, 2):
            rule = "taps stand at full (1) or half (2) resolution"
            raise UsageError("upscale", got=self.upscale, rule=rule, remedy="Try 2.")

    @property
    def side(self) -> int:
        return self.sizes[-1]

    @property
    def radius(self) -> int:
        return self.side // 2

    @property
    def gain(self) -> float:
        """Factor of the sum over sizes: 1/|S| or 1."""
        return 1 / len(self.sizes) if self.averaged else 1.0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length of each run of channels of one frame, in order."""
        return self.sizes * 2 if self.separable else tuple(K * K for K in self.sizes)

    @property
    def taps(self) -> int:
        """Number of channels of one frame, T: 2 sum K, or sum K^2."""
        return sum(self.lengths)

    @property
    def starts(self) -> tuple[int, ...]:
        """First channel of each run."""
        return tuple(sum(self.lengths[:j]) for j in range(len(self.lengths)))

    def coarse(self, extent: int) -> int:
        """Compute the side of the tap grid for a frame of the given side, rounded up."""
        return -(-extent // self.upscale)
