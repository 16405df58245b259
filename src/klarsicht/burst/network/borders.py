"""Correction at the border of a picture, where kernels reach beyond it and `apply_kernels` reads zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from klarsicht.burst.network.heads import Kernels
from klarsicht.numerics.pixel_kernels.apply import apply_kernels

LARGEST = 4.0  # factor: of a flat kernel in a corner, a quarter lies inside


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
