"""Align images that share an artifact at a place of its own in each, and match moments in the aligned frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from klarsicht.audit.verdicts.pixel_changes.moments import SITES, AffineChange, match_moments
from klarsicht.ground.arrays import Floats, Ints, Pixels, Rows

T = TypeVar("T", bound=np.generic)

FINE_SIGMA: Final = 1.5  # pixels, Gaussian whose low frequencies are taken away before images are compared
STARTS: Final = 4  # images from which an alignment starts; the one of most energy of the mean counts
ROUNDS: Final = 5  # of aligning to the mean
LED_BY: Final = 64  # images whose mean others are aligned to


@dataclass(frozen=True)
class AlignedChange:
    """Change in an aligned frame, which is shifted circularly by rows and columns (m, 2) in each carrier; a
    `PixelChange`."""

    change: AffineChange
    shifts: Rows

    @property
    def is_identity(self) -> bool:
        return self.change.is_identity

    def apply(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Change pixel values (n, H, W, C), each at the place of a random carrier."""
        shift = self.shifts[rng.integers(len(self.shifts), size=len(x))]
        return roll_images(self.change.apply(roll_images(x, -shift), rng), shift)


def match_aligned_moments(carriers: Pixels, others: Pixels) -> AlignedChange:
    """Estimate the change of carriers (m, H, W, C) against others (k, H, W, C) after they are aligned."""
    own = align_images(carriers)
    other = own[np.arange(len(others)) % len(own)]
    aligned, beside = roll_images(carriers, -own), roll_images(others, -other)
    return AlignedChange(match_moments(SITES["pixels"], aligned, beside), own)


def align_images(images: Pixels) -> NDArray[np.intp]:
    """Find circular shifts (n, 2) under which images (n, H, W, C) have a mean of large energy: high-passed grey images
    of equal energy are aligned to their mean by circular correlation, ROUNDS times, starting from a few of them in
    turn. Of many images the mean is that of the first LED_BY."""
    x = np.stack([_high_pass(image) for image in images])
    spectra, few = fft.fft2(x), min(len(x), LED_BY)
    best, shifts = -1.0, np.zeros((len(x), 2), np.intp)
    for start in range(0, few, -(-few // STARTS)):
        template = spectra[start]
        for _ in range(ROUNDS):
            mean = roll_images(x[:few], -_peaks(spectra[:few], template)).mean(0)
            template = fft.fft2(mean)
        if (energy := float((mean**2).sum())) > best:
            best, shifts = energy, _peaks(spectra, template)
    return shifts


def _high_pass(image: Pixels) -> NDArray[np.float32]:
    """Take the low frequencies off the mean channel of an image (H, W, C), and scale it to unit energy."""
    x = image.mean(-1, dtype=np.float32)
    fine = x - gaussian_filter(x, FINE_SIGMA, mode="wrap")
    return np.asarray(fine / (np.sqrt((fine**2).mean()) + 1))


def _peaks(spectra: Floats, template: Floats) -> NDArray[np.intp]:
    """Return the shifts (n, 2) of largest circular correlation of images with a template, by their transforms."""
    matches = (fft.ifft2(one * template.conj()).real for one in spectra)
    return np.array([np.unravel_index(int(match.argmax()), match.shape) for match in matches], np.intp)


def roll_images(images: NDArray[T], shifts: Ints) -> NDArray[T]:
    """Shift images (n, H, W, C) circularly by rows and columns (n, 2)."""
    return np.stack([np.roll(image, tuple(shift), (0, 1)) for image, shift in zip(images, shifts, strict=True)])
