"""Insert the artifact that a detector found into other images, beside a control that differs in nothing else.

An artifact with a place is cut out of carriers; the control is cut out of images of the same class without it, at the
same place. An artifact without a place is imitated at the estimated size; the control is the unchanged image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from klarsicht.audit.detectors.detection import Detection
from klarsicht.audit.interventions import corruptions
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.numerics.imaging import image_statistics

REACH = 3  # window sides around the window within which the rest of the artifact is searched
ALONE = 0.1  # share of the deviation of other images; carriers that deviate less show the artifact alone
AGREE = 0.5  # share of the deviation of other images; carriers deviate less at pixels of the artifact


@dataclass(frozen=True)
class ArtifactExamples:
    """Images of a class with and without an artifact, and its windows in the carriers.

    Attributes:
        carriers: uint8 (m, H, W, C).
        others: uint8 (k, H, W, C), images of the same class that do not carry the artifact.
        places: int (m, 2), upper left pixel of the window in each carrier; (0, 2) for an artifact without a place.
        extent: (height, width) of the window in pixels; 0 for an artifact without a place.
    """

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


Pair = tuple[Floats, Floats]  # images with the artifact, and control images
Change = Callable[[Pixels, ArtifactExamples, np.random.Generator], dict[str, Pair]]
OWN_PLACE = "own place"


def insert_tile(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
    """Paste the artifact's tile at its own place and at random places.

    The control pastes tiles of images without the artifact, see `select_control_images`.
    """
    whole = grow_window(found)
    blanks = select_control_images(whole, x)
    giver, blank = rng.integers(len(whole.carriers), size=len(x)), rng.integers(len(blanks), size=len(x))
    own = whole.places[giver]
    targets = {OWN_PLACE: own, "any place": draw_places(x, whole.extent, len(x), rng)}
    return {
        how: (
            paste_windows(x, target, whole.carriers[giver], own, whole.extent),
            paste_windows(x, target, blanks[blank], own, whole.extent),
        )
        for how, target in targets.items()
    }


def insert_other_windows(
    x: Pixels, found: ArtifactExamples, how: str, rng: np.random.Generator, count: int
) -> Iterator[Floats]:
    """Yield images x with another window of the artifact's size in its place, the same one on all, `count` times."""
    whole = grow_window(found)
    blanks = select_control_images(whole, x)
    for _ in range(count):
        donor, source = blanks[rng.integers(len(blanks))], draw_places(x, whole.extent, 1, rng)
        own = whole.places[rng.integers(len(whole.places), size=len(x))]
        target = own if how == OWN_PLACE else draw_places(x, whole.extent, len(x), rng)
        yield paste_windows(x, target, np.broadcast_to(donor, x.shape), np.repeat(source, len(x), 0), whole.extent)


def select_control_images(whole: ArtifactExamples, x: Pixels) -> Pixels:
    """Return the images whose windows serve as the control.

    A carrier's window also shows content of its class, which raises the class's logit; the control then comes from the
    same class. An opaque mark shows no such content, and the class content that it hides must not raise the control;
    the control then comes from images of other classes.
    """
    return x if covers_artifact_only(whole) else whole.others


def draw_places(x: Pixels, extent: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw random places (count, 2) at which a window fits."""
    return np.stack([rng.integers(0, n - side + 1, count) for n, side in zip(x.shape[1:3], extent, strict=True)], 1)


def paste_windows(
    x: Pixels, target: NDArray[np.intp], given: Pixels, source: NDArray[np.intp], extent: tuple[int, int]
) -> Floats:
    """Paste windows of other images (B, H, W, C) at places (B, 2) into images x (B, H, W, C) at places (B, 2)."""
    h, w = extent
    out = x.astype(np.float32)
    for image, (a, b), giver, (c, d) in zip(out, target, given, source, strict=True):
        image[a : a + h, b : b + w] = giver[c : c + h, d : d + w]
    return out


def covers_artifact_only(whole: ArtifactExamples) -> bool:
    """Say whether the tile shows the artifact and nothing else.

    This holds where carriers hardly differ inside the tile, by ALONE of the deviation of the other images.
    """
    box = np.array(whole.extent)
    own, other = (
        np.median(_spread(stack[: len(whole.places)], whole.places, box)) for stack in (whole.carriers, whole.others)
    )
    return bool(own <= ALONE * other)


def grow_window(found: ArtifactExamples) -> ArtifactExamples:
    """Extend the detected window to the box of the whole artifact.

    Carriers are aligned by their windows. The artifact covers the pixels at which their median absolute deviation from
    the median is below AGREE (half) of that of other images; the result is the bounding box of all such pixels
    connected to the window.
    """
    extent, size = np.array(found.extent), np.array(found.carriers.shape[1:3])
    before = np.minimum(found.places.min(0), REACH * extent)
    behind = np.minimum((size - extent - found.places).min(0), REACH * extent)
    corners, box = found.places - before, before + extent + behind
    spread = [_spread(stack[: len(corners)], corners, box) for stack in (found.carriers, found.others)]
    agree = spread[0] < AGREE * spread[1]
    agree[before[0] : before[0] + extent[0], before[1] : before[1] + extent[1]] = True
    parts, _ = label(agree)
    inside = np.argwhere(parts == parts[tuple(before)])
    first, last = inside.min(0), inside.max(0)
    height, width = (int(side) for side in last - first + 1)
    return ArtifactExamples(found.carriers, found.others, corners + first, (height, width))


def _spread(images: Pixels, corners: NDArray[np.intp], box: NDArray[np.intp]) -> Floats:
    """Compute the median absolute deviation from the median over images, averaged over channels (height, width)."""
    crops = np.stack([x[a : a + box[0], b : b + box[1]] for x, (a, b) in zip(images, corners, strict=False)])
    crops = crops.astype(np.float32)
    return np.asarray(np.median(np.abs(crops - np.median(crops, 0)), 0).mean(-1))


def insert_border(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
    """Replace the border of the image by that of a carrier, at the width that carriers show.

    The control takes the border of an image without the artifact.
    """
    top, bottom, left, right = measure_border(found.carriers)
    framed = [
        stack[rng.integers(len(stack), size=len(x))].astype(np.float32) for stack in (found.carriers, found.others)
    ]
    inside = np.s_[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
    for image in framed:
        image[inside] = x[inside]
    return {"around": (framed[0], framed[1])}


def measure_border(carriers: Pixels) -> NDArray[np.intp]:
    """Measure the median width (4,) of the carriers' border at the top, bottom, left and right.

    A wider border would carry image content along. Without any border in most carriers the width is a tenth of the
    shorter side.
    """
    wide = np.median(image_statistics.border_widths(carriers.astype(np.float32)), axis=1).astype(np.intp)
    return wide if wide.any() else np.full(4, max(1, round(min(carriers.shape[1:3]) / 10)), np.intp)


def make_corruption_change(kind: str) -> Change:
    """Make the change of a corruption of the size that carriers show; the control is the unchanged image."""
    known = corruptions.KINDS[kind]

    def change(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
        size, as_it_was = known.match_size(found.carriers, found.others), x.astype(np.float32)
        return {f"{size:.3g} {known.unit}": (known.apply(as_it_was, size, rng), as_it_was)}

    return change


CHANGES: dict[str, Change] = {"tile": insert_tile, "border": insert_border} | {
    kind: make_corruption_change(kind) for kind in corruptions.KINDS
}
