"""Operator that applies per-pixel kernels to a burst; the network, the tiles and the explanations share it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.pixel_kernels import load, reference
from klarsicht.numerics.pixel_kernels.spec import KernelSpec


class Filtered(NamedTuple):
    """Result of `apply_kernels`: Y_i (B, N, C, H, W), each frame by its own kernels, and their mean Y (B, C, H, W)."""

    per_frame: torch.Tensor
    merged: torch.Tensor


def apply_kernels(
    taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec, validity: torch.Tensor | None = None
) -> Filtered:
    """Compute Y_i = <k_i, V(X_i)> and Y = (1/N) sum_i Y_i (arXiv 1902.05392): correlation, zeros outside the image.

    float32 and bfloat16 on the CPU are compiled, with sums in float32; everything else runs in torch, in float32, or in
    float64 for float64. Gradients flow to all arguments. taps: (B, N T, h, w), h = ceil(H / upscale), w = ceil(W /
    upscale), channels as KernelSpec says and fastest last. frames: (B, N, C, H, W), linear; the C planes share a
    kernel. validity: (B, N), or what broadcasts to (B, N, 1, H, W), not negative: Y is the mean weighted by it. Raises
    UsageError: shapes that do not fit."""
    check(taps, frames, spec)
    each: torch.Tensor = PerPixel.apply(taps, frames, spec)  # type: ignore[no-untyped-call]
    return Filtered(each, merge(each, validity))


def merge(each: torch.Tensor, validity: torch.Tensor | None) -> torch.Tensor:
    """Average over frames, weighted by validity where given."""
    if validity is None:
        return each.mean(1)
    weight = validity.to(each.dtype).reshape(validity.shape + (1,) * (each.ndim - validity.ndim))
    tiny = torch.finfo(each.dtype).tiny
    return weighted_sum(each, weight) / weight.sum(1).clamp_min(tiny)


def weighted_sum(each: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute sum_i w_i Y_i, (B, ...), frame by frame, without a temporary of the size of all frames."""
    total = weight[:, 0] * each[:, 0]
    for i in range(1, each.shape[1]):
        total = torch.addcmul(total, weight[:, i], each[:, i])
    return total


def check(taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> None:
    """Raise UsageError unless shapes and devices of taps and frames fit."""
    if frames.ndim != 5 or taps.ndim != 4:
        rule = "taps are (B, N T, h, w), frames (B, N, C, H, W)"
        raise UsageError("shapes of taps and frames", got=(tuple(taps.shape), tuple(frames.shape)), rule=rule)
    B, N, _, H, W = frames.shape
    wanted = (B, N * spec.taps, spec.coarse(H), spec.coarse(W))
    if tuple(taps.shape) != wanted:
        raise UsageError("shape of taps", got=tuple(taps.shape), rule=f"these frames and sizes need {wanted}")
    if taps.device != frames.device:
        raise UsageError("devices", got=(str(taps.device), str(frames.device)), rule="taps and frames share one")


class PerPixel(torch.autograd.Function):
    """Autograd function of Y_i, with exact gradients."""

    @staticmethod
    def forward(ctx: Any, taps: torch.Tensor, frames: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
        """Compute Y_i by compiled code where it supports the tensors, else by torch."""
        ctx.save_for_backward(taps, frames)
        ctx.spec = spec
        ctx.path = load if load.supports(taps, frames) else reference
        each: torch.Tensor = ctx.path.apply(taps, frames, spec)
        return each

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        """Compute the gradients with respect to taps and frames."""
        taps, frames = ctx.saved_tensors
        return *ctx.path.gradients(taps, frames, ctx.spec, grad, ctx.needs_input_grad[:2]), None
