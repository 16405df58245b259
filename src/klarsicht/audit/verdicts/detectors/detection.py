"""Inputs and outputs of detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding
from klarsicht.ground.arrays import Floats, Pixels

T = TypeVar("T")
Measure = Callable[[Floats], Floats]  # one number or vector for each image (n, H, W, C), levels 0 to 255


def measure_in_blocks(measure: Measure, levels: Pixels | Floats, block: int = 256) -> Floats:
    """Compute a measure of many images, a block at a time."""
    blocks = [measure(levels[a : a + block].astype(np.float32)) for a in range(0, len(levels), block)]
    return np.concatenate(blocks or [np.zeros(0)])


@dataclass(frozen=True)
class ImageStack:
    """Stack of images uint8 (n, H, W, C), with relevance maps (n, G, G) or None, and a cache of quantities by name."""

    levels: Pixels
    evidence: Floats | None = None
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.levels)

    def compute_once(self, name: str, make: Callable[[], T]) -> T:
        """Return the cached quantity of that name, computed by `make` at the first call."""
        if name not in self.cache:
            self.cache[name] = make()
        value: T = self.cache[name]
        return value

    def at_most(self, side: int) -> Pixels | NDArray[np.float32]:
        """Return the images, shrunk to `side` pixels on the shorter side where they are larger."""
        return self.shrunk_to(side) if min(self.levels.shape[1:3]) > side else self.levels

    def shrunk_to(self, side: int) -> NDArray[np.float32]:
        """Return pixel values of the images shrunk to `side` pixels on the shorter side."""
        return self.compute_once(f"side {side}", lambda: shrink_levels(self.levels, side))


@dataclass(frozen=True)
class ClassImages:
    """Images of one class, and a pool of images to compare them with: `own` are the n images of the class, `pool` m
    images of any class. others: bool (m,), images of the pool that are of other classes. half: bool (n,), the half on
    which choices are made. sources: int (n,); images of one source are not compared with each other. seed: of the
    sample of seed images in very large classes. embedding: network learned on the audited images, or None. compared:
    images at the beginning of the pool whose windows are compared; None: all. aligned: whether images of any class of
    the run are aligned; only asked where its classes are too few to be compared. pool_classes: int (m,), the class of
    each image of the pool, or None where they are not known."""

    own: ImageStack
    pool: ImageStack
    others: NDArray[np.bool_]
    half: NDArray[np.bool_]
    sources: NDArray[np.integer[Any]]
    seed: int = 0
    embedding: ArtifactEmbedding | None = None
    compared: int | None = None
    aligned: bool = False
    pool_classes: NDArray[np.integer[Any]] | None = None

    @property
    def compared_pool(self) -> ImageStack:
        """The beginning of the pool whose windows are compared; windows of the rest need not be computed."""
        whole, count = self.pool, self.compared
        if count is None or count >= len(whole):
            return whole
        maps = None if whole.evidence is None else whole.evidence[:count]
        return whole.compute_once(f"first {count}", lambda: ImageStack(whole.levels[:count], maps))

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Number of images in the half and outside it."""
        return int(self.half.sum()), int((~self.half).sum())


@dataclass(frozen=True)
class Detection:
    """Detection by one detector in one class at one setting. score: surprisal in nats, on images on which nothing was
    chosen. members: int (m,), images that carry the artifact, ascending. places: (m, 2), upper left corners in shares
    of height and width; empty for an artifact without a place. extent: (height, width) of the window in such shares; 0
    for an artifact without a place."""

    name: str
    score: float
    members: NDArray[np.intp]
    places: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    extent: tuple[float, float] = (0.0, 0.0)
