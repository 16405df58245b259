"""Fit a fixed pattern over the whole image: gains of rows, of columns or of pixels, the same in all carriers.

Logarithms turn a gain into a sum, so that the mean difference of carriers and other images is the pattern and noise of
known covariance: that of the images' own content. The prior of the pattern is independent normal gains, of the variance
that maximises the likelihood (empirical Bayes), and its posterior mean is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, dctn, idct, idctn
from sklearn.covariance import ledoit_wolf

from klarsicht.ground.arrays import Doubles, Floats, Pixels

DARK: Final = 8.0  # grey levels that are added before the logarithm: below, noise and rounding are all there is
PRIOR_VARIANCES: Final = np.concatenate([[0.0], np.geomspace(1e-5, 1, 60)])  # of log gains, that are compared
FLAT_VARIANCE: Final = 1e-9  # the least of any mean difference
AXES: Final = {"rows": 2, "columns": 1}  # of images (n, H, W, C), over which their sites are averaged


@dataclass(frozen=True)
class FixedPattern:
    """Logarithms of gains of pixel values, the same in every image, broadcastable to (H, W, C); a `PixelChange`."""

    log_gain: NDArray[np.float32]

    @property
    def is_identity(self) -> bool:
        return not self.log_gain.any()

    def apply(self, x: Floats, _: np.random.Generator) -> Floats:
        return np.asarray((x + DARK) * np.exp(self.log_gain) - DARK)

    def __str__(self) -> str:
        of = "rows" if self.log_gain.shape[1] == 1 else "columns" if self.log_gain.shape[0] == 1 else "pixels"
        low, high = np.exp(self.log_gain.min()), np.exp(self.log_gain.max())
        return f"gains of the {of}, {low:.2f} to {high:.2f}"


def log_levels(images: Pixels) -> NDArray[np.float32]:
    """Compute logarithms of pixel values (n, H, W, C), their channels transformed to the mean and to differences."""
    return np.asarray(dct(np.log(images.astype(np.float32) + np.float32(DARK)), axis=-1, norm="ortho"))


def log_profiles(sites: str, images: Pixels) -> Doubles:
    """Compute mean log levels of the rows or columns of images (n, H, W, C): (n, sites, C)."""
    return np.stack([log_levels(image[None])[0].mean(AXES[sites] - 1, dtype=np.float64) for image in images])


def log_waves(images: Pixels) -> NDArray[np.float32]:
    """Compute the cosine transform of log levels over rows and columns of images (n, H, W, C)."""
    return np.stack([dctn(log_levels(image[None])[0], axes=(0, 1), norm="ortho") for image in images])


def fit_profile(sites: str, carriers: Pixels, others: Pixels) -> FixedPattern:
    """Fit gains of the rows or of the columns of carriers (m, H, W, C) against others (k, H, W, C)."""
    own, other = (log_profiles(sites, group) for group in (carriers, others))
    count = 1 / (1 / len(own) + 1 / len(other))
    planes = []
    for plane in range(own.shape[-1]):
        a, b = own[..., plane], other[..., plane]
        covariance = ledoit_wolf(np.concatenate([a - a.mean(0), b - b.mean(0)]))[0] / count
        variances, vectors = np.linalg.eigh(covariance)
        difference = a.mean(0) - b.mean(0)
        found = np.asarray(vectors @ shrink_to_prior(vectors.T @ difference, variances), np.float64)
        if plane == 0 and found.any():
            found = settle_level(found, float(difference.mean()), float(covariance.mean()))
        planes.append(found)
    gains = idct(np.stack(planes, -1), axis=-1, norm="ortho")
    return FixedPattern(np.expand_dims(gains, AXES[sites] - 1).astype(np.float32))


def fit_pixel_gains(carriers: Pixels, others: Pixels) -> FixedPattern:
    """Fit gains of the pixels of carriers (m, H, W, C) against others (k, H, W, C). Cosine waves are assumed to vary
    independently between images, as those of natural images nearly do."""
    own, other = log_waves(carriers), log_waves(others)
    squares = ((own - own.mean(0)) ** 2).sum(0) + ((other - other.mean(0)) ** 2).sum(0)
    variances = squares / (len(own) + len(other) - 2) * (1 / len(own) + 1 / len(other))
    difference = own.mean(0) - other.mean(0)
    planes = [shrink_to_prior(difference[..., c], variances[..., c]) for c in range(own.shape[-1])]
    pattern = idctn(np.stack(planes, -1), axes=(0, 1), norm="ortho")
    return FixedPattern(idct(pattern, axis=-1, norm="ortho").astype(np.float32))


def shrink_to_prior(difference: Floats, variances: Floats) -> Doubles:
    """Compute the posterior mean of independent values from differences with known variances, of one shape. The prior
    is normal, of mean 0 and of the variance of PRIOR_VARIANCES that maximises the likelihood."""
    d, v = np.asarray(difference, np.float64), np.maximum(variances, FLAT_VARIANCE)
    likelihood = [-(np.log(prior + v) + d**2 / (prior + v)).sum() for prior in PRIOR_VARIANCES]
    prior = PRIOR_VARIANCES[int(np.argmax(likelihood))]
    return np.asarray(prior / (prior + v) * d)


def settle_level(pattern: Doubles, level: float, variance: float) -> Doubles:
    """Shift a profile (n,), whose mean is not known, so that one of its two levels is 0: the one of which more sites
    are, unless the mean difference of carriers and others, of this level and variance, says otherwise."""
    above = pattern >= (pattern.max() + pattern.min()) / 2
    shares = {float(pattern[side].mean()): float(side.mean()) for side in (above, ~above) if side.any()}
    v = max(variance, FLAT_VARIANCE)
    cost = {at: (level - (pattern.mean() - at)) ** 2 / v - 2 * np.log(share) for at, share in shares.items()}
    return np.asarray(pattern - min(cost, key=cost.__getitem__))


fit_row_gains, fit_column_gains = (partial(fit_profile, sites) for sites in AXES)
