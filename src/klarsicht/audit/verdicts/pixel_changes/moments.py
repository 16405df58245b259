"""Match mean and spread of pixel values: the change x' = a x + b by which carriers of an artifact differ from other
images of their class.

An opaque mark has a = 0, a blended one a = 1 - opacity, added light a = 1. Then std(carriers) = a std(others) and
mean(carriers) = a mean(others) + b at every site: a pixel, a row or a column. Sites at which neither mean nor spread
differs significantly keep a = 1, b = 0, so that the content of the class stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels

Pool = Callable[[Floats], Floats]  # mean over each site, of one image (H, W, C); broadcastable to that shape

SURE: Final = 3.5  # standard errors by which carriers and others must differ at a site
MAX_GAIN: Final = 1.3  # a larger spread is that of the carriers' content
GREY_LEVEL: Final = 1.0  # least deviation of pixel values: rounding


SITES: Final[dict[str, Pool]] = {
    "pixels": lambda x: x,
    "rows": lambda x: np.asarray(x.mean(1, keepdims=True)),
    "columns": lambda x: np.asarray(x.mean(0, keepdims=True)),
}


@dataclass(frozen=True)
class AffineChange:
    """Affine change x' = gain x + offset of pixel values, float32, broadcastable to (H, W, C); a `PixelChange`."""

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def is_identity(self) -> bool:
        return bool((self.gain == 1).all() and (self.offset == 0).all())

    def apply(self, x: Floats, _: np.random.Generator) -> Floats:
        return np.asarray(self.gain * x + self.offset)


@dataclass(frozen=True)
class SiteMoments:
    """Mean and variance of images at every site, and standard errors of the mean and of the logarithm of the
    variance."""

    mean: Doubles
    variance: Doubles
    error: Doubles
    log_error: Doubles

    @classmethod
    def of(cls, images: Pixels, pool: Pool) -> SiteMoments:
        """Compute the moments of images (n, H, W, C) under a pooling, one image at a time."""
        root, least = np.sqrt(len(images)), GREY_LEVEL**2
        mean, error = mean_and_deviation(pool(image.astype(np.float64)) for image in images)
        variance, spread = mean_and_deviation(pool((image - mean) ** 2) for image in images)
        return cls(mean, variance, np.hypot(error, GREY_LEVEL) / root, (spread + least) / (variance + least) / root)


def mean_and_deviation(arrays: Iterable[Floats]) -> tuple[Doubles, Doubles]:
    """Compute mean and standard deviation of arrays of one shape, by Welford's recurrence."""
    mean, squares, count = np.zeros(()), np.zeros(()), 0
    for count, one in enumerate(arrays, 1):
        step = one - mean
        mean = mean + step / count
        squares = squares + step * (one - mean)
    return mean, np.sqrt(squares / count)


def match_moments(pool: Pool, carriers: Pixels, others: Pixels) -> AffineChange:
    """Estimate the affine change of carriers (m, H, W, C) against others (k, H, W, C), at the sites of a pooling."""
    own, other = SiteMoments.of(carriers, pool), SiteMoments.of(others, pool)
    gain = np.minimum(np.sqrt(own.variance / (other.variance + GREY_LEVEL**2)), MAX_GAIN)
    offset = own.mean - gain * other.mean
    sure = surely_different(own, other)
    return AffineChange(np.where(sure, gain, 1).astype(np.float32), np.where(sure, offset, 0).astype(np.float32))


def surely_different(own: SiteMoments, other: SiteMoments) -> Bools:
    """Select the sites, shape (..., 1), at which mean or spread differ by SURE standard errors in any channel."""
    mean = np.abs(own.mean - other.mean) / np.hypot(own.error, other.error)
    least = GREY_LEVEL**2
    spread = np.abs(np.log((own.variance + least) / (other.variance + least)))
    spread /= np.hypot(own.log_error, other.log_error)
    return np.asarray((np.maximum(mean, spread) > SURE).any(-1, keepdims=True))


MOMENTS: Final = {name: partial(match_moments, pool) for name, pool in SITES.items()}
"""For each kind of site, the estimate of the change of carriers (m, H, W, C) against others (k, H, W, C)."""
