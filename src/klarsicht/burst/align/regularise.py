"""What tiles say of a frame's motion, made steady: a camera moves a frame as a whole.

A tile's own shift is several times less sure than that of the whole frame, but it sees what a camera's turning does,
and things that move. So an affine field is fitted to all tiles, robustly, and a tile that is about where the field has
it is put there; one that surely moved by itself stays where it is.

Axes: B bursts, N frames, Y X tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

APART = 0.7  # pixels from the field at which a tile begins to be believed to move by itself
ROUNDS = 4  # of reweighting
FRAME, TURNING = 1e3, 1.0  # tiles that the whole frame's shift counts as, and that it counts as not turning


def steadied(found: Tensor, sureness: Tensor) -> Tensor:
    """found (B, N, Y, X, 2): pixels by which tiles differ from the shift of their frame. sureness (B, N, Y, X).

    found -> f + r s^2 / (1 + s^2) with s = |r|^2 / APART^2, r = found - f, and f the field that is affine in the tile's
    place, by least squares, reweighted by sureness / (1 + s)^2 (Geman and McClure 1987).
    """
    Y, X = found.shape[2:4]
    places = _places(Y, X, found.device)
    prior = torch.diag(torch.tensor([FRAME, TURNING, TURNING], device=found.device))
    d, sure = found.flatten(2, 3), sureness.flatten(2)
    field = torch.zeros_like(d)
    weight = sure
    for _ in range(ROUNDS):
        weighed = weight[..., None] * places
        normal = weighed.mT @ places + prior
        field = places @ torch.linalg.solve(normal, weighed.mT @ d)
        weight = sure / (1 + _apart(d - field)).square()
    s = _apart(d - field).square()[..., None]
    return (field + (d - field) * s / (1 + s)).reshape(found.shape)


def _places(Y: int, X: int, device: torch.device) -> Tensor:
    """(Y X, 3): 1, y, x of each tile, y and x from -1 to 1."""
    y, x = (torch.linspace(-1, 1, n, device=device) for n in (Y, X))
    return torch.stack([torch.ones(Y, X, device=device), y[:, None].expand(Y, X), x.expand(Y, X)], -1).flatten(0, 1)


def _apart(r: Tensor) -> Tensor:
    """|r|^2 in units of APART^2, (...,) of (..., 2)."""
    return r.square().sum(-1) / APART**2
