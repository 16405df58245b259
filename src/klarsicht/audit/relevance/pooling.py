"""Maps made small without losing mass."""

from __future__ import annotations

import torch
from torch import Tensor


def pooling_matrix(n: int, g: int) -> Tensor:
    """A (g, n) float64, A_ij = share of pixel j that lies in cell i when n pixels are cut into g equal cells.

    Columns sum to one, so A R B^T has the mass of R.
    """
    cell, pixel = torch.arange(g, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    low, high = cell * n / g, (cell + 1) * n / g
    return (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)


def pooled(R: Tensor, side: int) -> Tensor:
    """R (B, C, H, W) summed over channels and pooled to (B, G, G) with G = min(side, H, W); float32."""
    flat = R.sum(1, dtype=torch.float64)
    g = min(side, *flat.shape[1:])
    A, B = (pooling_matrix(n, g).to(flat.device) for n in flat.shape[1:])
    return (A @ flat @ B.T).float()
