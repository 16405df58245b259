"""Measure how much of the difference between an artifact's carriers and other images of their class was put on.

Images are described by brightness, detail, spectrum and colours. Carriers are compared with other images as they are,
and with other images on which the artifact was put: the share of the squared difference that is gone was put on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter

from klarsicht.ground.arrays import Bools, Doubles, Floats, Pixels

SHUFFLES: Final = 39  # random groups of images that a difference must exceed
DETAIL_SIDE: Final = 3  # pixels of the window over which detail is averaged
FAINT_DETAIL: Final = 4.0  # squared grey levels, of rounding and compression


def brightness(x: Floats) -> Floats:
    """Return the pixel values (n, H W C) of images (n, H, W, C)."""
    return x.reshape(len(x), -1)


def detail(x: Floats) -> Floats:
    """Compute the log energy (n, H W) of what differs from the mean of a neighbourhood."""
    side = (1, DETAIL_SIDE, DETAIL_SIDE, 1)
    fine = x - uniform_filter(x, side, mode="nearest")
    return np.log(uniform_filter((fine**2).mean(-1, keepdims=True), side) + FAINT_DETAIL).reshape(len(x), -1)


def spectrum(x: Floats) -> Floats:
    """Compute the log power (n, H W) of the mean channel at every frequency but the mean."""
    power = np.log(np.abs(fft.fft2(x.mean(-1))) ** 2 + 1)
    return power.reshape(len(x), -1)[:, 1:]


def colours(x: Floats) -> Floats:
    """Compute means and covariances (n, C + C C) of the colours of each image, in roots of the latter's size."""
    pixels = x.reshape(len(x), -1, x.shape[-1])
    mean = pixels.mean(1)
    covariance = np.einsum("npc,npd->ncd", pixels - mean[:, None], pixels - mean[:, None]) / pixels.shape[1]
    flat = covariance.reshape(len(x), -1)
    return np.concatenate([mean, np.sign(flat) * np.sqrt(np.abs(flat))], 1)


DESCRIPTIONS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "brightness": brightness,
    "detail": detail,
    "spectrum": spectrum,
    "colours": colours,
}


def covered_share(carriers: Pixels, others: Pixels, marked: Pixels, rng: np.random.Generator) -> float:
    """Compute the share in [0, 1] of what separates carriers (m, H, W, C) from others (k, H, W, C) that marked others
    (k, H, W, C) have.

    Only descriptions count in which carriers differ from others for sure; NaN where they differ in none.
    """
    before = after = 0.0
    for describe in DESCRIPTIONS.values():
        own, other, put = (describe(group.astype(np.float32)) for group in (carriers, others, marked))
        scale = other.std(0) + 1e-3 * (1 + other.std())
        own, other, put = own / scale, other / scale, put / scale
        half = rng.permutation(len(own)) < len(own) // 2
        there = split_energy(own, half, other)
        if there > max(shuffled_energies(np.concatenate([own, other]), len(own), rng)):
            before += there
            after += max(split_energy(own, half, put), 0.0)
    return float(np.clip(1 - after / before, 0, 1)) if before else float("nan")


def split_energy(own: Floats, half: Bools, other: Floats) -> float:
    """Compute the mean squared difference of means of carriers (m, D) and others (k, D), without the bias of chance.

    It is the product of the differences of two halves of the carriers from two halves of the others.
    """
    first = own[half].mean(0) - other[::2].mean(0)
    second = own[~half].mean(0) - other[1::2].mean(0)
    return float((first * second).mean())


def shuffled_energies(images: Floats, count: int, rng: np.random.Generator) -> Doubles:
    """Compute the split energy of SHUFFLES random groups of `count` images (n, D) against the rest."""
    found = []
    for _ in range(SHUFFLES):
        order = rng.permutation(len(images))
        half = np.arange(count) < count // 2
        found.append(split_energy(images[order[:count]], half, images[order[count:]]))
    return np.array(found)
