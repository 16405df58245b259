"""Compute the mask of an artifact on one image: the same on all images where the place is fixed; otherwise the region
in which the image's own relevance exceeds that of images without the artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from klarsicht.audit.cleaning.corrections.samples import Images
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.errors import InputError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.imaging.relevance_masks import PEAK_SHARE

Maps = Callable[[int], Floats]


@dataclass(frozen=True)
class Masks:
    """Masks (H, W) in the geometry of the model input, for each row of a corpus, and a description for a record."""

    of_row: Callable[[int], Bools]
    description: str

    @classmethod
    def of(cls, place: Overlay | None, maps: Maps | None = None, share: float = PEAK_SHARE) -> Masks:
        """Make the masks of an artifact from its overlay, and from relevance (G, G) of a row where its place varies:
        where it exceeds the background by a share of the largest excess.
        Raises InputError: no place, one that covers everything, or one that varies without relevance that determines
        it."""
        if place is not None and maps is not None and place.background is not None:
            beyond = f"its relevance beyond background {_short(place.background)}"
            above = "" if share == PEAK_SHARE else f", above {share:.0%} of its peak"
            return cls(
                lambda row: place.mask_from_relevance(maps(row), share), f"a mask for each image, by {beyond}{above}"
            )
        masks = np.zeros((1, 1, 1), bool) if place is None else place.masks
        if (masks != masks[0]).any() or not 0 < masks[0].mean() < 1:
            lacks = "without a place" if place is None else "whose place varies, or covers everything"
            raise InputError(
                "no mask to inpaint under", got=f"an artifact {lacks}",
                rule="one place, the same on all images, or relevance that says where it is on each",
                remedy="Draw it with --mask, or use another action.",
            )  # fmt: skip
        mask = np.asarray(masks[0])
        return cls(lambda row: mask, f"mask {_short(np.packbits(mask))}, {mask.mean():.1%} of the image")


def relevance_maps(store: RunStore, classifier: Classifier, target: int, rows: Ints, images: Images) -> Floats:
    """Read the stored maps (n, G, G) for a class; where the run stored none, compute gradient x input."""
    if store.has_array("maps"):
        return np.asarray(store.array("maps")[rows.astype(np.intp)], np.float32)
    at = torch.full((1,), target)
    return np.concatenate([explain(classifier, i[None], at, method="GradientTimesInput").maps for i in images])


def _short(values: Any) -> str:
    """Return the first twelve hex digits of the SHA-256 of values."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]
