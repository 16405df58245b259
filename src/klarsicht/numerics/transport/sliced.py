# mypy: disable-error-code="no-untyped-call"
"""Sorted projections of points on lines. For equal weights and any matching, |x - y|^2 = 2 / A sum_a (u_a . (x - y))^2
over A >= 2 equally spaced angles; on each line sorting is the optimal matching, so the mean over lines is a lower
bound. Bonneel et al. (2015), JMIV 51:22-45."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from klarsicht.ground.arrays import Doubles


def directions(count: int, like: Tensor, turn: float = math.pi) -> Tensor:
    """Make unit vectors (count, 2) at equally spaced angles from 0 up to `turn`, exclusive."""
    angles = torch.arange(count, dtype=torch.float64) * (turn / count)
    return torch.stack((angles.cos(), angles.sin()), 1).to(like)


def project_sorted(points: Tensor, directions: Tensor) -> Tensor:
    """Project points (..., P, 2) on directions (A, 2) and sort on each: (..., A, P), ascending."""
    return torch.from_numpy(np.sort((directions @ points.mT).numpy(), -1))  # ten times faster than torch's sort


def average_quantiles(places: Tensor, quantiles: int) -> Tensor:
    """Average the quantile function of P equal weights over each of Q equal parts of [0, 1]: (..., Q)."""
    return places @ torch.from_numpy(quantile_means(places.shape[-1], quantiles)).to(places)


def quantile_means(P: int, q: int) -> Doubles:
    """Make the matrix (P, q) that averages a quantile function of P steps over q equal intervals; by Jensen's
    inequality lower bounds remain lower bounds."""
    start, low = np.arange(P)[:, None] / P, np.arange(q) / q
    overlap = np.minimum(start + 1 / P, low + 1 / q) - np.maximum(start, low)
    return np.asarray(q * np.clip(overlap, 0, None))
