"""Estimate place, opacity and colour of an artifact, and blend it into other images.

Relevance gives the place: where that of members exceeds that of the other images. At a fixed place, out = (1 - o) x + o
c makes the deviation of members (1 - o) times that of the others, which determines the opacity o, and their median
determines the colour c. At a varying place each member contributes its own pixels under its own mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.errors import InputError
from klarsicht.numerics.imaging.relevance_masks import PEAK_SHARE, relevance_excess, smooth_shares, threshold_map

AGREED: Final = 0.5  # opacity from which a pixel belongs to a fixed artifact
DOUBT_SIGMAS, ERROR = 3.0, 1.17  # factor of the error; the median absolute deviation of n has error 1.17 / sqrt(n)
MIN_PIXELS: Final = 4  # pixels of a fixed artifact, at least; and a twentieth of the region
FAINT: Final = 2 / 255  # of the range of pixel values: differences by noise and compression
DONORS: Final = 64
SAME_PLACE: Final = 0.9  # share of the windows above which a place is fixed
OPAQUE: Final = 0.9  # opacity from which a pixel counts as opaque; the rest is compression


@dataclass(frozen=True)
class Overlay:
    """Overlays of m examples of an artifact, one where the place is fixed; an `Insertion`, whose control is the
    unchanged image. opacity: float32 (m, H, W) in [0, 1], zero outside the mask. colour: float32 (m, C, H, W), in units
    of the model input. background: (G, G), mean share of relevance on images without the artifact, by which masks of a
    varying place follow from relevance."""

    opacity: NDArray[np.float32]
    colour: NDArray[np.float32]
    background: Floats | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all but the arrays as JSON values."""
        return {"examples": len(self.opacity)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Make an overlay of its arrays, among others; raises KeyError where one lacks."""
        return cls(arrays["opacity"], arrays["colour"], arrays.get("background"))

    @property
    def fixed(self) -> bool:
        """Whether the place is the same on all images."""
        return len(self.opacity) == 1

    @property
    def masks(self) -> Bools:
        """Masks (m, H, W) of the examples."""
        return self.opacity > 0

    def select(self, numbers: Sequence[int]) -> Self:
        """Return the overlay of some of the examples."""
        return replace(self, opacity=self.opacity[list(numbers)], colour=self.colour[list(numbers)])

    def mask_from_relevance(self, relevance: Floats, share: float = PEAK_SHARE) -> Bools:
        """Compute the mask (H, W) of an image from its relevance (G, G), where it exceeds the background by a share of
        the largest excess."""
        assert self.background is not None
        return threshold_map(smooth_shares(relevance[None])[0] - self.background, self.opacity.shape[1:], share)

    def fits(self, image: Tensor) -> bool:
        return tuple(image.shape) == self.colour.shape[1:]

    @property
    def opaque(self) -> Bools:
        """Pixels (H, W) at which a fixed overlay is opaque; none where the place varies."""
        return self.opacity[0] >= OPAQUE if self.fixed else np.zeros(self.opacity.shape[1:], bool)

    def distance(self, image: Tensor) -> float:
        """Compute the mean |image - colour| over the opaque pixels of a fixed overlay, for an image (C, H, W)."""
        under = self.opaque
        return float(np.abs(image.numpy() - self.colour[0])[:, under].mean())

    def draw_number(self, rng: np.random.Generator) -> int:
        """Draw the number of an example."""
        return int(rng.integers(len(self.opacity)))

    def blend(self, image: Tensor, i: int) -> Tensor:
        """Blend example i into an image (C, H, W): (1 - o) x + o c."""
        o, c = torch.from_numpy(self.opacity[i]).to(image), torch.from_numpy(self.colour[i]).to(image)
        return (1 - o) * image + o * c

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Blend random examples into images (n, C, H, W); the control are the images themselves."""
        return torch.stack([self.blend(image, self.draw_number(rng)) for image in images]), images


def estimate_blend(members: Floats, others: Floats, span: float) -> tuple[Floats, Floats, Floats]:
    """Estimate the overlay that all members (n, C, H, W) share at one place, by medians, for pixel values of this span:
    its opacity (H, W), 1 where the others do not vary and it cannot be identified, the lower bound of the opacity under
    sampling error (H, W), and its colour (C, H, W)."""
    faint = FAINT * span
    centre, own = np.median(others, 0), np.median(members, 0)
    spread, rest = (np.median(np.abs(x - m), 0).mean(0) for x, m in ((others, centre), (members, own)))
    flat = spread <= faint
    alone = np.where((np.abs(own - centre).max(0) > 3 * faint) & (rest <= faint), 1.0, 0.0)
    doubt = 1 + DOUBT_SIGMAS * ERROR / np.sqrt(members.shape[0] * members.shape[1])
    o, least = (
        np.where(flat, alone, np.clip(1 - (rest * factor + faint / 2) / (spread + faint / 2), 0, 1))
        for factor in (1.0, doubt)
    )
    o = np.where(o > OPAQUE, 1.0, o)
    colour = (own - (1 - o) * centre) / np.where(o > 0, o, 1)
    return np.asarray(o, np.float32), least, np.asarray(colour, np.float32)


def estimate_overlay(
    members: Floats, others: Floats, maps: Floats, maps_of_others: Floats, region: Bools | None = None
) -> Overlay | None:
    """Estimate the overlay of an artifact from images (n, C, H, W) and relevance maps (n, G, G) of members and others,
    or in a region (H, W) drawn by a person; None where members have no relevance of their own: an artifact without a
    place. Raises InputError: members or others are empty, or the region does not fit."""
    if not len(members) or not len(others):
        raise InputError(
            "an artifact needs images with it and without it", got=f"{len(members)} members, {len(others)} others"
        )
    shape = members.shape[2:]
    if region is not None and region.shape != shape:
        raise InputError("a mask that does not fit", got=region.shape, rule=f"{shape}, as the model takes images")
    each, mean = relevance_excess(maps, maps_of_others)
    where = threshold_map(mean, shape) if region is None else region
    if fixed := fixed_overlay(members, others, where, max(MIN_PIXELS, where.sum() / 20)):
        return fixed
    own = np.stack([threshold_map(e, shape) if region is None else region for e in each[:DONORS]])
    if (own.mean((1, 2)) > PEAK_SHARE).mean() > PEAK_SHARE:
        return None
    background = smooth_shares(maps_of_others).mean(0) if region is None else None
    return Overlay(own.astype(np.float32), members[: len(own)].astype(np.float32), background)


def fixed_overlay(members: Floats, others: Floats, region: Bools, fewest: float) -> Overlay | None:
    """Estimate the overlay at one place that touches a region (H, W); None of fewer pixels."""
    span = max(float(np.ptp(members)), float(np.ptp(others)), 1e-12)
    o, least, colour = estimate_blend(members, others, span)
    mask = select_touching(least >= AGREED, region)
    if mask.sum() < fewest:
        return None
    return Overlay(np.where(mask, o, 0)[None].astype(np.float32), colour[None])


def overlay_at_windows(
    members: Floats, others: Floats, corners: Ints, extent: tuple[int, int], maps_of_others: Floats
) -> Overlay:
    """Estimate the overlay from the windows in which a detector found the artifact: where SAME_PLACE of them coincide
    to one pixel by `estimate_blend`, else each member contributes the pixels of its own window. members, others: (m, C,
    H, W) and (n, C, H, W). corners, extent: upper left pixels (m, 2) of the windows, and their height and width.
    maps_of_others: relevance (n, G, G)."""
    shape = members.shape[2:]
    own = np.zeros((len(members), *shape), bool)
    for mask, (row, column) in zip(own, corners, strict=True):
        mask[row : row + extent[0], column : column + extent[1]] = True
    middle = np.median(corners, 0)
    coincide = (np.abs(corners - middle).max(1) <= 1).mean() > SAME_PLACE
    fixed = fixed_overlay(members, others, own.mean(0) > PEAK_SHARE, MIN_PIXELS) if coincide else None
    return fixed or overlay_of_masks(members, own, maps_of_others)


def overlay_of_masks(members: Floats, masks: Bools, maps_of_others: Floats) -> Overlay:
    """Make the overlay to which each member (m, C, H, W) contributes the pixels under its mask (m, H, W)."""
    background = smooth_shares(maps_of_others).mean(0)
    return Overlay(masks[:DONORS].astype(np.float32), members[:DONORS].astype(np.float32), background)


def overlay_in_region(members: Floats, region: Bools) -> Overlay:
    """Make the overlay to which each member (m, C, H, W) contributes its pixels in one region (H, W)."""
    own = members[:DONORS].astype(np.float32)
    return Overlay(np.repeat(region[None], len(own), 0).astype(np.float32), own)


def select_touching(strict: Bools, region: Bools) -> Bools:
    """Select the connected components of `strict` that overlap the region."""
    pieces, _ = ndimage.label(strict, np.ones((3, 3)))
    return np.asarray(np.isin(pieces, np.setdiff1d(pieces[region], 0)))
