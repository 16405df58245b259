"""The mask of an artifact on one image: the same on all where its place is fixed, else where the image's own relevance
exceeds that of images without the artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from klarsicht.audit.corrections.samples import Images
from klarsicht.audit.interventions.overlay import Overlay
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.relevance.explainer import explain
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.errors import InputError
from klarsicht.ground.store import RunStore

Maps = Callable[[int], Floats]


class Masks(Protocol):
    """A mask (H, W) over images as the model takes them, for each row of a corpus; `str` says which, for a record."""

    def __call__(self, row: int, /) -> Bools: ...


@dataclass(frozen=True)
class Common:
    """One mask (H, W) for all images."""

    mask: Bools

    def __call__(self, row: int) -> Bools:
        return self.mask

    def __str__(self) -> str:
        return f"mask {_short(np.packbits(self.mask))}, {self.mask.mean():.1%} of the image"


@dataclass(frozen=True)
class Own:
    """One mask for each image.

    Attributes:
        maps: relevance (G, G) of a row.
    """

    place: Overlay
    maps: Maps

    def __call__(self, row: int) -> Bools:
        return self.place.seen(self.maps(row))

    def __str__(self) -> str:
        return f"a mask for each image, by its relevance beyond background {_short(self.place.background)}"


def of(place: Overlay | None, maps: Maps | None = None) -> Masks:
    """The masks of an artifact.

    Args:
        maps: relevance (G, G) of a row, for a place that varies.

    Raises:
        InputError: no place, one that covers everything, or one that varies where relevance does not say how.
    """
    masks = np.zeros((1, 1, 1), bool) if place is None else place.masks
    if place is not None and maps is not None and place.background is not None:
        return Own(place, maps)
    if (masks != masks[0]).any() or not 0 < masks[0].mean() < 1:
        raise InputError(
            "no mask to inpaint under",
            got="an artifact " + ("without a place" if place is None else "whose place varies, or covers everything"),
            rule="one place, the same on all images, or relevance that says where it is on each",
            remedy="Draw it with --mask, or use another action.",
        )
    return Common(np.asarray(masks[0]))


def relevance(store: RunStore, classifier: Classifier, target: int, rows: Ints, images: Images) -> Floats:
    """Maps (n, G, G) for a class as the run stored them; where it stored none, gradient x input."""
    if store.has_array("maps"):
        return np.asarray(store.array("maps").oindex[rows.astype(np.intp)], np.float32)
    at = torch.full((1,), target)
    return np.concatenate([explain(classifier, i[None], at, method="GradientTimesInput").maps for i in images])


def _short(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]
