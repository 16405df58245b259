"""Reference implementation of per-pixel kernels in plain torch, by bands of rows, for any device and dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import interpolate, pad

from klarsicht.numerics.pixel_kernels.spec import KernelSpec

BUDGET = 1 << 24  # numbers in the upsampled taps of one band


def apply(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute Y_i = <k_i, V(X_i)>, (B, N, C, H, W); float32, or float64 where the taps are."""
    taps, frames = widen(taps), widen(frames)
    return torch.cat(
        [filter_rows(*cut_band(taps, frames, spec, y0, y1), spec) for y0, y1 in bands(taps, *frames.shape[-2:])], 3
    )


def gradients(
    taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, grad: torch.Tensor, wanted: tuple[bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Compute the gradients of taps and frames, recomputing each band under autograd; None where unwanted."""
    t, f = (widen(x.detach()).requires_grad_(need) for x, need in zip((taps, frames), wanted, strict=True))
    leaves = (t, f)
    sums = [torch.zeros_like(leaf) if need else None for leaf, need in zip(leaves, wanted, strict=True)]
    for y0, y1 in bands(taps, *frames.shape[-2:]):
        with torch.enable_grad():
            rows = filter_rows(*cut_band(t, f, spec, y0, y1), spec)
        needed = [leaf for leaf in leaves if leaf.requires_grad]
        parts = iter(torch.autograd.grad(rows, needed, grad[..., y0:y1, :].to(rows.dtype)))
        for total in sums:
            if total is not None:
                total += next(parts)
    d_taps, d_frames = (None if s is None else s.to(x.dtype) for s, x in zip(sums, (taps, frames), strict=True))
    return d_taps, d_frames


def widen(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def bands(taps: torch.Tensor, H: int, W: int) -> Iterator[tuple[int, int]]:
    """Yield bands of pixel rows whose upsampled taps stay within the budget."""
    rows = max(1, BUDGET // (taps.shape[0] * taps.shape[1] * W))
    return ((y, min(y + rows, H)) for y in range(0, H, rows))


def cut_band(
    taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, y0: int, y1: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Upsample the taps of rows y0 to y1 to (B, N, T, rows, W), and cut out the frames with a margin of R zeros."""
    (B, N, _, H, W), R = frames.shape, spec.radius
    around = frames[..., max(y0 - R, 0) : min(y1 + R, H), :]
    window = pad(around, (R, R, max(R - y0, 0), max(y1 + R - H, 0)))
    return upsample_taps(taps, spec, y0, y1, W).view(B, N, spec.taps, y1 - y0, W), window


def upsample_taps(taps: torch.Tensor, spec: KernelSpec, y0: int, y1: int, W: int) -> torch.Tensor:
    """Upsample rows y0 to y1 of the taps: bilinear, half-pixel centres, edges repeated, cropped to W."""
    if spec.upscale == 1:
        return taps[:, :, y0:y1]
    low, high = max(y0 // 2 - 1, 0), min(-(-y1 // 2) + 1, taps.shape[2])
    fine = interpolate(taps[:, :, low:high], scale_factor=2, mode="bilinear", align_corners=False)
    return fine[:, :, y0 - 2 * low : y1 - 2 * low, :W].contiguous()


def filter_rows(taps: torch.Tensor, window: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute sum_d k[d] X[p + d] for taps (B, N, T, rows, W) and a window (B, N, C, rows + 2R, W + 2R)."""
    rows, W, side = *taps.shape[-2:], spec.side
    out = torch.zeros_like(window[..., :rows, :W])
    for i in range(side):
        for j in range(side):
            out = out + fused_entry(taps, spec, i, j)[:, :, None] * window[..., i : i + rows, j : j + W]
    return out * spec.gain


def fused_entry(taps: torch.Tensor, spec: KernelSpec, i: int, j: int) -> torch.Tensor:
    """Compute sum_K pad(a_K b_K^T, K_max)[i, j] for every pixel; taps (.., T, rows, W), offsets from 0 to K_max - 1."""
    total = torch.zeros_like(taps[..., 0, :, :])
    for s, K in enumerate(spec.sizes):
        y, x = i - spec.radius + K // 2, j - spec.radius + K // 2
        if 0 <= y < K and 0 <= x < K:
            total = total + entry(taps, spec, s, y, x)
    return total


def entry(taps: torch.Tensor, spec: KernelSpec, s: int, y: int, x: int) -> torch.Tensor:
    """Compute k_K[y, x] of size number s: a_K[y] b_K[x], or the entry itself."""
    first = spec.starts[s]
    if not spec.separable:
        return taps[..., first + y * spec.sizes[s] + x, :, :]
    return taps[..., first + y, :, :] * taps[..., spec.starts[s + len(spec.sizes)] + x, :, :]
