"""Sum-conserving pooling of relevance maps."""

from __future__ import annotations

import torch
from torch import Tensor

from klarsicht.ground.machine.devices import widest_float


def pooling_matrix(n: int, g: int) -> Tensor:
    """Compute the pooling matrix A, float64 (g, n): A_ij is the share of pixel j in cell i of g equal cells. Columns
    sum to one, so A R B^T has the sum of R."""
    cell, pixel = torch.arange(g, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    low, high = cell * n / g, (cell + 1) * n / g
    return (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)


def pool_relevance(R: Tensor, side: int) -> Tensor:
    """Sum R (B, C, H, W) over channels and pool it to float32 (B, G, G) with G = min(side, H, W); that of volumes
    (B, C, D, H, W) to (B, G, G, G)."""
    flat = R.sum(1, dtype=widest_float(R.device))
    g = min(side, *flat.shape[1:])
    *depth, A, B = (pooling_matrix(n, g).to(flat.dtype).to(flat.device) for n in flat.shape[1:])
    squares = A @ flat @ B.T
    return (torch.einsum("gd,bdhw->bghw", depth[0], squares) if depth else squares).float()
