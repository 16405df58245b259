"""Images of a class with and without an artifact, and the window of the artifact grown to the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor

from klarsicht.audit.verdicts.detectors.detection import Detection
from klarsicht.audit.verdicts.detectors.shared_windows import LARGEST_BOX
from klarsicht.ground.arrays import Floats, Pixels

WINDOW_REACH = 3  # window sides around the window within which the rest of the artifact is searched
ALONE = 0.1  # share of the deviation of other images; carriers that deviate less show the artifact alone
AGREE = 0.5  # share of the deviation of other images; carriers deviate less at pixels of the artifact
BY_CHANCE = 0.05  # of groups of as many other images may deviate as little: two or three often agree by chance
MOST_GROUPS = 40  # of other images that carriers are compared with


@dataclass(frozen=True)
class ArtifactExamples:
    """Images of a class with and without an artifact, and its windows in the carriers. carriers, others: uint8 (m, H,
    W, C) and (k, H, W, C). places: int (m, 2), upper left pixel of the window in each carrier; (0, 2) for an artifact
    without a place. extent: (height, width) of the window in pixels; 0 for an artifact without a place."""

    carriers: Pixels
    others: Pixels
    places: NDArray[np.intp]
    extent: tuple[int, int]

    @classmethod
    def of(cls, detection: Detection, levels: Pixels) -> ArtifactExamples:
        """Split the images (n, H, W, C) of a class by a detection into carriers and others."""
        carries = np.zeros(len(levels), bool)
        carries[detection.members] = True
        size = np.array(levels.shape[1:3])
        extent = (
            np.maximum(1, np.rint(np.array(detection.extent) * size)).astype(int) if len(detection.places) else (0, 0)
        )
        places = np.clip(np.rint(detection.places * size).astype(np.intp), 0, size - extent)
        return cls(levels[carries], levels[~carries], places, (int(extent[0]), int(extent[1])))

    def has_shape(self, image: Tensor) -> bool:
        """Say whether an image (C, H, W) has the shape of the carriers."""
        return tuple(image.permute(1, 2, 0).shape) == self.carriers.shape[1:]


def covers_artifact_only(whole: ArtifactExamples) -> bool:
    """Say whether the tile shows nothing else: carriers hardly differ inside it, by ALONE of the deviation of
    others."""
    box = np.array(whole.extent)
    own, other = (
        np.median(_spread(stack[: len(whole.places)], whole.places, box)) for stack in (whole.carriers, whole.others)
    )
    return bool(own <= ALONE * other)


def grow_window(examples: ArtifactExamples) -> ArtifactExamples:
    """Extend the detected window to the box of the whole artifact: of the pixels of carriers, aligned by their windows,
    at which their median absolute deviation from the median is below AGREE of that of groups of as many other images,
    and below all but BY_CHANCE of these groups, those connected to the window. A box of more than LARGEST_BOX is not
    taken."""
    extent, size = np.array(examples.extent), np.array(examples.carriers.shape[1:3])
    before = np.minimum(examples.places.min(0), WINDOW_REACH * extent)
    behind = np.minimum((size - extent - examples.places).min(0), WINDOW_REACH * extent)
    corners, box = examples.places - before, before + extent + behind
    spread, n = _spread(examples.carriers, corners, box), len(corners)
    first_rows = range(0, max(1, min(len(examples.others) // n, MOST_GROUPS)) * n, n)
    groups = np.stack([_spread(examples.others[row : row + n], corners, box) for row in first_rows])
    agree = spread < np.minimum(AGREE * np.median(groups, 0), np.quantile(groups, BY_CHANCE, axis=0))
    agree[before[0] : before[0] + extent[0], before[1] : before[1] + extent[1]] = True
    parts, _ = label(agree)
    inside = np.argwhere(parts == parts[tuple(before)])
    first, last = inside.min(0), inside.max(0)
    height, width = (int(side) for side in last - first + 1)
    if height * width > LARGEST_BOX * size.prod():
        return examples
    return ArtifactExamples(examples.carriers, examples.others, corners + first, (height, width))


def _spread(images: Pixels, corners: NDArray[np.intp], box: NDArray[np.intp]) -> Floats:
    """Compute the median absolute deviation from the median over images, averaged over channels (height, width)."""
    crops = np.stack([x[a : a + box[0], b : b + box[1]] for x, (a, b) in zip(images, corners, strict=False)])
    crops = crops.astype(np.float32)
    return np.asarray(np.median(np.abs(crops - np.median(crops, 0)), 0).mean(-1))
