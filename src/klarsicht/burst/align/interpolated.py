"""Alignment of frames whose colours were interpolated from a mosaic, so that their noise is not white: behind Bayer as
the planes of their samples, behind X-Trans as means of 2 x 2 pixels, whose noise is nearly white."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from klarsicht.burst.align.alignment import Alignment, GlobalShifts, align
from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.align.warp_tiles import TILE_SIDE
from klarsicht.burst.data.bayer import sample_mosaic
from klarsicht.burst.data.burst import RGB_CHANNELS
from klarsicht.burst.data.cokriging import grey_variance, is_x_trans, white_variance


def align_by_colour_filter(frames: Tensor, read: Tensor, shot: Tensor, valid: Tensor, cell: str | None) -> Alignment:
    """Align frames (B, N, C, H, W) as `alignment.align` does; RGB frames behind a colour filter of that cell as
    interpolated ones. read, shot: (B,), of the noise as it is told; valid: (B, N)."""
    if cell is None or frames.shape[2] != RGB_CHANNELS:
        return align(frames, read, shot, valid)
    guide, factor = _halve(frames, cell)
    small = align(guide, read * factor**0.5, shot * factor, valid)
    return double_alignment(small, (frames.shape[-2], frames.shape[-1]))


def _halve(frames: Tensor, cell: str) -> tuple[Tensor, float]:
    """Return frames of half the resolution, their noise nearly white, and its variance over that which is told."""
    if not is_x_trans(cell):
        return sample_mosaic(frames, cell), 1 / white_variance(cell)
    means = avg_pool2d(frames.flatten(0, 1), 2)
    means = means.reshape(*frames.shape[:2], *means.shape[1:])
    return means, grey_variance(cell) / white_variance(cell) / 4


def double_alignment(small: Alignment, size: tuple[int, int]) -> Alignment:
    """Return the same alignment for frames of twice the resolution, of that size, see Placement.double_resolution."""
    placements = [
        _place(fine, agrees).double_resolution(size) for fine, agrees in zip(small.fine, small.agrees, strict=True)
    ]
    device = small.fine.device
    fine, shifts, agrees = (
        torch.from_numpy(np.stack([getattr(one, name) for one in placements])).to(device)
        for name in ("fine", "shifts", "agrees")
    )
    rows, columns = (torch.arange(n, device=device) // 2 for n in agrees.shape[-2:])
    whole = GlobalShifts(2 * small.whole.shifts, small.whole.confidence)
    sure = small.confidence[..., rows[:, None], columns]
    return Alignment(whole, fine, shifts, sure, agrees, Mesh(*size, TILE_SIDE))


def _place(fine: Tensor, agrees: Tensor) -> Placement:
    """Build the placement of one burst's shifts (N, Y, X, 2), without turns."""
    moved = fine.cpu().numpy()
    turns = np.zeros((*moved.shape, 2), np.float32)
    nowhere = np.zeros((len(moved), 2))
    return Placement(moved, np.rint(moved).astype(np.int64), agrees.cpu().numpy(), nowhere, turns)
