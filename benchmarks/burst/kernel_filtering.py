"""Cost of filtering planes by kernels of several sizes: fused to one kernel for each pixel, or size by size.

    python benchmarks/burst/kernel_filtering.py [--sizes 1 3 5 7 9]

Multiply-adds of a pixel and frame by formula, without the upsampling of taps, and processor seconds a megapixel and
frame of the whole operator, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

CHANNELS = (1, 2, 3, 4)
SIDE, FRAMES, REPEATS = 512, 2, 3


def multiply_adds(spec: KernelSpec, channels: int, *, fused: bool) -> int:
    """Multiply-adds per pixel and frame to filter `channels` planes by separable kernels.

    Fused: sum K^2 to multiply out and add the kernels, K_max^2 per plane to apply. Separate: each plane is filtered by
    each size as a row sum inside a column sum, K^2 + K.
    """
    if fused:
        return sum(K * K for K in spec.sizes) + channels * spec.side**2
    return channels * sum(K * K + K for K in spec.sizes)


def seconds(spec: KernelSpec, channels: int, *, fused: bool) -> float:
    """Processor seconds a megapixel and frame, the least of some runs."""
    frames = torch.zeros(1, FRAMES, channels, SIDE, SIDE)
    parts = [spec] if fused else [KernelSpec((K,), averaged=spec.averaged) for K in spec.sizes]
    taps = [torch.zeros(1, FRAMES * part.taps, *[part.coarse(SIDE)] * 2) for part in parts]
    least = least_seconds(lambda: [apply_kernels(t, frames, part) for t, part in zip(taps, parts, strict=True)])
    return least / (FRAMES * SIDE**2) * 1e6


def least_seconds(work: Callable[[], object]) -> float:
    """Processor seconds, the least of REPEATS after one run that compiles."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 3, 5, 7, 9])
    spec = KernelSpec(tuple(parser.parse_args().sizes))
    torch.set_num_threads(1)
    print("| planes | multiply-adds, fused | separate | s a megapixel, fused | separate |\n|---|---|---|---|---|")
    for C in CHANNELS:
        counts = [str(multiply_adds(spec, C, fused=fused)) for fused in (True, False)]
        print(
            " | ".join([f"| {C}", *counts, *(f"{seconds(spec, C, fused=fused):.3f}" for fused in (True, False))]), "|"
        )


if __name__ == "__main__":
    main()
