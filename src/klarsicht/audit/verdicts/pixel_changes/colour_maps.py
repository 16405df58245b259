"""Fit a map of colours under which images of a class have the colour moments of an artifact's carriers.

Three maps are fitted: a turn of hue in HSV, a rotation about the grey axis of RGB, and gains of the channels. An image
is described by mean and covariance of its colours, and the map that leaves the least Mahalanobis distance to the
carriers is taken (the generalised method of moments, Hansen 1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from scipy.fft import dct
from scipy.optimize import least_squares

from klarsicht.audit.verdicts.pixel_changes.colours import ColourMatrix
from klarsicht.audit.verdicts.synthetic.processing import turn_hue
from klarsicht.ground.arrays import Doubles, Floats, Pixels

TURNS: Final = 36  # turns of hue, and rotations, that are compared; then two beside the best
SAMPLED_PIXELS: Final = 100  # pixels of an image from which its colour moments are taken while a map is fitted
RAISED: Final = 0.02  # share of the variance of a moment that is added to it
ROUNDED: Final = 0.1  # squared grey levels that are added too
GREY_MATRIX: Final = np.full((3, 3), 1 / 3)  # projection of a colour to the grey axis


@dataclass(frozen=True)
class HueTurn:
    """Turn of the hue in HSV by a share of a full turn, -0.5 to 0.5; a `PixelChange`."""

    turn: float

    @property
    def is_identity(self) -> bool:
        return self.turn == 0

    def apply(self, x: Floats, _: np.random.Generator) -> Floats:
        return turn_hue(np.asarray(x, np.float64), self.turn)

    def __str__(self) -> str:
        return f"hue turned by {360 * self.turn:.0f} degrees"


def colour_moments(x: Floats | Pixels) -> Doubles:
    """Compute mean and covariance of the colours of images (n, ..., C): (n, C + C (C + 1) / 2), in grey levels.
    Channels are transformed to their mean and to differences, which vary much less between images; of each covariance
    the root of its size counts, with its sign."""
    pixels = dct(np.asarray(x, np.float64).reshape(len(x), -1, x.shape[-1]), axis=-1, norm="ortho")
    mean = pixels.mean(1)
    centred = pixels - mean[:, None]
    covariance = np.einsum("npc,npd->ncd", centred, centred) / pixels.shape[1]
    rows, columns = np.triu_indices(x.shape[-1])
    flat = covariance[:, rows, columns]
    return np.concatenate([mean, np.sign(flat) * np.sqrt(np.abs(flat))], 1)


def grey_rotation(angle: float) -> ColourMatrix:
    """Return the rotation of RGB about the grey axis by an angle in radians."""
    cross = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    matrix = GREY_MATRIX + np.cos(angle) * (np.eye(3) - GREY_MATRIX) + np.sin(angle) * cross
    return ColourMatrix(matrix, np.zeros(3))


def fit_hue_turn(carriers: Pixels, others: Pixels) -> HueTurn:
    """Fit the turn of hue that gives others (k, H, W, 3) the colour moments of carriers (m, H, W, 3)."""
    return _nearest(lambda share: HueTurn((share + 0.5) % 1 - 0.5), carriers, others)


def fit_grey_rotation(carriers: Pixels, others: Pixels) -> ColourMatrix:
    """Fit the rotation about the grey axis that gives others (k, H, W, 3) the colour moments of carriers."""
    return _nearest(lambda share: grey_rotation(2 * np.pi * share), carriers, others)


def fit_channel_gains(carriers: Pixels, others: Pixels) -> ColourMatrix:
    """Fit gains of the channels that give others (k, H, W, C) the colour moments of carriers (m, H, W, C)."""
    aim, some = colour_moments(carriers).mean(0), sample_pixels(others)
    root = np.linalg.cholesky(np.linalg.inv(_covariance(colour_moments(some)))).T

    def distance(log_gains: Doubles) -> Doubles:
        return np.asarray(root @ (aim - colour_moments(np.minimum(some * np.exp(log_gains), 255)).mean(0)))

    found = least_squares(distance, np.zeros(some.shape[-1]), diff_step=0.02, max_nfev=20).x
    return ColourMatrix(np.diag(np.exp(found)), np.zeros(len(found)))


Map = TypeVar("Map", HueTurn, ColourMatrix)


def _nearest(make_map: Callable[[float], Map], carriers: Pixels, others: Pixels) -> Map:
    """Return the map, of those by shares of a full turn, under which the others' colour moments have the least
    Mahalanobis distance to the carriers': to half a step of TURNS."""
    aim, some, rng = colour_moments(carriers).mean(0), sample_pixels(others), np.random.default_rng(0)

    def distance(step: float) -> float:
        moments = colour_moments(np.clip(make_map(step / TURNS).apply(some, rng), 0, 255))
        apart = aim - moments.mean(0)
        return float(apart @ np.linalg.solve(_covariance(moments), apart))

    best = min(range(TURNS), key=distance)
    return make_map(min((best, best - 0.5, best + 0.5), key=distance) / TURNS)


def _covariance(moments: Doubles) -> Doubles:
    """Compute the covariance of moments (n, D) over images, its diagonal raised by a small share and by rounding."""
    found = np.cov(moments.T)
    return np.asarray(found + np.diag(RAISED * np.diag(found) + ROUNDED))


def sample_pixels(images: Pixels) -> Doubles:
    """Take the same SAMPLED_PIXELS random pixels of all images (n, H, W, C): (n, p, C)."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    at = np.random.default_rng(0).permutation(flat.shape[1])[:SAMPLED_PIXELS]
    return flat[:, at].astype(np.float64)
