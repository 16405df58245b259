"""Where an artifact lies on images as the model takes them, what it looks like there, and how to put it on others.

Relevance says where: what the model sees in members and not in the others. Pixels say what. At a fixed place members
agree: out = (1 - o) x + o c makes their deviation (1 - o) times that of the others, which gives the opacity o, and
their median the colour c. Where the place varies each member lends its own pixels under its own mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from klarsicht.ground.arrays import Bools, Floats
from klarsicht.ground.errors import InputError
from klarsicht.ground.images import enlarged

SMOOTH: Final = 1.0  # cells, before maps are thresholded
LEVEL: Final = 0.5  # of the largest excess of relevance: inside the mask above it
AGREED: Final = 0.5  # opacity from which a pixel belongs to a fixed artifact
SIGMAS, ERROR = 3.0, 1.17  # by which agreement must exceed chance; a median deviation of n errs by 1.17 / sqrt(n)
FEWEST: Final = 4  # such pixels, and a twentieth of the region, make a fixed place
FAINT: Final = 2 / 255  # of the range of pixel values: what noise and compression may differ by
DONORS: Final = 64
OPAQUE: Final = 0.9  # and above is opaque: the rest is compression


class Insertion(Protocol):
    """What puts an artifact on images: a place, or an imitation of what has none."""

    def fits(self, image: Tensor, /) -> bool:
        """Whether it can be put on an image (C, H, W)."""

    def paste(self, image: Tensor, rng: np.random.Generator, /) -> Tensor:
        """The image, as the model takes it, with the artifact on."""


@dataclass(frozen=True)
class Overlay:
    """Artifacts that can be put on an image, m of them; one where the place is fixed.

    Attributes:
        opacity: float32 (m, H, W) in [0, 1], zero outside the mask.
        colour: float32 (m, C, H, W), in the model's units.
        background: (G, G), where relevance lies without the artifact, as shares; where the place varies by relevance.
    """

    opacity: NDArray[np.float32]
    colour: NDArray[np.float32]
    background: Floats | None = None

    @property
    def fixed(self) -> bool:
        return len(self.opacity) == 1

    @property
    def masks(self) -> Bools:
        """(m, H, W)."""
        return self.opacity > 0

    def seen(self, relevance: Floats) -> Bools:
        """The mask (H, W) of an image with relevance (G, G): what exceeds the background; for a place that varies."""
        assert self.background is not None
        return above(_shares(relevance[None])[0] - self.background, self.opacity.shape[1:])

    def fits(self, image: Tensor) -> bool:
        return tuple(image.shape) == self.colour.shape[1:]

    @property
    def opaque(self) -> Bools:
        """Pixels (H, W) of a fixed artifact that let nothing through; none of one that varies."""
        return self.opacity[0] >= OPAQUE if self.fixed else np.zeros(self.opacity.shape[1:], bool)

    def apart(self, image: Tensor) -> float:
        """How far an image (C, H, W) is from showing a fixed artifact: mean |image - colour| over opaque pixels."""
        under = self.opaque
        return float(np.abs(image.numpy() - self.colour[0])[:, under].mean())

    def draw(self, rng: np.random.Generator) -> int:
        """One of the artifacts."""
        return int(rng.integers(len(self.opacity)))

    def on(self, image: Tensor, i: int) -> Tensor:
        """An image (C, H, W) with artifact i: (1 - o) x + o c."""
        o, c = torch.from_numpy(self.opacity[i]).to(image), torch.from_numpy(self.colour[i]).to(image)
        return (1 - o) * image + o * c

    def paste(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """With one of them, drawn."""
        return self.on(image, self.draw(rng))


def excess(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """What maps of members (n, G, G) have beyond the mean of the others, as shares of their relevance, smoothed:
    for each member (n, G, G), and in the mean (G, G)."""
    apart = _shares(members) - _shares(others).mean(0)
    return apart, np.asarray(apart.mean(0))


def _shares(maps: Floats) -> Floats:
    positive = np.maximum(maps.astype(np.float64), 0)
    total = positive.sum((1, 2), keepdims=True)
    return np.asarray(ndimage.gaussian_filter(positive / np.where(total > 0, total, 1), (0, SMOOTH, SMOOTH)))


def above(excess: Floats, shape: tuple[int, ...]) -> Bools:
    """The mask (H, W) of a map (G, G): above half of its peak; empty where it has none."""
    wide = enlarged(excess, shape)
    return np.asarray(wide > LEVEL * max(float(wide.max()), 1e-12))


def blended(members: Floats, others: Floats, span: float) -> tuple[Floats, Floats, Floats]:
    """What lies on all members (n, C, H, W) at one place: opacity (H, W), the least opacity that chance allows (H, W)
    and colour (C, H, W).

    Medians and median deviations: a tenth of strangers among the members changes little. Where the others do not vary
    at all an opacity of one stands for any.

    Args:
        span: the range of pixel values.
    """
    faint = FAINT * span
    centre, own = np.median(others, 0), np.median(members, 0)
    spread, left = (np.median(np.abs(x - m), 0).mean(0) for x, m in ((others, centre), (members, own)))
    flat = spread <= faint
    alone = np.where((np.abs(own - centre).max(0) > 3 * faint) & (left <= faint), 1.0, 0.0)
    doubt = 1 + SIGMAS * ERROR / np.sqrt(members.shape[0] * members.shape[1])
    o, least = (
        np.where(flat, alone, np.clip(1 - (left * factor + faint / 2) / (spread + faint / 2), 0, 1))
        for factor in (1.0, doubt)
    )
    o = np.where(o > OPAQUE, 1.0, o)
    colour = (own - (1 - o) * centre) / np.where(o > 0, o, 1)
    return np.asarray(o, np.float32), least, np.asarray(colour, np.float32)


def estimated(
    members: Floats, others: Floats, maps: Floats, maps_of_others: Floats, region: Bools | None = None
) -> Overlay | None:
    """The place of an artifact from images (n, C, H, W) and maps of relevance (n, G, G) of members and others.

    Args:
        region: a mask (H, W) drawn by a person, in place of relevance.

    Returns:
        None where relevance of members lies where that of the others does: an artifact without a place.

    Raises:
        InputError: no image of either kind, or a region that does not fit.
    """
    if not len(members) or not len(others):
        raise InputError("no images to see an artifact in", got=f"{len(members)} members, {len(others)} others")
    shape = members.shape[2:]
    if region is not None and region.shape != shape:
        raise InputError("a mask that does not fit", got=region.shape, rule=f"{shape}, as the model takes images")
    each, mean = excess(maps, maps_of_others)
    where = above(mean, shape) if region is None else region
    span = max(float(np.ptp(members)), float(np.ptp(others)), 1e-12)
    o, least, colour = blended(members, others, span)
    mask = touching(least >= AGREED, where)
    if mask.sum() >= max(FEWEST, where.sum() / 20):
        return Overlay(np.where(mask, o, 0)[None].astype(np.float32), colour[None])
    own = np.stack([above(e, shape) if region is None else region for e in each[:DONORS]])
    if (own.mean((1, 2)) > LEVEL).mean() > LEVEL:
        return None
    background = _shares(maps_of_others).mean(0) if region is None else None
    return Overlay(own.astype(np.float32), members[: len(own)].astype(np.float32), background)


def touching(strict: Bools, region: Bools) -> Bools:
    """The connected pieces of `strict` that lie on the region, at least in part."""
    pieces, _ = ndimage.label(strict, np.ones((3, 3)))
    return np.asarray(np.isin(pieces, np.setdiff1d(pieces[region], 0)))
