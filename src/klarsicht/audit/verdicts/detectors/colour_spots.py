"""Detect the colour of an opaque mark that changes place and size, beyond what images of the class have by nature.

Natural colours are spread: what is natural is estimated from the class itself, at neighbouring colours (`FlatColour`)
or at the mirrored place (`OneSidedColour`), and from other images. The colour is chosen on a half of the class and
tested on the other, both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import SHRUNK
from klarsicht.audit.verdicts.detectors.patch_matches import comparison_rows
from klarsicht.audit.verdicts.detectors.templates import one_per_source
from klarsicht.ground.arrays import Floats, Ints, Pixels
from klarsicht.numerics.imaging.colour_boxes import Occurrences, count_bins, count_in_boxes, select_flat
from klarsicht.numerics.statistics.split_half import cross_test, smoothed_rate

Number = TypeVar("Number", bound=np.number[Any])

MOST_HOLDERS: Final = 0.5  # share of a half; a colour that more images hold is the nature of the class
FEWEST_HOLDERS: Final = 3  # images of a half
FLAT_WIDTH: Final = 8  # levels in a bin of flat colours
FLAT_RANGE: Final = 12  # levels, largest range of a channel in a flat block
FLAT_SHARE: Final = 0.002  # of the blocks of an image, that must have a colour
NEIGHBOURS: Final = tuple(step for step in product((-2, 0, 2), repeat=3) if any(step))  # bins from box to box
DENSER: Final = 2.0  # times as often as at its neighbours, a colour may occur by nature
SIDED_WIDTH: Final = 20  # levels in a bin of one-sided colours
CELL_ROWS, CELL_COLUMNS = 8, 4  # cells of an image
SIDED_SHARE: Final = 1 / 16  # of the pixels of a cell, that must have a colour


@dataclass(frozen=True)
class ColourSpots(ABC):
    """Detector of the box of colours that images of a class hold most beyond nature; none without three channels."""

    change: str = "shared"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        if images.own.levels.shape[-1] == 3:
            yield self.detect(images, name)
        else:
            yield Detection(name, 0.0, np.zeros(0, np.intp))

    def detect(self, images: ClassImages, name: str) -> Detection:
        """Choose the box on each half of the class, and test it on the other half."""
        own, pool = (self.found_in(shown, name) for shown in (images.own, images.pool))
        others, counted = np.zeros(len(images.pool), bool), one_per_source(images)
        others[comparison_rows(images)] = True
        halves = [part & counted for part in (images.half, ~images.half)]
        sizes = int(halves[0].sum()), int(halves[1].sum())
        counts = np.stack([own.count(half) for half in halves], 1)
        elsewhere = self.elsewhere(smoothed_rate(pool.count(others), int(others.sum())))
        rates = np.stack(
            [np.maximum(self.natural(n, size), elsewhere) for n, size in zip(counts.T, sizes, strict=True)], 1
        )
        size = np.array(sizes)
        tried = (counts >= FEWEST_HOLDERS) & (counts <= MOST_HOLDERS * size) & (counts > rates * size)
        boxes, half = np.nonzero(tried)
        if not (half == 0).any() or not (half == 1).any():
            return Detection(name, 0.0, np.zeros(0, np.intp))
        larger = rates[boxes].max(1)
        found = cross_test(counts[boxes], sizes, rates[boxes, half], half == 0, lambda few: larger[few])
        return Detection(name, found.score, own.holders(int(boxes[found.seed])))

    def found_in(self, stack: ImageStack, name: str) -> Occurrences:
        """Find the boxes that each image of a stack holds."""
        return stack.compute_once(f"boxes {name}", lambda: self.occurrences(stack.at_most(SHRUNK)))

    @abstractmethod
    def occurrences(self, levels: Floats | Pixels) -> Occurrences:
        """Find the boxes that each image of (n, H, W, 3) holds."""

    @abstractmethod
    def natural(self, counts: Ints, size: int) -> NDArray[np.float64]:
        """Estimate the rate at which a class holds each box by nature, from the images (boxes,) of `size` that do."""

    def elsewhere(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimate it from the rates of other images."""
        return rates


@dataclass(frozen=True)
class FlatColour(ColourSpots):
    """Detector of a colour that flat spots of some images have exactly, at any place: marks, stripes, frames, rulers.
    By nature it is expected DENSER times as often as the second most frequent of its 26 neighbours in the class, and as
    often as in other images. Nearly black or white spots do not count: photographs have them."""

    def occurrences(self, levels: Floats | Pixels) -> Occurrences:
        least = max(1, round(FLAT_SHARE * (levels.shape[1] - 1) * (levels.shape[2] - 1)))
        return Occurrences.of(levels, count_flat, least, count_bins(FLAT_WIDTH) ** 3)

    def natural(self, counts: Ints, size: int) -> NDArray[np.float64]:
        b = count_bins(FLAT_WIDTH)
        first = np.indices((b, b, b)).reshape(3, -1)
        black_or_white = (first == 0).all(0) | (first >= b - 2).all(0)
        bound = DENSER * second_of_neighbours(counts.reshape(b, b, b)).ravel()
        return np.where(black_or_white, 1.0, smoothed_rate(bound.astype(np.intp), size))


@dataclass(frozen=True)
class OneSidedColour(ColourSpots):
    """Detector of a colour that some images have in one cell and not in its mirror image: dates, tags, stripes.
    Photographs have no left and right by nature: a colour is expected as often as in the mirrored cell."""

    def occurrences(self, levels: Floats | Pixels) -> Occurrences:
        h, w = levels.shape[1:3]
        rows, columns = np.arange(h) * CELL_ROWS // h, np.arange(w) * CELL_COLUMNS // w
        cell, cells = (rows[:, None] * CELL_COLUMNS + columns).ravel(), CELL_ROWS * CELL_COLUMNS

        def count(image: Floats | Pixels) -> Ints:
            return count_in_boxes(image.reshape(-1, 3).astype(np.intp), cell, cells, SIDED_WIDTH)

        least = max(1, round(SIDED_SHARE * h * w / cells))
        return Occurrences.of(levels, count, least, cells * count_bins(SIDED_WIDTH) ** 3)

    def natural(self, counts: Ints, size: int) -> NDArray[np.float64]:
        return smoothed_rate(mirror_cells(counts), size)

    def elsewhere(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.maximum(rates, mirror_cells(rates)))


def count_flat(image: Floats | Pixels) -> Ints:
    """Count the flat blocks of an image (H, W, 3) in each box of colours."""
    colours = select_flat(image, FLAT_RANGE)
    return count_in_boxes(colours, np.zeros(len(colours), np.intp), 1, FLAT_WIDTH)


def second_of_neighbours(counts: Ints) -> Ints:
    """Return the second largest count among the neighbours of each box (b, b, b); outside are none."""
    b, reach = len(counts), 2
    wide = np.pad(counts, reach)
    near = [wide[tuple(slice(reach + step, reach + step + b) for step in steps)] for steps in NEIGHBOURS]
    return np.asarray(np.partition(np.stack(near), -2, axis=0)[-2])


def mirror_cells(values: NDArray[Number]) -> NDArray[Number]:
    """Exchange left and right of values by cell and box, (boxes,)."""
    return np.asarray(values.reshape(CELL_ROWS, CELL_COLUMNS, -1)[:, ::-1].ravel())
