# mypy: disable-error-code="no-untyped-call"
"""Sorted projections of points on lines. For equal weights and any matching, |x - y|^2 = 2 / A sum_a (u_a . (x - y))^2
over A >= 2 equally spaced angles; on each line sorting is the optimal matching, so the mean over lines is a lower
bound. Bonneel et al. (2015), JMIV 51:22-45."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def directions(count: int, like: Tensor, turn: float = math.pi) -> Tensor:
    """Make unit vectors (count, 2) at equally spaced angles from 0 up to `turn`, exclusive."""
    angles = torch.arange(count, dtype=torch.float64) * (turn / count)
    return torch.stack((angles.cos(), angles.sin()), 1).to(like)


def project_sorted(points: Tensor, directions: Tensor) -> Tensor:
    """Project points (..., P, 2) on directions (A, 2) and sort on each: (..., A, P), ascending."""
    return torch.from_numpy(np.sort((directions @ points.mT).numpy(), -1))  # ten times faster than torch's sort


def average_quantiles(places: Tensor, quantiles: int) -> Tensor:
    """Average the quantile function of P equal weights over each of Q equal parts of [0, 1]: (..., Q); by Jensen's
    inequality lower bounds remain lower bounds."""
    P = places.shape[-1]
    cells, parts = torch.arange(P, dtype=torch.float64)[:, None] / P, torch.arange(quantiles) / quantiles
    overlap = (torch.minimum(cells + 1 / P, parts + 1 / quantiles) - torch.maximum(cells, parts)).clamp(min=0)
    return places @ (overlap * quantiles).to(places)
