"""Lay the region of one image that acts on an output on other images, with a soft border, at its own place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from klarsicht.ground.arrays import Bools, Floats, Pixels, Rows
from klarsicht.ground.pictures.colour_maps import resize_bilinear
from klarsicht.numerics.imaging.relevance_masks import threshold_map

Frame = tuple[float, float, float, float]
"""Top, left, height and width, as shares of an image."""
SHARE_ACTING: Final = 0.75  # of the positive relevance that a region holds
SHOWN_AT_ONCE: Final = 20  # pictures that are shown at once
SOFT_BORDER: Final = 32  # parts of the shorter side that the deviation of the soft border is one of


def cut_region(relevance: Floats, shape: tuple[int, int]) -> Bools:
    """Cut the smallest region (H, W) that holds SHARE_ACTING of the positive relevance of a grid (h, w); the whole
    image where there is none."""
    wide = np.maximum(resize_bilinear(np.maximum(relevance, 0), shape), 0)
    order = np.sort(wide, axis=None)[::-1]
    total = np.cumsum(order)
    if not total[-1] > 0:
        return np.ones(shape, bool)
    return np.asarray(wide >= order[int(np.searchsorted(total, SHARE_ACTING * total[-1]))])


def soften_border(region: Bools) -> Floats:
    """Return the opacity (H, W) of a region: 1 inside, and falling to 0 beyond its edge as a Gaussian does."""
    return np.asarray(ndimage.gaussian_filter(region.astype(np.float32), min(region.shape) / SOFT_BORDER))


def lay_regions(images: Pixels, donors: Pixels, opacities: Floats) -> Pixels:
    """Lay regions of donors (n, H, W, C) on images of the same shape: (1 - o) x + o d with opacities o (n, H, W)."""
    o = opacities[..., None]
    return np.asarray(np.rint((1 - o) * images + o * donors), np.uint8)


def transfer_regions(
    read: Callable[[Rows], Pixels], predict: Callable[[Pixels], Floats], members: Rows, regions: Bools, trial: Trial
) -> tuple[Floats, Floats]:
    """Show the network pictures with the regions of a group, and with the same regions of other pictures.

    Args:
        read: function from rows to pictures uint8 (n, H, W, C).
        predict: function from pictures to logits (n, K).
        members: rows of the group.
        regions: bool (m, H, W), of its pictures.

    Returns:
        the logits (n, K) of both.
    """
    opacities = np.stack([soften_border(region) for region in regions])
    donors, own, control = read(members), list[Floats](), list[Floats]()
    for start in range(0, len(trial.receivers), SHOWN_AT_ONCE):
        some = slice(start, start + SHOWN_AT_ONCE)
        number = np.arange(len(trial.receivers))[some] % len(donors)
        levels = read(trial.receivers[some])
        for logits, content in ((own, donors[number]), (control, read(trial.lent[some]))):
            logits.append(predict(lay_regions(levels, content, opacities[number])))
    return np.concatenate(own), np.concatenate(control)


@dataclass(frozen=True)
class Trial:
    """Rows of pictures on which content is laid, and of as many that lend other content."""

    receivers: Rows
    lent: Rows

    @classmethod
    def draw(cls, free: Rows, others: Rows, most: int, rng: np.random.Generator) -> Trial:
        """Draw at most `most` of the rows that content may be laid on, and lenders among other rows; where these are
        too few, each lends to the next."""
        shown = rng.permutation(free)[:most]
        lent = rng.permutation(np.setdiff1d(others, shown))[: len(shown)]
        return cls(shown, lent if len(lent) == len(shown) else np.roll(shown, 1))


def frame_of(relevance: Floats, shape: tuple[int, int]) -> Frame:
    """Return top, left, height and width, as shares of an image of a shape (height, width), of the largest connected
    part where a grid (h, w) reaches half of its peak."""
    parts, _ = ndimage.label(threshold_map(np.maximum(relevance, 0), shape))
    sizes = np.bincount(parts.ravel())[1:]
    region = parts == 1 + int(sizes.argmax()) if len(sizes) else np.ones(shape, bool)
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    (height, width), (top, bottom), (left, right) = shape, rows[[0, -1]], columns[[0, -1]]
    return top / height, left / width, (bottom + 1 - top) / height, (right + 1 - left) / width
