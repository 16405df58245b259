"""Calls of the compiled loops of `sweep` on torch tensors: units of work, threads, and conversion of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch

from klarsicht.numerics.compiled.jit import run_parallel
from klarsicht.numerics.pixel_kernels import rows, sweep
from klarsicht.numerics.pixel_kernels.codegen import Plan
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

BAND = 64  # fewest rows of taps in a unit: each unit reads R rows of frames beyond its own
MAX_PLANES = 4  # most planes that share the registers of a kernel
BITS = {torch.float32: np.uint32, torch.bfloat16: np.uint16}
SIGNED = {torch.float32: np.int32, torch.bfloat16: np.int16}


def supports(taps: torch.Tensor, frames: torch.Tensor) -> bool:
    """Whether the compiled code supports these tensors: on the CPU, float32 or bfloat16."""
    on_cpu = taps.device.type == frames.device.type == "cpu"
    return on_cpu and taps.dtype in BITS and frames.dtype in BITS


def apply(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute Y_i, (B, N, C, H, W) in float32: each frame filtered by its own kernels."""
    parts = [filter_planes(taps, group, spec) for group in plane_groups(frames)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def gradients(
    taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, grad: torch.Tensor, wanted: tuple[bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Compute the gradients of sum_i <G_i, Y_i> with respect to taps and frames, in their dtypes; None where
    unwanted."""
    pairs = list(zip(plane_groups(frames), plane_groups(grad.float()), strict=True))
    d_taps = sum_parts([tap_gradient(taps, X, spec, G) for X, G in pairs]) if wanted[0] else None
    d_frames = torch.cat([frame_gradient(taps, X, spec, G) for X, G in pairs], 2) if wanted[1] else None
    return d_taps, d_frames


def plane_groups(frames: torch.Tensor) -> list[torch.Tensor]:
    return [frames[:, :, c : c + MAX_PLANES] for c in range(0, frames.shape[2], MAX_PLANES)]


def sum_parts(parts: list[torch.Tensor]) -> torch.Tensor:
    """Sum tensors in float32 and round once."""
    return parts[0] if len(parts) == 1 else sum(p.float() for p in parts).to(parts[0].dtype)  # type: ignore[union-attr]


def filter_planes(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute Y_i of at most four planes."""
    y = np.empty(frames.shape, np.float32)  # numpy uses huge pages where torch does not
    t, f, plan = channels_last_bits(taps), bits(frames), Plan(spec, frames.shape[2])

    def unit(b: int, y0: int, y1: int) -> None:
        q0 = y0 - (spec.upscale - 1) * (y0 == 0)  # the seam above the first row of taps has only one row of pixels
        sweep.filter_band(plan, spec.upscale, t, f, y, b, q0, y1, make_scratch(spec, frames))

    run_units(unit, bands(t.shape))
    return torch.from_numpy(y)


def tap_gradient(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, grad: torch.Tensor) -> torch.Tensor:
    t, f, g, plan = channels_last_bits(taps), bits(frames), bits(grad), Plan(spec, frames.shape[2])
    d = np.empty(t.shape, t.dtype)

    def unit(b: int, y0: int, y1: int) -> None:
        sweep.differentiate_band(plan, spec.upscale, t, f, g, d, b, y0, y1, make_scratch(spec, frames, t.shape[1]))

    run_units(unit, bands(t.shape))
    return torch.from_numpy(d.view(SIGNED[taps.dtype])).view(taps.dtype).permute(0, 3, 1, 2)


def frame_gradient(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, grad: torch.Tensor) -> torch.Tensor:
    B, N, C, H, W = frames.shape
    R, t, g = spec.radius, channels_last_bits(taps), bits(grad)
    out = torch.zeros(B, N, C, H + 2 * R, W + 2 * R)

    def unit(b: int, i: int) -> None:
        one = rows.scratch(spec, 1, C, 0)
        sweep.scatter_frame(Plan(spec, C), spec.upscale, t, g, out.numpy(), b, i, one)

    run_units(unit, list(product(range(B), range(N))))
    return out[..., R : R + H, R : R + W].to(frames.dtype).contiguous()


def bits(x: torch.Tensor) -> Any:
    """View a contiguous copy of a tensor as the bits of its numbers."""
    signed = torch.int32 if x.dtype == torch.float32 else torch.int16
    return x.detach().contiguous().view(signed).numpy().view(BITS[x.dtype])


def channels_last_bits(taps: torch.Tensor) -> Any:
    """View taps as bits with channels last; copies where the memory layout differs."""
    return bits(taps.permute(0, 2, 3, 1))


def make_scratch(spec: KernelSpec, frames: torch.Tensor, height: int = 0) -> rows.Scratch:
    return rows.scratch(spec, frames.shape[1], frames.shape[2], height)


def bands(shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """List units (burst, first row, last row) of taps: whole bursts, divided where there are more threads."""
    (B, h, *_), threads = shape, torch.get_num_threads()
    count = 1 if threads == 1 else max(1, min(h // BAND, -(-4 * threads // B)))
    edges = np.linspace(0, h, count + 1).astype(int).tolist()
    return [(b, y0, y1) for b in range(B) for y0, y1 in pairwise(edges)]


def run_units(run: Callable[..., None], units: Sequence[tuple[int, ...]]) -> None:
    """Run units of work in as many threads as torch has; the compiled code releases the GIL."""

    def job(first: int, last: int) -> None:
        for unit in units[first:last]:
            run(*unit)

    run_parallel(job, len(units), torch.get_num_threads())
