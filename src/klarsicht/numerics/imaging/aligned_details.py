"""Measurement of how far images are aligned: the correlation of their details at the same places."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from klarsicht.ground.arrays import Floats

SMOOTHING = 1 / 16  # of the side, deviation of the Gaussian whose image is subtracted: what is left are details


def median_detail_correlation(images: Floats) -> float:
    """Compute the median, over pairs of images (n, H, W), of the correlation of their high-passed pixels at the same
    places: near 0 of photographs. The median overlooks an artifact of up to half of the images, which no more than a
    quarter of the pairs share."""
    if len(images) < 2:
        return 0.0
    x = np.asarray(images, np.float64)
    spread = SMOOTHING * min(x.shape[1:])
    flat = (x - gaussian_filter(x, (0, spread, spread))).reshape(len(x), -1)
    centred = flat - flat.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return float(np.median((unit @ unit.T)[np.triu_indices(len(x), 1)]))
