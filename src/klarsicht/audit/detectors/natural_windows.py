"""Measure whether images of a class share windows by nature, where no other classes tell what is natural."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klarsicht.audit.detectors.bank import change_of, detect_windows
from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.detectors.patch_matches import grey
from klarsicht.ground.arrays import Rows
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.aligned_details import median_detail_correlation

ALIGNED_IMAGES, ALIGNED_SIDE = (
    200,
    32,
)  # images of a class whose alignment is measured, and their shorter side in pixels
ALIGNED = 0.015  # median correlation of details: of 100 classes of photographs at most .007, of aligned pictures .03 up
SILENT = 1.0  # nats, most that windows of images without an artifact score where none is shared by nature


@dataclass(frozen=True)
class SharedWindows:
    """Measures of the windows that images of a class share by nature.

    Attributes:
        correlation: median correlation of the details of two images at the same places.
        left: largest score in nats by windows among the images that are left without the members of the strongest one;
            with them, where they are more than half of the class.
    """

    correlation: float
    left: float

    @property
    def natural(self) -> bool:
        """Whether windows are shared by nature, as far as can be seen."""
        return not (self.correlation < ALIGNED and self.left < SILENT)

    @classmethod
    def of(cls, images: ClassImages, found: Sequence[Detection]) -> SharedWindows:
        """Measure a class; found are its detections.

        Windows are searched again where the strongest score is not silent itself.
        """
        windows = [one for one in found if change_of(one.name) == "tile"]
        strongest = max(windows, key=lambda one: one.score)
        left = strongest.score
        kept = np.setdiff1d(np.arange(len(images.own)), strongest.members)
        if left >= SILENT and 2 * len(kept) >= len(images.own):
            left = max((one.score for one in detect_windows(select_images(images, kept))), default=0.0)
        some = generator(images.seed, "aligned").permutation(len(images.own))[:ALIGNED_IMAGES]
        shrunk = ImageStack(images.own.levels[np.sort(some)]).shrunk_to(ALIGNED_SIDE)
        return cls(median_detail_correlation(grey(shrunk)[..., 0]), float(left))


def select_images(images: ClassImages, rows: Rows) -> ClassImages:
    """Keep some images (m,) of a class, by their numbers in it."""
    evidence = images.own.evidence
    own = ImageStack(images.own.levels[rows], None if evidence is None else evidence[rows])
    return replace(images, own=own, half=images.half[rows], sources=images.sources[rows])
