"""Align images that share an artifact at a place of its own in each, and match moments in the aligned frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from klarsicht.audit.interventions.moments import SITES, AffineChange, match_moments
from klarsicht.ground.arrays import Floats, Ints, Pixels, Rows

FINE_SIGMA: Final = 1.5  # pixels, Gaussian whose low frequencies are taken away before images are compared
STARTS: Final = 6  # images from which an alignment starts; the one of most energy of the mean counts
ROUNDS: Final = 6  # of aligning to the mean


@dataclass(frozen=True)
class AlignedChange:
    """Change at a place of its own in each image; a `PixelChange`. Images are shifted circularly.

    Attributes:
        change: in the aligned frame.
        shifts: int (m, 2), rows and columns by which the frame is shifted in each carrier.
    """

    change: AffineChange
    shifts: Rows

    @property
    def is_identity(self) -> bool:
        return self.change.is_identity

    def apply(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Change pixel values (n, H, W, C), each at the place of a random carrier."""
        shift = self.shifts[rng.integers(len(self.shifts), size=len(x))]
        return roll_images(self.change.apply(roll_images(x, -shift), rng), shift)


def match_aligned_moments(carriers: Pixels, others: Pixels, shifts: Rows | None = None) -> AlignedChange:
    """Estimate the change of carriers (m, H, W, C) against others (k, H, W, C) after they are aligned.

    Args:
        shifts: int (m, 2), places of the artifact where they are known; else by `align_images`.
    """
    own = align_images(carriers) if shifts is None else shifts
    other = own[np.arange(len(others)) % len(own)]
    aligned, beside = roll_images(carriers, -own), roll_images(others, -other)
    return AlignedChange(match_moments(SITES["pixels"], aligned, beside), own)


def align_images(images: Pixels) -> NDArray[np.intp]:
    """Find circular shifts (n, 2) under which images (n, H, W, C) have a mean of large energy.

    High-passed images of equal energy are aligned to their mean by circular correlation, ROUNDS times, starting from
    some of them in turn.
    """
    x = images.astype(np.float32)
    x = x - gaussian_filter(x, (0, FINE_SIGMA, FINE_SIGMA, 0), mode="wrap")
    x /= np.sqrt((x**2).mean((1, 2, 3), keepdims=True)) + 1
    spectra = fft.fft2(x, axes=(1, 2))
    best, found = -1.0, np.zeros((len(x), 2), np.intp)
    for start in range(0, len(x), -(-len(x) // STARTS)):
        template = spectra[start]
        for _ in range(ROUNDS):
            match = fft.ifft2((spectra * template.conj()).sum(-1), axes=(1, 2)).real
            peak = match.reshape(len(x), -1).argmax(1)
            shifts = np.stack(np.unravel_index(peak, x.shape[1:3]), 1)
            mean = roll_images(x, -shifts).mean(0)
            template = fft.fft2(mean, axes=(0, 1))
        if (energy := float((mean**2).sum())) > best:
            best, found = energy, shifts
    return found


def roll_images(images: Floats | Pixels, shifts: Ints) -> NDArray[np.generic]:
    """Shift images (n, H, W, C) circularly by rows and columns (n, 2)."""
    return np.stack([np.roll(image, tuple(shift), (0, 1)) for image, shift in zip(images, shifts, strict=True)])
