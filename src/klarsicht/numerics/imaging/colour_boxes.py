"""Boxes of colours that occur in images, by place. A box is a cube of colours two bins a side; boxes begin at every
bin, so that a colour near the edge of one is well inside another. Colours are levels 0 to 255 of three channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from klarsicht.ground.arrays import Bools, Floats, Ints, Pixels, Rows

LEVELS = 256  # of a channel


def count_bins(width: int) -> int:
    """Count the bins of a channel, each `width` levels wide: b."""
    return -(-LEVELS // width)


def count_in_boxes(colours: Ints, place: Ints, places: int, width: int) -> Ints:
    """Count the colours (k, 3) in each box by place (k,), a number below `places`: int (places, b, b, b). A bin is
    `width` levels wide; a box that begins at the last bin holds that bin alone."""
    bins, b = colours // width, count_bins(width)
    at = ((place * b + bins[:, 0]) * b + bins[:, 1]) * b + bins[:, 2]
    counts = np.bincount(at, minlength=places * b**3).reshape(places, b, b, b)
    for axis in (1, 2, 3):
        along = np.moveaxis(counts, axis, 0)
        along[:-1] += along[1:].copy()
    return counts


def select_flat(image: Floats | Pixels, most: float) -> Ints:
    """Select the blocks of 2 x 2 pixels of an image (H, W, 3) whose channels vary by at most `most` levels each, and
    return their mean colours, int (k, 3)."""
    x = np.asarray(image, np.int64)
    block = np.stack([x[:-1, :-1], x[1:, :-1], x[:-1, 1:], x[1:, 1:]])
    flat = (np.ptp(block, axis=0) <= most).all(-1)
    return np.asarray(block.sum(0)[flat] // 4)


@dataclass(frozen=True)
class Occurrences:
    """Occurrences of boxes in images: the image of each, ascending, and the number of its box, of all places one after
    another, int (k,); and the number of boxes."""

    image: Rows
    box: Rows
    boxes: int

    @classmethod
    def of(cls, images: Iterable[Any], count: Callable[[Any], Ints], least: float, boxes: int) -> Occurrences:
        """Collect the boxes of which an image holds `least` at least; `count` returns the counts of one image."""
        held = [np.flatnonzero(count(image) >= least) for image in images]
        number = np.repeat(np.arange(len(held)), [len(one) for one in held])
        return cls(number, np.concatenate([*held, np.zeros(0, np.intp)]).astype(np.intp), boxes)

    def count(self, some: Bools) -> Ints:
        """Count some of the images (n,) that hold each box: int (boxes,)."""
        return np.asarray(np.bincount(self.box[some[self.image]], minlength=self.boxes))

    def holders(self, box: int) -> Rows:
        return np.asarray(self.image[self.box == box])
