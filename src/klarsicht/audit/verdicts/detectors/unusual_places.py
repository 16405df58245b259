"""Find in each image the places whose colours and details a group of images has more of than others of its class.

Every pixel of the shrunk images is described by its brightness and colours: their local mean and deviation, and how far
they lie from the median of its image. The discriminant is fitted on one part of the images and applied to the other
part, so that what one image alone shows counts for nothing. No network is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels

SHRUNK_TO: Final = 56  # pixels of the shorter side to which images are shrunk at most
PLACES_SIGMA: Final = 1 / 28  # of the shorter side, of the Gaussian that means and deviations are taken with
RIDGE_OF_PLACES: Final = 0.1  # of each variance, added to it
USUAL: Final = 0.98  # share of the places of other images that score less than a place of a region
MOST_OF_IMAGE: Final = 0.35  # of an image, its largest region
COVARIANCE_IMAGES: Final = 100  # other images that the covariance and USUAL are taken from
COVARIANCE_STEP: Final = 4  # every fourth row and column of these
BRIGHTEST: Final = 255.0


@dataclass(frozen=True)
class UnusualPlaces:
    """Discriminant of the places of a group. weights: (d,), of the values that describe a place. edge: score above
    which a place belongs to a region."""

    weights: Doubles
    edge: float

    @classmethod
    def of(cls, own: Floats, others: Floats) -> UnusualPlaces:
        """Fit the discriminant between described images of a group (m, d, h, w) and others of its class (k, d, h, w),
        by the difference of their means and the covariance of places of the others."""
        some = others[:COVARIANCE_IMAGES]
        places = np.moveaxis(some[:, :, ::COVARIANCE_STEP, ::COVARIANCE_STEP], 1, -1).reshape(-1, some.shape[1])
        covariance = np.atleast_2d(np.cov(places.T.astype(np.float64)))
        covariance += np.diag(RIDGE_OF_PLACES * np.diag(covariance) + np.finfo(np.float32).eps)
        apart = own.mean((0, 2, 3), dtype=np.float64) - others.mean((0, 2, 3), dtype=np.float64)
        weights = np.linalg.solve(covariance, apart)
        return cls(weights, float(np.quantile(score_places(some, weights), USUAL)))

    def masks(self, values: Floats) -> Bools:
        """Return the region of each image that values (n, d, h, w) describe: bool (n, h, w), empty where no place is
        unusual."""
        regions = []
        for scores in score_places(values, self.weights):
            region = scores > max(self.edge, float(np.quantile(scores, 1 - MOST_OF_IMAGE)))
            region = np.pad(binary_opening(region), 2)
            regions.append(binary_closing(region, iterations=2)[2:-2, 2:-2])
        return np.array(regions, bool).reshape(len(values), *values.shape[2:])


def score_places(values: Floats, weights: Doubles) -> Doubles:
    """Compute the score of every place of images that values (n, d, h, w) describe: (n, h, w)."""
    return np.asarray(np.einsum("ndhw,d->nhw", values, weights, optimize=True))


def describe_places(levels: Pixels) -> Floats:
    """Describe every place of images uint8 (n, H, W, C), shrunk to SHRUNK_TO: float32 (n, d, h, w)."""
    small = shrink_levels(levels, SHRUNK_TO) / BRIGHTEST
    light = small.mean(-1)
    planes = [light]
    if small.shape[-1] == 3:
        planes += [small[..., 0] - small[..., 1], small[..., 2] - (small[..., 0] + small[..., 1]) / 2]
    x = np.stack(planes, 1)
    blur = PLACES_SIGMA * min(x.shape[2:])
    mean = gaussian_filter(x, (0, 0, blur, blur))
    deviation = np.sqrt(np.maximum(gaussian_filter(x**2, (0, 0, blur, blur)) - mean**2, 0))
    far = np.abs(x - np.median(x, (2, 3), keepdims=True))
    return np.concatenate([x, mean, deviation, far, far**2], 1).astype(np.float32)
