"""Robust regularisation of tile shifts by an affine motion field, because a camera moves a frame as a whole: a tile
near the field is set to it, and one that clearly moved by itself keeps its own shift."""

from __future__ import annotations

import torch
from torch import Tensor

OUTLIER_DISTANCE = 0.7  # pixels from the field, above which a tile counts as moving by itself
REWEIGHTINGS = 4  # of reweighting
FRAME_WEIGHT, NO_ROTATION_WEIGHT = 1e3, 1.0  # prior weight, in tiles, of a zero mean residual and of no rotation


def regularise_shifts(shifts: Tensor, confidence: Tensor) -> Tensor:
    """Shrink the shifts (B, N, Y, X, 2) of tiles, relative to their frame, towards a robust affine field f, by
    confidence (B, N, Y, X): f + r s^2 / (1 + s^2), s = |r|^2 / OUTLIER_DISTANCE^2, r = shifts - f, with f from least
    squares that are reweighted by confidence / (1 + s)^2 (Geman and McClure 1987)."""
    Y, X = shifts.shape[2:4]
    y, x = (torch.linspace(-1, 1, n, device=shifts.device) for n in (Y, X))
    ones = torch.ones(Y, X, device=shifts.device)
    places = torch.stack([ones, y[:, None].expand(Y, X), x.expand(Y, X)], -1).flatten(0, 1)
    prior = torch.diag(torch.tensor([FRAME_WEIGHT, NO_ROTATION_WEIGHT, NO_ROTATION_WEIGHT], device=shifts.device))
    d, sure = shifts.flatten(2, 3), confidence.flatten(2)
    field = torch.zeros_like(d)
    weight = sure
    for _ in range(REWEIGHTINGS):
        weighed = weight[..., None] * places
        normal = weighed.mT @ places + prior
        field = places @ torch.linalg.solve(normal, weighed.mT @ d)
        weight = sure / (1 + _scaled_distance(d - field)).square()
    s = _scaled_distance(d - field).square()[..., None]
    return (field + (d - field) * s / (1 + s)).reshape(shifts.shape)


def _scaled_distance(r: Tensor) -> Tensor:
    """Compute |r|^2 in units of OUTLIER_DISTANCE^2, for r (..., 2)."""
    return r.square().sum(-1) / OUTLIER_DISTANCE**2
