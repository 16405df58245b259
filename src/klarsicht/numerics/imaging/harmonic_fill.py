"""Fill a region of an image with the harmonic function of its surroundings: the smoothest values that join them."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from klarsicht.ground.arrays import Bools, Pixels

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def fill_harmonically(levels: Pixels, mask: Bools) -> Pixels:
    """Replace the pixels of a mask (H, W) in an image uint8 (H, W, C) by the solution of Laplace's equation: each
    becomes the mean of its four neighbours inside the image. An image that is all mask becomes its mean."""
    if not mask.any():
        return levels
    if mask.all():
        return np.broadcast_to(np.rint(levels.mean((0, 1))), levels.shape).astype(np.uint8)
    rows, columns = np.nonzero(mask)
    number = np.full(mask.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    diagonal, border_sums = np.zeros(len(rows)), np.zeros((len(rows), levels.shape[2]))
    pairs = []
    for down, right in STEPS:
        y, x = rows + down, columns + right
        inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
        diagonal += inside
        here, neighbour = np.flatnonzero(inside), number[y[inside], x[inside]]
        pairs.append((here[neighbour >= 0], neighbour[neighbour >= 0]))
        outside = here[neighbour < 0]
        border_sums[outside] += levels[y[outside], x[outside]]
    first, second = (np.concatenate([pair[side] for pair in pairs] + [np.arange(len(rows))]) for side in (0, 1))
    weights = np.concatenate([np.full(len(first) - len(rows), -1.0), diagonal])
    system = coo_matrix((weights, (first, second))).tocsc()
    out = levels.copy()
    out[rows, columns] = np.clip(np.rint(splu(system).solve(border_sums)), 0, 255)
    return out
