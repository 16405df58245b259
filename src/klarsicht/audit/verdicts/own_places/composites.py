"""Composites: what is an image's own laid on another image, so that nothing else tells the class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion

from klarsicht.ground.arrays import Bools, Ints, Pixels, Rows

RIM = 3  # most pixels left out along the edge of own places in composites that teach or test a model
SHIFTS_TRIED = 8  # for one under which what fills a donor's own places is not its own
SMALLEST, LARGEST = 0.4, 2.5  # area of own places that can be used, over the middle area of those of exceptions


@dataclass(frozen=True)
class Pairs:
    """Images in pairs.

    Attributes:
        sources: int (m,), images whose own places are laid on others.
        donors: int (m,), images of which all else is shown.
    """

    sources: Rows
    donors: Rows


def lay_on_others(images: Pixels, own: Bools, pairs: Pairs, rng: np.random.Generator, rim: int = 0) -> Pixels:
    """Lay the own places of sources on donors, whose own places are filled by the donor itself, shifted.

    Args:
        images: uint8 (n, H, W, C).
        own: bool (n, H, W).
        rim: most pixels that are left out along the edge of a source's own places, where surroundings may be left; as
            often none, or any number between, since images that are classified have their edges.

    Returns:
        uint8 (m, H, W, C).
    """
    out = images[pairs.donors].copy()
    for picture, source, donor in zip(out, pairs.sources, pairs.donors, strict=True):
        shift = draw_shift(own[donor], rng)
        picture[own[donor]] = np.roll(images[donor], shift, (0, 1))[own[donor]]
        left_out = int(rng.integers(rim + 1)) if rim else 0
        kept = binary_erosion(own[source], iterations=left_out) if left_out else own[source]
        picture[kept] = images[source][kept]
    return out


def draw_shift(own: Bools, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a shift (rows, columns) of a quarter to three quarters of an image, under which own places (H, W) do not
    meet themselves; the last one tried where all meet."""
    shift = (0, 0)
    for _ in range(SHIFTS_TRIED):
        tall, wide = (int(rng.integers(side // 4, max(3 * side // 4, side // 4 + 1))) for side in own.shape)
        shift = (tall, wide)
        if not (own & np.roll(own, shift, (0, 1))).any():
            break
    return shift


def usable_places(own: Bools, exceptional: Bools) -> Bools:
    """Mark images (n,) whose own places (n, H, W) are about as large as those of exceptions."""
    area = own.sum((1, 2))
    areas = area[exceptional & (area > 0)]
    areas = areas if len(areas) else area[area > 0]
    if not len(areas):
        return np.zeros(len(own), bool)
    middle = np.median(areas)
    return np.asarray((area > SMALLEST * middle) & (area < LARGEST * middle))


def draw_pairs(
    labels: Ints, usable: Bools, count: int, rng: np.random.Generator, exceptional: Bools | None = None
) -> Pairs:
    """Draw pairs of usable images in which every class is as often the source as any other, and as often the donor of
    each.

    Args:
        exceptional: bool (n,); with it, half of the sources of a class are exceptions, where it has both.
    """
    classes = np.unique(labels)
    each = -(-count // len(classes))

    def draw(label: int, odd: Bools | None) -> Rows:
        rows = np.flatnonzero(usable & (labels == label))
        if odd is None or not odd[rows].any() or odd[rows].all():
            return rng.choice(rows, each)
        return np.where(rng.random(each) < 0.5, rng.choice(rows[odd[rows]], each), rng.choice(rows[~odd[rows]], each))

    sources = np.concatenate([draw(int(label), exceptional) for label in classes])
    donors = rng.permutation(np.concatenate([draw(int(label), None) for label in classes]))
    return Pairs(sources, donors)
