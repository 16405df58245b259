"""Relevance-like maps of eight planted shapes, each turned, mirrored, shifted, scaled, bent and noisy.

Two maps are of one kind when their shapes are; nothing else that they share says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIDE = 56  # pixels of a map
REACH = 0.22 * SIDE  # pixels of a shape's unit

Points = NDArray[np.float64]  # (M, 2)


def segment(start: tuple[float, float], end: tuple[float, float], count: int = 60) -> Points:
    return np.linspace(start, end, count)


def arc(radius: float, turn: float, count: int = 120) -> Points:
    angle = np.linspace(0, turn, count)
    return radius * np.column_stack((np.cos(angle), np.sin(angle)))


def blobs(*centres: tuple[float, float]) -> Points:
    return np.repeat(np.array(centres), 120 // len(centres), axis=0)


SHAPES: dict[str, Callable[[], Points]] = {
    "bar": lambda: segment((-1, 0), (1, 0), 120),
    "L": lambda: np.concatenate([segment((-0.8, -0.8), (0.9, -0.8)), segment((-0.8, -0.8), (-0.8, 0.9))]),
    "T": lambda: np.concatenate([segment((-0.9, 0.7), (0.9, 0.7)), segment((0, 0.7), (0, -1))]),
    "ring": lambda: arc(0.8, 2 * np.pi),
    "cross": lambda: np.concatenate([segment((-1, 0), (1, 0)), segment((0, -1), (0, 1))]),
    "two": lambda: blobs((-0.9, 0), (0.9, 0)),
    "three": lambda: blobs((-0.8, -0.5), (0.8, -0.5), (0, 0.9)),
    "C": lambda: arc(0.9, 1.1 * np.pi),
}


def family(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Maps (count, SIDE, SIDE), positive, each of sum 1, and which of SHAPES each shows."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(len(SHAPES), size=count)
    shapes = list(SHAPES.values())
    return np.stack([drawn(posed(bent(shapes[kind](), rng), rng), rng) for kind in kinds]), kinds


def bent(shape: Points, rng: np.random.Generator) -> Points:
    """Its points shaken, and the whole of it stretched and sheared a little."""
    shaken = shape + rng.normal(0, 0.05, shape.shape)
    return shaken @ (np.eye(2) + rng.normal(0, 0.1, (2, 2)))


def posed(shape: Points, rng: np.random.Generator) -> Points:
    """Anywhere, any size between .65 and 1.25, any way up, mirrored or not; in pixels."""
    angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [mirror * np.sin(angle), mirror * np.cos(angle)]])
    return shape @ turn * rng.uniform(0.65, 1.25) * REACH + SIDE / 2 + rng.uniform(-6, 6, 2)


def drawn(points: Points, rng: np.random.Generator) -> NDArray[np.float32]:
    """Points of uneven weight, smeared, patchy, over speckle."""
    y, x = np.clip(np.rint(points), 0, SIDE - 1).astype(int).T
    ink = np.zeros((SIDE, SIDE))
    np.add.at(ink, (y, x), np.exp(rng.normal(0, 0.3, len(points))))
    ink = gaussian_filter(ink, rng.uniform(1.2, 2.2))
    patchy = np.exp(2.4 * gaussian_filter(rng.normal(0, 1, ink.shape), 3))
    speckle = 0.03 * np.abs(rng.normal(0, 1, ink.shape))
    relevance = ink / ink.max() * patchy + speckle
    return (relevance / relevance.sum()).astype(np.float32)
