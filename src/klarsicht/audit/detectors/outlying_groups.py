"""Detect a group of a class's images that stands apart in a description which knows no artifact beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.detectors.patch_matches import comparison_rows
from klarsicht.audit.detectors.templates import one_per_source
from klarsicht.ground.arrays import Floats
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.outlying_group import Whitening, find_outlying_group

SHRUNK = 50  # pixels on the shorter side, for descriptions in which resolution does not matter
BLOCK = 256  # images that are described at once
LARGEST_CLASS = 2000  # images of a class that groups are searched in; of a larger one, a sample

Describe = Callable[[Floats], Floats]


@dataclass(frozen=True)
class OutlyingGroups:
    """Detector of a group that stands apart under one description of images; its artifact has no place.

    Attributes:
        describe: function from images (n, H, W, C), levels 0 to 255, to vectors (n, d).
        shrunk: whether images are shrunk to SHRUNK pixels first.
    """

    describe: Describe
    shrunk: bool = False
    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        counted = one_per_source(images)
        if counted.sum() > LARGEST_CLASS:
            kept = generator(images.seed, "outlying").permutation(np.flatnonzero(counted))[:LARGEST_CLASS]
            counted = np.isin(np.arange(len(counted)), kept)
        pool = images.pool.compute_once(f"vectors {name}", lambda: self.vectors(images.pool))
        whitening = images.pool.compute_once(f"whitening {name}", lambda: Whitening.of(pool))
        whitened = images.pool.compute_once(f"whitened {name}", lambda: whitening(pool))
        own, reference = whitening(self.vectors(images.own)), whitened[comparison_rows(images)]
        found = find_outlying_group(own, reference, images.half, counted, images.seed)
        yield Detection(name, found.score, np.flatnonzero(found.member))

    def vectors(self, shown: ImageStack) -> Floats:
        """Describe the images of a stack (n, d)."""
        small = self.shrunk and min(shown.levels.shape[1:3]) > SHRUNK
        levels = shown.shrunk_to(SHRUNK) if small else shown.levels
        blocks = [self.describe(levels[a : a + BLOCK].astype(np.float32)) for a in range(0, len(levels), BLOCK)]
        return np.concatenate(blocks)
