"""Match colours: the curve or the matrix by which carriers of an artifact differ from other images of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Pixels

CURVE_POINTS: Final = 65  # quantiles that a tone curve passes through
TIE: Final = 0.5  # grey levels within which distances are equal
LEAST_GAIN: Final = 1.0  # grey levels by which that distance must be less
COMPARED_QUANTILES: Final = (0.1, 0.5, 0.9)  # of the pixel values of an image
SURE_TONE: Final = 3.5  # standard errors by which one of them must differ
SAMPLE: Final = 6000  # pixels of either group by which colours are compared
COLOUR_DIRECTIONS: Final = 24  # along which the distributions of colours are compared
ANGLES: Final = 72  # rotations of hue that are compared
CLEARER: Final = 0.85  # ratio to the distance that tone curves leave, below which a rotation of hue counts
LEAST_VARIANCE: Final = 1e-2  # of a direction of colour, in squared grey levels


@dataclass(frozen=True)
class ToneCurve:
    """Increasing curve of pixel values of each channel, through quantiles (C, p) of both groups; a `PixelChange`."""

    before: Doubles
    after: Doubles

    @property
    def is_identity(self) -> bool:
        return bool((self.before == self.after).all())

    def apply(self, x: Floats, _: np.random.Generator) -> Floats:
        return np.stack([np.interp(x[..., c], self.before[c], self.after[c]) for c in range(x.shape[-1])], -1)


def match_tones(carriers: Pixels, others: Pixels) -> ToneCurve:
    """Estimate the tone curve of carriers against others (n, H, W, C): the identity where none of COMPARED_QUANTILES of
    single images differs by SURE_TONE standard errors."""
    own, other = (
        np.stack([np.quantile(image, COMPARED_QUANTILES, axis=(0, 1)) for image in group])
        for group in (carriers, others)
    )
    error = np.hypot(*(group.std(0) / np.sqrt(len(group)) for group in (own, other)))
    if (np.abs(own.mean(0) - other.mean(0)) <= SURE_TONE * np.hypot(error, 1 / np.sqrt(len(own)))).all():
        ends = np.tile([0.0, 255.0], (carriers.shape[-1], 1))
        return ToneCurve(ends, ends)
    return map_quantiles(carriers, others)


def map_quantiles(carriers: Pixels, others: Pixels) -> ToneCurve:
    """Compute the curve that brings the pixel values of others (k, H, W, C) to the distribution of carriers."""
    at = np.linspace(0, 1, CURVE_POINTS)
    before, after = (np.quantile(group.reshape(-1, group.shape[-1]), at, axis=0).T for group in (others, carriers))
    return ToneCurve(before + 1e-6 * np.arange(CURVE_POINTS), after)


@dataclass(frozen=True)
class ColourMatrix:
    """Affine map of colours by a matrix (C, C) and an offset (C,); a `PixelChange`."""

    matrix: Doubles
    offset: Doubles

    @property
    def is_identity(self) -> bool:
        return bool((self.matrix == np.eye(len(self.matrix))).all() and (self.offset == 0).all())

    def apply(self, x: Floats, _: np.random.Generator) -> Floats:
        return np.asarray(x @ self.matrix.T + self.offset)

    def __str__(self) -> str:
        rows = "; ".join(", ".join(f"{value:.2f}" for value in row) for row in self.matrix)
        return f"matrix of colours {rows}"


def match_colours(carriers: Pixels, others: Pixels) -> ColourMatrix:
    """Estimate the affine map from the colours of others (k, H, W, C) to those of carriers (m, H, W, C); the identity
    unless tone curves leave clearly more.

    M = A^(1/2) Q B^(-1/2) gives the covariance A of the carriers from B of the others, for any orthogonal Q. Q takes
    the whitened grey axis of the others to that of the carriers, as grey stays grey; of the angles about it, that of
    the least sliced Wasserstein distance counts, and of those within TIE of it the one that changes colours least."""
    rng = np.random.default_rng(0)
    own, other = (_draw_colours(group, rng) for group in (carriers, others))
    centre, middle = own.mean(0), other.mean(0)
    own, other = own - centre, other - middle
    root, inverse = _power(own.T @ own / len(own), 0.5), _power(other.T @ other / len(other), -0.5)
    directions = rng.normal(size=(COLOUR_DIRECTIONS, len(centre)))
    aim = np.sort(own @ directions.T, 0)

    def distance(colours: Doubles) -> float:
        return float(np.abs(np.sort(colours @ directions.T, 0) - aim).mean())

    matrices: Doubles = np.asarray(root @ inverse)[None]
    if len(centre) == 3:
        axis = np.linalg.solve(root, np.ones(3))
        matrices = root @ rotations_between(np.asarray(inverse @ np.ones(3)), np.asarray(axis)) @ inverse
    costs = np.array([distance(other @ one.T) for one in matrices])
    close = np.flatnonzero(costs <= costs.min() + TIE)
    best = close[np.abs(matrices[close] - np.eye(len(centre))).sum((1, 2)).argmin()]
    left = distance(map_quantiles(carriers, others).apply(other + middle, rng) - centre)
    if costs[best] >= min(CLEARER * left, left - LEAST_GAIN):
        return ColourMatrix(np.eye(len(centre)), np.zeros(len(centre)))
    return ColourMatrix(matrices[best], centre - matrices[best] @ middle)


def rotations_between(start: Doubles, end: Doubles) -> Doubles:
    """Return rotations (ANGLES, 3, 3) that take the direction of `start` to that of `end`, at all angles about it."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cross = _cross_matrix(np.cross(a, b))
    first = np.eye(3) + cross + cross @ cross / (1 + a @ b)
    about = _cross_matrix(b)
    angles = (2 * np.pi * np.arange(ANGLES) / ANGLES)[:, None, None]
    return np.asarray((np.eye(3) + np.sin(angles) * about + (1 - np.cos(angles)) * about @ about) @ first)


def _cross_matrix(v: Doubles) -> Doubles:
    """Return the matrix of the cross product with v (3,)."""
    x, y, z = v
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _power(covariance: Doubles, exponent: float) -> Doubles:
    """Compute a power of a covariance (C, C), its variances at least LEAST_VARIANCE."""
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    return np.asarray((vectors * np.maximum(values, LEAST_VARIANCE) ** exponent) @ vectors.T)


def _draw_colours(images: Pixels, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw SAMPLE pixels (SAMPLE, C) of images (n, H, W, C)."""
    pixels = images.reshape(-1, images.shape[-1])
    return pixels[rng.integers(len(pixels), size=SAMPLE)].astype(np.float64)
