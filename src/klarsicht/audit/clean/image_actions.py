"""What can be done to the images of a corpus that carry an artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from PIL import Image

from klarsicht.audit.artifacts import masks
from klarsicht.audit.artifacts.masks import Maps, Masks
from klarsicht.audit.interventions.overlay import Overlay
from klarsicht.audit.models import crop_geometry
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import InputError, MissingExtra, UsageError, unknown_name

Repair = Callable[[Image.Image, int], Image.Image]

ACTIONS: Final = ("drop", "weigh", "move", "quarantine", "inpaint")
WEIGHT: Final = 0.1


@dataclass(frozen=True)
class Action:
    """What is done to an image.

    Attributes:
        method: how, in words, for the record.
        weight: in the new corpus; 0 leaves the image out.
        label: the new one, or None.
        folder: where a new file lies, or "": none is written.
        repair: makes the new picture of the old one, RGB or grey, upright, and its row of the corpus; without one the
            file is copied.
    """

    name: str
    method: str = ""
    weight: float = 1.0
    label: str | None = None
    folder: str = ""
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        return {"action": self.name, "method": self.method, "weight": self.weight, "label": self.label}


def named(
    name: str, *, weight: float | None = None, label: str | None = None, place: Overlay | None = None,
    maps: Maps | None = None, classifier: Classifier | None = None,
) -> Action:  # fmt: skip
    """The action of a name among `ACTIONS`.

    Args:
        weight: for `weigh`, above 0. label: for `move`. place, maps, classifier: for `inpaint`.

    Raises:
        UsageError: an unknown name, a weight out of range, no label, or an argument of another action.
        InputError: nothing to inpaint under.
        MissingExtra: scikit-image is absent.
    """
    if name not in ACTIONS:
        raise unknown_name("action", name, ACTIONS)
    if (label is not None) != (name == "move"):
        raise UsageError("a label goes with the action move", got=f"{name}, label {label}", rule="--label NAME")
    if weight is not None and (name != "weigh" or not 0 < weight < np.inf):
        raise UsageError("a weight goes with the action weigh", got=f"{name}, {weight:g}", rule="above 0, finite")
    if name == "inpaint":
        return inpaint(masks.of(place, maps), classifier)
    return {
        "drop": Action("drop", weight=0),
        "weigh": Action("weigh", weight=WEIGHT if weight is None else weight),
        "move": Action("move", label=label),
        "quarantine": Action("quarantine", weight=0, folder="quarantine"),
    }[name]


def passed(repair: Callable[[Image.Image], Image.Image], method: str) -> Action:
    """Passes images through a callable; `method` says for the record what it does."""
    return Action("pass", method, folder="images", repair=lambda picture, _: repair(picture))


def inpaint(under: Masks, classifier: Classifier | None = None) -> Action:
    """Fills the place of an artifact from its surroundings: solves the biharmonic equation under the mask
    (Damelin and Hoang 2018), as scikit-image does.

    Args:
        under: which pixels are filled.
        classifier: carries masks to files of any size; without one files have the mask's size.
    """
    try:
        from skimage.restoration import inpaint_biharmonic
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-image is not installed", remedy="pip install 'klarsicht[demo]'") from error

    @cache
    def frame(size: tuple[int, ...], shape: tuple[int, int]) -> crop_geometry.Frame:
        assert classifier is not None
        return crop_geometry.frame(classifier, size, shape)

    def on_file(mask: Bools, shape: tuple[int, int]) -> Bools:
        if classifier is not None:
            return frame(mask.shape, shape).on_file(mask)
        if shape != mask.shape:
            raise InputError("a mask that does not fit", got=shape, rule=f"{mask.shape}, the size of the mask")
        return mask

    def repair(picture: Image.Image, row: int) -> Image.Image:
        pixels = np.asarray(picture)
        mask = on_file(under(row), (picture.height, picture.width))
        filled = inpaint_biharmonic(pixels, mask, channel_axis=2 if pixels.ndim == 3 else None)
        new = np.rint(255 * np.clip(filled, 0, 1)).astype(np.uint8)
        return Image.fromarray(np.where(mask[..., None] if pixels.ndim == 3 else mask, new, pixels))

    method = f"inpaint_biharmonic, scikit-image {version('scikit-image')}, {under}"
    return Action("inpaint", method, folder="images", repair=repair)
