"""The words of corrections: their verdicts, with the next step, and counts of treated images."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from klarsicht.audit.results.words import format_count


def describe_lost(value: float, low: float, high: float) -> str:
    """Say how many points of accuracy are lost, or gained where the loss, a share with its interval, is negative."""
    if value < 0:
        return f"gains {-100 * value:.2f} points ({-100 * high:z.2f} to {-100 * low:z.2f})"
    return f"loses {100 * value:.2f} points ({100 * low:z.2f} to {100 * high:z.2f})"


class CleaningKind(StrEnum):
    """Kinds of verdicts on a correction; CLEANINGS has their texts."""

    CLEAN = "clean"
    UNPROVEN = "clean-unproven"
    UNTESTED = "clean-untested"
    HARMFUL = "harmful"
    UNUSED = "unused"
    SMALL = "small"
    REFUSED = "refused"
    REMAINS = "remains"
    UNSHOWN = "gain-not-shown"

    @property
    def label(self) -> str:
        """The verdict in two to four words."""
        return CLEANINGS[self][0]

    @property
    def claim(self) -> str:
        """The verdict as a clause."""
        return CLEANINGS[self][1]

    @property
    def advice(self) -> str:
        """The next step."""
        return CLEANINGS[self][2]


EVALUATION_COMMAND: Final = "klarsicht audit evaluate {run} --correction {correction} --test IMAGES"
ON_OTHER_IMAGES: Final = f"`{EVALUATION_COMMAND.format(run='RUN', correction='FOLDER')}`"


def name_folders(words: str, run: str, correction: str) -> str:
    """Name the folders of a run and of a correction in a sentence that says how to evaluate on other images."""
    command = EVALUATION_COMMAND.format(run=shlex.quote(run), correction=shlex.quote(correction))
    return words.replace(ON_OTHER_IMAGES, f"`{command}`")


CLEANINGS: Final = {
    CleaningKind.CLEAN: ("cleaned", "the model is cleaned", "Use the corrected model."),
    CleaningKind.UNPROVEN: (
        "cleaned, loss not excluded",
        "the model is cleaned; a loss of accuracy is not excluded",
        f"Use the corrected model, or measure the loss on more clean images: {ON_OTHER_IMAGES}.",
    ),
    CleaningKind.UNTESTED: (
        "corrected, use not tested",
        "the images named no longer stand out; whether the model uses what they share was not tested",
        "Look at the images. If they share an artifact, show where it lies by --mask, or take it out of the data: "
        "`klarsicht audit clean-data`. If they share none, keep the old model.",
    ),
    CleaningKind.HARMFUL: (
        "harmful",
        "the corrected model loses more accuracy than allowed",
        "Choose another --method or --layer, or a smaller --strength.",
    ),
    CleaningKind.UNUSED: (
        "no use shown",
        "the model is not shown to use the artifact",
        "Keep the model. If you doubt it, run `klarsicht audit quantify`, list more images (--members), "
        "or name a --method.",
    ),
    CleaningKind.SMALL: (
        "effect too small",
        "the effect of the artifact is too small to correct",
        "Keep the model, or correct it anyway: --least-effect 0.",
    ),
    CleaningKind.REFUSED: (
        "no correction helps",
        "no correction helps, so the model stays as it is",
        "Try --train, name a --method, or clean the data: `klarsicht audit clean-data`.",
    ),
    CleaningKind.REMAINS: (
        "correction does not help",
        "the correction does not help",
        "Choose another --method or --layer, or --train.",
    ),
    CleaningKind.UNSHOWN: (
        "gain not shown",
        "more images are right, and too few were shown to prove it",
        "Name more images by --balanced.",
    ),
}
"""For each kind of verdict on a correction its label, its claim and the next step."""

TREATED: Final = {
    "drop": "left out",
    "weigh": "weighted",
    "move": "relabelled",
    "quarantine": "put aside",
    "inpaint": "inpainted",
    "denoise": "denoised",
    "keep": "unchanged",
    "skip": "unreadable",
}
"""For each action of `audit clean-data` on an image, its result; other actions have their own names."""


def describe_counts(counts: Mapping[str, int]) -> str:
    """Say how many images were treated in each way: "18 images inpainted, 162 unchanged"."""
    (first, n), *rest = sorted(counts.items())
    others = [f"{number:,} {TREATED.get(action, action)}" for action, number in rest]
    return ", ".join([f"{format_count(n, 'image')} {TREATED.get(first, first)}", *others])
