"""Kernels at the border of a picture: the network sees the frames continued beyond it, where convolutions would read
zeros, and weights that reach beyond it are given to the pixels inside, where `apply_kernels` reads zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from klarsicht.burst.network.heads import Kernels
from klarsicht.burst.network.unet import WHOLE, Network, OptionalTensor, Part
from klarsicht.numerics.pixel_kernels.apply import apply_kernels

LARGEST = 4.0  # factor: of a flat kernel in a corner, a quarter lies inside


@torch.no_grad()
def predict_kernels(
    network: Network,
    frames: Tensor,
    read: Tensor,
    shot: Tensor,
    valid: OptionalTensor = None,
    agreement: OptionalTensor = None,
    part: Part = WHOLE,
) -> Kernels:
    """Predict the kernels of a part of the frames (B, N, C, H, W), see `Network.kernels`. Frames and agreement (B, N,
    H, W) are mirrored beyond each side that lies within the network's halo of the part: by zeros there, as in the
    network's convolutions, the outermost pixels come out noisier than the rest."""
    size, preset = frames.shape[-2:], network.preset
    ends = [p.indices(length) for p, length in zip(part, size, strict=True)]
    before = [preset.stride if first < preset.halo else 0 for first, _, _ in ends]
    after = [preset.stride if n - stop < preset.halo else 0 for (_, stop, _), n in zip(ends, size, strict=True)]
    rows, columns = (
        reflect_indices(n, first, last).to(frames.device) for n, first, last in zip(size, before, after, strict=True)
    )
    if agreement is not None:
        agreement = agreement[..., rows[:, None], columns]
    y, x = (slice(first + m, stop + m) for (first, stop, _), m in zip(ends, before, strict=True))
    return network.kernels(frames[..., rows[:, None], columns], read, shot, valid, agreement, (y, x))


def reflect_indices(length: int, before: int, after: int) -> Tensor:
    """Return the indices of `length` values, mirrored at the first and at the last one, as often as needed."""
    period = max(2 * (length - 1), 1)
    steps = torch.arange(-before, length + after) % period
    return torch.minimum(steps, period - steps) if length > 1 else torch.zeros_like(steps)


@torch.no_grad()
def border_factors(kernels: Kernels) -> Tensor:
    """Compute the factor (B, H, W) on each pixel that gives weights beyond the border to those inside, in proportion:
    the sum of all weights over the sum of those inside, within LARGEST; 1 where kernels lie inside.

    Without it the border is darker by the share of the weights that lie outside.
    """
    H, W = kernels.frames.shape[-2:]
    factors = kernels.frames.new_ones(len(kernels.frames), H, W)
    R, upscale = kernels.spec.radius, kernels.spec.upscale
    E = -(-R // upscale) * upscale
    for axis, side in ((-2, H), (-1, W)) if E else ():
        last = max(side - 2 * E, 0) // upscale * upscale
        for begin, length, kept in ((0, min(2 * E, side), slice(0, E)), (last, side - last, slice(E, None))):
            taps = kernels.taps.narrow(axis, begin // upscale, kernels.spec.coarse(length))
            strip = _factors_of_strip(kernels, taps, (length, W) if axis == -2 else (H, length), E)
            at = (..., kept, slice(None)) if axis == -2 else (..., kept)
            factors.narrow(axis, begin, length)[at] = strip[at]
    return factors


def _factors_of_strip(kernels: Kernels, taps: Tensor, size: tuple[int, int], margin: int) -> Tensor:
    """Compute the factors (B, h, w) of taps of a picture of that size."""
    (h, w), E, coarse = size, margin, margin // kernels.spec.upscale
    ones = kernels.frames.new_ones(*kernels.frames.shape[:2], 1, h + 2 * E, w + 2 * E)
    wide = pad(taps, (coarse, coarse, coarse, coarse), mode="replicate")
    every = apply_kernels(wide, ones, kernels.spec, kernels.valid).merged[:, 0, E : E + h, E : E + w]
    inside = apply_kernels(taps.contiguous(), ones[..., :h, :w].contiguous(), kernels.spec, kernels.valid).merged[:, 0]
    return torch.where(inside > 0, every / inside, 1.0).clamp(1 / LARGEST, LARGEST)
