"""Match amplitude spectra: the frequencies at which carriers of an artifact hold less or more than other images of
their class.

Where carriers hold less (blur, resampling), the frequency is damped to their amplitude. Where they hold more (lines,
grids and noise of any phase), the share of their power that others lack is added: a carrier's own component times the
square root of that share. Other frequencies keep their content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from klarsicht.audit.verdicts.pixel_changes.moments import mean_and_deviation
from klarsicht.ground.arrays import Floats, Ints, Pixels

SURE_FREQUENCY: Final = 3.5  # standard errors by which carriers and others must differ
LEAST_POWER: Final = 1.0  # of a coefficient: a grey level over the whole image has (H W)^2

Pool = Callable[[Floats], Floats]  # smooths log power (H, W, C)


@dataclass(frozen=True)
class SpectralChange:
    """Change of the amplitude spectrum; a `PixelChange`. Each frequency is multiplied by `gain`, (H, W, C) in [0, 1],
    and `share` of the component of a donor, one of (m, H, W, C), is added."""

    gain: NDArray[np.float32]
    share: NDArray[np.float32]
    donors: Pixels

    @property
    def is_identity(self) -> bool:
        return bool((self.gain == 1).all() and (self.share == 0).all())

    def apply(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Change pixel values (n, H, W, C), each with a random donor."""
        giver = rng.integers(len(self.donors), size=len(x))
        out = np.empty(x.shape, np.float32)
        for i, image in enumerate(x):
            donor = transform(self.donors[giver[i]])
            out[i] = fft.ifft2(self.gain * transform(image) + self.share * donor, axes=(0, 1)).real
        return out


def transform(image: Floats | Pixels) -> NDArray[np.complex64]:
    """Compute the discrete Fourier transform of an image (H, W, C) over rows and columns."""
    return np.asarray(fft.fft2(image.astype(np.float32), axes=(0, 1)))


def mean_log_power(images: Pixels, pool: Pool) -> tuple[Floats, Floats]:
    """Compute mean and standard error (H, W, C) of the pooled log power of images (n, H, W, C)."""
    mean, deviation = mean_and_deviation(pool(np.log(np.abs(transform(x)) ** 2 + LEAST_POWER)) for x in images)
    return mean, deviation / np.sqrt(len(images))


def match_spectra(pool: Pool, carriers: Pixels, others: Pixels) -> SpectralChange:
    """Estimate the change of the spectrum of carriers (m, H, W, C) against others, without that of the mean
    brightness."""
    (own, own_error), (other, other_error) = (mean_log_power(group, pool) for group in (carriers, others))
    ratio = np.where(np.abs(own - other) > SURE_FREQUENCY * np.hypot(own_error, other_error), own - other, 0)
    ratio[0, 0] = 0
    gain, share = np.exp(np.minimum(ratio, 0) / 2), np.sqrt(-np.expm1(-np.maximum(ratio, 0)))
    return SpectralChange(gain.astype(np.float32), share.astype(np.float32), carriers)


def ring_numbers(shape: tuple[int, ...]) -> Ints:
    """Number the rings of equal spatial frequency, (H, W), each as wide as the lowest frequency of the shorter side."""
    radius = np.hypot(fft.fftfreq(shape[0])[:, None], fft.fftfreq(shape[1])[None])
    return np.asarray(np.rint(radius * min(shape[:2])).astype(np.intp))


def mean_over_rings(power: Floats) -> Floats:
    number = ring_numbers(power.shape)
    count = np.bincount(number.ravel())
    return np.stack(
        [(np.bincount(number.ravel(), plane.ravel()) / count)[number] for plane in np.moveaxis(power, -1, 0)], -1
    )


SPECTRA: Final = {
    "frequencies": partial(match_spectra, lambda power: power),
    "rings of frequencies": partial(match_spectra, mean_over_rings),
}
"""For each pooling, the function that estimates the change of carriers (m, H, W, C) against others (k, H, W, C)."""
