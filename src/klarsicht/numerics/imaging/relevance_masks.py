"""Cut masks of an artifact out of relevance maps (n, G, G), normalised to shares of their positive relevance: where
maps of images that carry it exceed those of images without."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy import ndimage

from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.pictures.colour_maps import resize_bilinear

SMOOTH: Final = 1.0  # cells, standard deviation by which maps are smoothed before thresholding
PEAK_SHARE: Final = 0.5  # share of the largest excess of relevance above which a pixel is inside the mask


def smooth_shares(maps: Floats) -> Floats:
    """Normalise the positive relevance of maps (n, G, G) to shares, smoothed by a Gaussian."""
    positive = np.maximum(maps.astype(np.float64), 0)
    total = positive.sum((1, 2), keepdims=True)
    return np.asarray(ndimage.gaussian_filter(positive / np.where(total > 0, total, 1), (0, SMOOTH, SMOOTH)))


def relevance_excess(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Compute by how much the relevance of members exceeds the mean of the others, from maps (n, G, G): of each member
    (n, G, G), and the mean (G, G)."""
    apart = smooth_shares(members) - smooth_shares(others).mean(0)
    return apart, np.asarray(apart.mean(0))


def enlarge_masks(masks: Floats | Bools, shape: tuple[int, ...]) -> Any:
    """Enlarge masks or maps (n, h, w) to (n, H, W), each pixel by its nearest cell."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(shape, masks.shape[1:], strict=True))
    return masks[:, rows[:, None], columns]


def threshold_map(excess: Floats, shape: tuple[int, ...], share: float = PEAK_SHARE) -> Bools:
    """Threshold a map (G, G) at a share of its peak: mask (H, W), empty where the map has no peak."""
    wide = resize_bilinear(excess, shape)
    return np.asarray(wide > share * max(float(wide.max()), 1e-12))
