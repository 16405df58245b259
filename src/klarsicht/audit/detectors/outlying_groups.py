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
        yield detect_group(images, name, self.vectors)

    def vectors(self, shown: ImageStack) -> Floats:
        """Describe the images of a stack (n, d)."""
        small = self.shrunk and min(shown.levels.shape[1:3]) > SHRUNK
        levels = shown.shrunk_to(SHRUNK) if small else shown.levels
        blocks = [self.describe(levels[a : a + BLOCK].astype(np.float32)) for a in range(0, len(levels), BLOCK)]
        return np.concatenate(blocks)


@dataclass(frozen=True)
class StoredGroups:
    """Detector of a group that stands apart in what a run keeps of the network's inside.

    Attributes:
        array: name of the array (n, d); no detections where a run has none.
    """

    array: str
    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        if self.array in images.own.stored and self.array in images.pool.stored:
            yield detect_group(images, name, lambda shown: shown.stored[self.array])


def detect_group(images: ClassImages, name: str, describe: Callable[[ImageStack], Floats]) -> Detection:
    """Detect the group of a class that stands apart most from the images of other classes.

    Args:
        describe: function from a stack to vectors (n, d).
    """
    counted = one_per_source(images)
    if counted.sum() > LARGEST_CLASS:
        kept = generator(images.seed, "outlying").permutation(np.flatnonzero(counted))[:LARGEST_CLASS]
        counted = np.isin(np.arange(len(counted)), kept)
    pool = images.pool.compute_once(f"vectors {name}", lambda: describe(images.pool))
    whitening = images.pool.compute_once(f"whitening {name}", lambda: Whitening.of(pool))
    whitened = images.pool.compute_once(f"whitened {name}", lambda: whitening(pool))
    own = whitening(describe(images.own))
    found = find_outlying_group(own, whitened[comparison_rows(images)], images.half, counted, images.seed)
    return Detection(name, found.score, np.flatnonzero(found.member))
