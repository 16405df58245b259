"""Define the actions on images of a corpus that carry an artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from PIL import Image

from klarsicht.audit.cleaning.artifacts.masks import Maps, Masks
from klarsicht.audit.explanation.models import crop_geometry
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.arrays import Bools, Doubles
from klarsicht.ground.errors import InputError, MissingExtra, UsageError, unknown_name
from klarsicht.ground.optional import install_command
from klarsicht.ground.ranges import IMAGE_WEIGHT
from klarsicht.numerics.imaging.relevance_masks import PEAK_SHARE

Repair = Callable[[Any, int], Any]  # from a picture or an array (H, W, C), and its row, to one of the same kind

INPAINT: Final = "inpaint"
ACTIONS: Final = ("drop", "weigh", "move", "quarantine", INPAINT)
WEIGHT: Final = 0.1


@dataclass(frozen=True)
class Action:
    """Action on an image. weight: in the new corpus; 0 leaves the image out. label: the new one, or None. folder:
    folder of new files, or "": none is written. repair: function from the original picture, RGB or grey, upright, or
    the array (H, W, C) of a model of arrays, and its row of the corpus to the new one; None copies the file."""

    name: str
    method: str = ""
    weight: float = 1.0
    label: str | None = None
    folder: str = ""
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the action as JSON values."""
        return {"action": self.name, "method": self.method, "weight": self.weight, "label": self.label}


def check_action(name: str, *, weight: float | None = None, label: str | None = None) -> None:
    """Check the name of an action and its arguments, before a model is loaded. Raises as make_action does."""
    if name not in ACTIONS:
        raise unknown_name("action", name, ACTIONS)
    if label is None and name == "move":
        raise UsageError("the action move lacks the new label", remedy="Give --label NAME.")
    if label is not None and name != "move":
        raise UsageError("a label goes with the action move", got=f"{name}, label {label}", remedy="Leave --label out.")
    if weight is not None:
        IMAGE_WEIGHT.require("weight", weight)
        if name != "weigh":
            rule, remedy = "a weight goes with the action weigh", "Leave --weight out."
            raise UsageError("an action without a weight", got=f"{name}, weight {weight:g}", rule=rule, remedy=remedy)


def make_action(
    name: str, *, weight: float | None = None, label: str | None = None, place: Overlay | None = None,
    maps: Maps | None = None, classifier: Classifier | None = None, share: float = PEAK_SHARE,
) -> Action:  # fmt: skip
    """Make the action of a name among `ACTIONS`: `weigh` with a weight above 0, `move` with a label, `inpaint` with
    place, maps, classifier and share, see Masks.of. Raises UsageError: an unknown name, a weight out of range, no
    label, or an argument of another action; InputError: no mask to inpaint under; MissingExtra: scikit-image is not
    installed."""
    check_action(name, weight=weight, label=label)
    if name == INPAINT:
        return make_inpaint_action(Masks.of(place, maps, share), classifier)
    return {
        "drop": Action("drop", weight=0),
        "weigh": Action("weigh", weight=WEIGHT if weight is None else weight),
        "move": Action("move", label=label),
        "quarantine": Action("quarantine", weight=0, folder="quarantine"),
    }[name]


def combine_actions(actions: Sequence[Action], carries: Bools) -> Action:
    """Combine the same action for m artifacts: each image is repaired of every artifact that it carries, bool (m, N),
    in order."""
    if len(actions) == 1 or actions[0].repair is None:
        return actions[0]
    repairs = [action.repair for action in actions if action.repair is not None]

    def repair(picture: Any, row: int) -> Any:
        for mend, on in zip(repairs, carries[:, row], strict=True):
            picture = mend(picture, row) if on else picture
        return picture

    return replace(actions[0], method="; ".join(dict.fromkeys(one.method for one in actions)), repair=repair)


def make_pass_action(repair: Callable[[Any], Any], method: str) -> Action:
    """Make the action that passes images through a callable, from and to a `PIL.Image`, or, of a corpus for a model of
    arrays, an array (H, W, C) of its type and range; `method` describes it in the record."""
    return Action("pass", method, folder="images", repair=lambda picture, _: repair(picture))


def make_inpaint_action(under: Masks, classifier: Classifier | None = None) -> Action:
    """Make the action that fills the place of an artifact from its surroundings, by the biharmonic equation (Damelin
    and Hoang 2018) of scikit-image. A classifier maps masks to files of any size; without one, files have the size of
    the mask."""
    try:
        from skimage.restoration import inpaint_biharmonic
    except ModuleNotFoundError as error:
        raise MissingExtra("scikit-image is not installed", remedy=f"{install_command('demo')}.") from error

    @cache
    def frame(size: tuple[int, ...], shape: tuple[int, int]) -> crop_geometry.CropGeometry:
        assert classifier is not None
        return crop_geometry.fit_crop_geometry(classifier, size, shape)

    def on_file(mask: Bools, shape: tuple[int, int]) -> Bools:
        if classifier is not None:
            return frame(mask.shape, shape).map_to_file(mask)
        if shape != mask.shape:
            raise InputError("a mask that does not fit", got=shape, rule=f"{mask.shape}, the size of the mask")
        return mask

    form = None if classifier is None else classifier.form

    def fill(share: Any, mask: Bools) -> Doubles:
        """Fill an image under a mask; black is 0, white 1."""
        filled = inpaint_biharmonic(share, mask, channel_axis=2 if share.ndim == 3 else None)
        return np.asarray(np.clip(filled, 0, 1), np.float64)

    def repair(picture: Any, row: int) -> Any:
        pixels = np.asarray(picture)
        mask = on_file(under.of_row(row), pixels.shape[:2])
        over = mask[..., None] if pixels.ndim == 3 else mask
        if isinstance(picture, Image.Image):
            new = np.rint(255 * fill(pixels, mask)).astype(np.uint8)
            return Image.fromarray(np.where(over, new, pixels))
        if form is None:
            raise InputError("an array without a range", got=pixels.dtype, rule="the model's, which takes arrays")
        return np.where(over, form.of_share(fill(form.to_share(pixels), mask)), pixels)

    method = f"inpaint_biharmonic, scikit-image {version('scikit-image')}, {under.description}"
    return Action("inpaint", method, folder="images", repair=repair)
