"""Put the artifact that a detector found on other images, beside a control that differs in nothing else.

What has a place is cut out of images that carry it; the control is cut out of images of the same class that do not, at
the same place. What has none is imitated at the size that was found; the control is the image as it was.
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

REACH = 3  # windows on every side within which the rest of the artifact is looked for
ALONE = 0.1  # of what other images differ by: a tile in which carriers differ by less is the artifact alone
AGREE = 0.5  # carriers differ by less than this share of what other images differ by: there the artifact lies


@dataclass(frozen=True)
class ArtifactExamples:
    """An artifact as a detector found it.

    Attributes:
        carriers: uint8 (m, H, W, C).
        others: uint8 (k, H, W, C), images of the same class that do not carry it.
        places: int (m, 2), upper left pixel of its window in each carrier; (0, 2) for what has no place.
        extent: (height, width) of the window in pixels; nought for what has no place.
    """

    carriers: Pixels
    others: Pixels
    places: NDArray[np.intp]
    extent: tuple[int, int]

    @classmethod
    def of(cls, sign: Detection, levels: Pixels) -> ArtifactExamples:
        """Of a class's images (n, H, W, C)."""
        carries = np.zeros(len(levels), bool)
        carries[sign.members] = True
        size = np.array(levels.shape[1:3])
        extent = np.maximum(1, np.rint(np.array(sign.extent) * size)).astype(int) if len(sign.places) else (0, 0)
        places = np.clip(np.rint(sign.places * size).astype(np.intp), 0, size - extent)
        return cls(levels[carries], levels[~carries], places, (int(extent[0]), int(extent[1])))


Pair = tuple[Floats, Floats]  # with the artifact, and the control
Change = Callable[[Pixels, ArtifactExamples, np.random.Generator], dict[str, Pair]]
OWN_PLACE = "own place"


def tile(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
    """The artifact's tile pasted at its own place, and at random ones; as the control, of what is no artifact."""
    whole = grown(found)
    blanks = without(whole, x)
    giver, blank = rng.integers(len(whole.carriers), size=len(x)), rng.integers(len(blanks), size=len(x))
    own = whole.places[giver]
    targets = {OWN_PLACE: own, "any place": scattered(x, whole.extent, len(x), rng)}
    return {
        how: (
            laid(x, target, whole.carriers[giver], own, whole.extent),
            laid(x, target, blanks[blank], own, whole.extent),
        )
        for how, target in targets.items()
    }


def rivals(x: Pixels, found: ArtifactExamples, how: str, rng: np.random.Generator, count: int) -> Iterator[Floats]:
    """Images x with another window of the artifact's size in its place, the same one on all; `count` times another."""
    whole = grown(found)
    blanks = without(whole, x)
    for _ in range(count):
        donor, source = blanks[rng.integers(len(blanks))], scattered(x, whole.extent, 1, rng)
        own = whole.places[rng.integers(len(whole.places), size=len(x))]
        target = own if how == OWN_PLACE else scattered(x, whole.extent, len(x), rng)
        yield laid(x, target, np.broadcast_to(donor, x.shape), np.repeat(source, len(x), 0), whole.extent)


def without(whole: ArtifactExamples, x: Pixels) -> Pixels:
    """Images whose windows are no artifact: of the class, since a carrier brings content of its class along, which
    speaks for the class. An opaque mark brings none, and what it hides must not speak for the control: images of other
    classes."""
    return x if bare(whole) else whole.others


def scattered(x: Pixels, extent: tuple[int, int], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Random places (count, 2) at which a window fits."""
    return np.stack([rng.integers(0, n - side + 1, count) for n, side in zip(x.shape[1:3], extent, strict=True)], 1)


def laid(
    x: Pixels, target: NDArray[np.intp], given: Pixels, source: NDArray[np.intp], extent: tuple[int, int]
) -> Floats:
    """Images x (B, H, W, C) with windows of other images (B, H, W, C), from places (B, 2) to places (B, 2)."""
    h, w = extent
    out = x.astype(np.float32)
    for image, (a, b), giver, (c, d) in zip(out, target, given, source, strict=True):
        image[a : a + h, b : b + w] = giver[c : c + h, d : d + w]
    return out


def bare(whole: ArtifactExamples) -> bool:
    """Whether a tile is the artifact and nothing else: carriers hardly differ there, and other images do."""
    box = np.array(whole.extent)
    own, other = (
        np.median(_spread(stack[: len(whole.places)], whole.places, box)) for stack in (whole.carriers, whole.others)
    )
    return bool(own <= ALONE * other)


def grown(found: ArtifactExamples) -> ArtifactExamples:
    """The whole artifact, by its place in every carrier: where carriers, laid over each other, agree.

    They agree where their median deviation from their median is less than half of what other images show there. The
    box around all such pixels that hang together with the window is the artifact.
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
    """Median over images of the absolute deviation from their median, colours averaged (height, width)."""
    crops = np.stack([x[a : a + box[0], b : b + box[1]] for x, (a, b) in zip(images, corners, strict=False)])
    crops = crops.astype(np.float32)
    return np.asarray(np.median(np.abs(crops - np.median(crops, 0)), 0).mean(-1))


def border(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
    """The border of a carrier around the image, as wide as carriers show it; of another image as the control."""
    top, bottom, left, right = rims(found.carriers)
    framed = [
        stack[rng.integers(len(stack), size=len(x))].astype(np.float32) for stack in (found.carriers, found.others)
    ]
    inside = np.s_[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
    for image in framed:
        image[inside] = x[inside]
    return {"around": (framed[0], framed[1])}


def rims(carriers: Pixels) -> NDArray[np.intp]:
    """How wide (4,) the border is at the top, bottom, left and right of most carriers: more of it would bring along
    what they show. A tenth of the image where none is seen."""
    wide = np.median(image_statistics.rims(carriers.astype(np.float32)), axis=1).astype(np.intp)
    return wide if wide.any() else np.full(4, max(1, round(min(carriers.shape[1:3]) / 10)), np.intp)


def imitated(kind: str) -> Change:
    """What has no place, of the size that carriers show; the control is the image as it was."""
    known = corruptions.KINDS[kind]

    def change(x: Pixels, found: ArtifactExamples, rng: np.random.Generator) -> dict[str, Pair]:
        size, as_it_was = known.size(found.carriers, found.others), x.astype(np.float32)
        return {f"{size:.3g} {known.unit}": (known.put(as_it_was, size, rng), as_it_was)}

    return change


CHANGES: dict[str, Change] = {"tile": tile, "border": border} | {kind: imitated(kind) for kind in corruptions.KINDS}
