"""Measurement of how far images are aligned: the correlation of their details at the same places."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from klarsicht.ground.arrays import Bools, Doubles, Floats

SMOOTHING = 1 / 16  # of the side, deviation of the Gaussian whose image is subtracted: what is left are details


def median_detail_correlation(images: Floats) -> float:
    """Compute the median, over pairs of images (n, H, W), of the correlation of their high-passed pixels at the same
    places: near 0 of photographs. The median overlooks an artifact of up to half of the images, which no more than a
    quarter of the pairs share."""
    if len(images) < 2:
        return 0.0
    unit = unit_details(images).reshape(len(images), -1)
    return float(np.median((unit @ unit.T)[np.triu_indices(len(unit), 1)]))


def common_region(images: Floats, share: float) -> Bools:
    """Mark the pixels, bool (H, W), of the region in which images share most details at the same places.

    The energy of the details that are common to all is (n mean^2 - mean of squares) / (n - 1), pixel by pixel, of which
    independent details have none in the mean; it is smoothed. images: (n, H, W), grey, two or more. share: of the
    pixels in the region."""
    unit, n = unit_details(images), len(images)
    energy = (n * unit.mean(0) ** 2 - (unit**2).mean(0)) / (n - 1)
    smooth = gaussian_filter(energy, SMOOTHING * min(energy.shape))
    ranks = smooth.ravel().argsort(kind="stable").argsort(kind="stable")
    return np.asarray(ranks >= round((1 - share) * smooth.size)).reshape(smooth.shape)


def unit_details(images: Floats) -> Doubles:
    """High-pass images (n, H, W), and scale each to mean 0 and norm 1; one without details becomes 0."""
    x = np.asarray(images, np.float64)
    spread = SMOOTHING * min(x.shape[1:])
    flat = (x - gaussian_filter(x, (0, spread, spread))).reshape(len(x), -1)
    centred = flat - flat.mean(1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)).reshape(x.shape)
