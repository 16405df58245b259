"""Measure how much of the difference between an artifact's carriers and other images of their class was inserted: the
share of the squared difference of descriptions (brightness, detail, spectrum, colours) that is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels

SHUFFLES: Final = 39  # random groups of images that a difference must exceed
DESCRIBED_SIDE: Final = 32  # pixels of the shorter side to which descriptions of larger images are averaged
DETAIL_SIDE: Final = 3  # pixels of the window over which detail is averaged
WHITENED: Final = 5  # images for each number, at least, where correlated numbers are whitened
FAINT_DETAIL: Final = 4.0  # squared grey levels, of rounding and compression


def brightness(x: NDArray[np.float32]) -> Floats:
    """Return the pixel values (n, h w C) of images (n, H, W, C), shrunk to DESCRIBED_SIDE pixels."""
    return shrink_levels(x, DESCRIBED_SIDE).reshape(len(x), -1)


def detail(x: NDArray[np.float32]) -> Floats:
    """Compute the log energy (n, h w) of what differs from the mean of a neighbourhood."""
    side = (1, DETAIL_SIDE, DETAIL_SIDE, 1)
    fine = x - uniform_filter(x, side, mode="nearest")
    energy = np.log(uniform_filter((fine**2).mean(-1, keepdims=True), side) + FAINT_DETAIL)
    return shrink_levels(energy, DESCRIBED_SIDE).reshape(len(x), -1)


def spectrum(x: NDArray[np.float32]) -> Floats:
    """Compute the log power (n, h w) of the mean channel by frequency, without the mean."""
    x = x.mean(-1)
    power = np.log(np.abs(fft.fft2(x - x.mean((1, 2), keepdims=True))) ** 2 + 1)
    return shrink_levels(fft.fftshift(power, (1, 2))[..., None], DESCRIBED_SIDE).reshape(len(x), -1)


def colours(x: NDArray[np.float32]) -> Floats:
    """Compute means and covariances (n, C + C C) of the colours of each image, in roots of the latter's size."""
    pixels = x.reshape(len(x), -1, x.shape[-1])
    mean = pixels.mean(1)
    covariance = np.einsum("npc,npd->ncd", pixels - mean[:, None], pixels - mean[:, None]) / pixels.shape[1]
    flat = covariance.reshape(len(x), -1)
    return np.concatenate([mean, np.sign(flat) * np.sqrt(np.abs(flat))], 1)


Describe = Callable[[NDArray[np.float32]], Floats]

DESCRIPTIONS: Final[tuple[Describe, ...]] = (brightness, detail, spectrum, colours)


@dataclass(frozen=True)
class DescriptionDifference:
    """Significant difference of carriers and others in one description. `white` whitens or scales its numbers, see
    `whitening`; `own` (m, D) are those of the carriers, `half` (m,) marks a half of them, `energy` is the mean squared
    difference from the others."""

    describe: Describe
    white: Floats
    own: Floats
    half: Bools
    energy: float

    def remaining_difference(self, with_artifact: Pixels) -> float:
        """Compute the mean squared difference of the carriers from marked others (k, H, W, C), at least 0."""
        return max(
            split_energy(
                self.own, self.half, scale_values(self.describe(with_artifact.astype(np.float32)), self.white)
            ),
            0,
        )


@dataclass(frozen=True)
class CarrierDifference:
    """Significant differences between carriers of an artifact and other images of their class, in any description."""

    described: tuple[DescriptionDifference, ...]

    @classmethod
    def of(cls, carriers: Pixels, others: Pixels, rng: np.random.Generator) -> CarrierDifference:
        """Compare carriers (m, H, W, C) with others (k, H, W, C), at least four of either."""
        differences = []
        half = rng.permutation(len(carriers)) < len(carriers) // 2
        for describe in DESCRIPTIONS:
            own, other = (describe(group.astype(np.float32)) for group in (carriers, others))
            white = whitening(other)
            own, other = scale_values(own, white), scale_values(other, white)
            energy = split_energy(own, half, other)
            if energy > max(shuffled_energies(np.concatenate([own, other]), len(own), rng)):
                differences.append(DescriptionDifference(describe, white, own, half, energy))
        return cls(tuple(differences))

    def covered_share(self, with_artifact: Pixels) -> float:
        """Compute the share in [0, 1] of the difference that was inserted in marked others (k, H, W, C), or NaN."""
        before = sum(one.energy for one in self.described)
        if not before:
            return float("nan")
        return float(np.clip(1 - sum(one.remaining_difference(with_artifact) for one in self.described) / before, 0, 1))


def whitening(values: Floats) -> Floats:
    """Compute the matrix (D, D) that whitens values (n, D); where D is not small, the factors (D,) to unit variance."""
    least = 1e-3 * (1 + float(values.std()))
    if WHITENED * values.shape[1] > len(values):
        return np.asarray(1 / (values.std(0) + least))
    variances, vectors = np.linalg.eigh(np.cov(values.T))
    return np.asarray(vectors / np.sqrt(np.maximum(variances, 0) + least**2))


def split_energy(own: Floats, half: Bools, other: Floats) -> float:
    """Compute the mean squared difference of means of carriers (m, D) and others (k, D), without the bias of chance:
    the product of the differences of two halves of the carriers from two halves of the others."""
    first = own[half].mean(0) - other[::2].mean(0)
    second = own[~half].mean(0) - other[1::2].mean(0)
    return float((first * second).mean())


def shuffled_energies(images: Floats, count: int, rng: np.random.Generator) -> Doubles:
    """Compute the split energy of SHUFFLES random groups of `count` images (n, D) against the rest."""
    weights = np.zeros((2, SHUFFLES, len(images)), np.float32)
    for i in range(SHUFFLES):
        order = rng.permutation(len(images))
        own, other = order[:count], order[count:]
        for side, (group, rest) in enumerate(zip((own[::2], own[1::2]), (other[::2], other[1::2]), strict=True)):
            weights[side, i, group], weights[side, i, rest] = 1 / len(group), -1 / len(rest)
    return np.asarray(((weights[0] @ images) * (weights[1] @ images)).mean(1), np.float64)


def scale_values(values: Floats, white: Floats) -> Floats:
    """Whiten or scale values (n, D); see `whitening`."""
    return np.asarray(values @ white if white.ndim == 2 else values * white)
