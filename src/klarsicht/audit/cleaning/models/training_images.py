"""Recognise images that a model was trained on: losses there say little of losses elsewhere.

They are known by the column `split` of a manifest; or by accuracy and confidence far above those of other images; or,
without any images to compare with, where nearly every answer is right and sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import special

from klarsicht.audit.explanation.data.splits import is_training_split
from klarsicht.ground.arrays import Bools, Floats, Ints

APART: Final = 0.02  # of accuracy, least difference between images trained on and others
NEARLY_ALL: Final = 0.97  # accuracy from which images look trained on where there are none to compare with
CONFIDENT: Final = 0.9  # and mean confidence
FEWEST: Final = 50  # images from which an accuracy says so
ERRORS: Final = 2.0  # standard errors by which two means must differ


@dataclass(frozen=True)
class ImageOrigin:
    """Origin of the images that a correction is shown on: whether the model was trained on them, and the evidence in
    words."""

    trained_on: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"trained on": self.trained_on, "why": self.why}


UNKNOWN: Final = ImageOrigin(False, "")


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers of a model to images whose right outputs are known: whether each is right, bool (n,), and its
    probability."""

    right: Bools
    confidence: Floats

    @classmethod
    def of(cls, logits: Floats, truth: Ints) -> LabelledAnswers:
        """Take answers from logits (n, K), and right outputs (n,)."""
        p = special.softmax(np.asarray(logits, np.float64), 1)
        return cls(p.argmax(1) == truth, p.max(1))

    def __len__(self) -> int:
        return len(self.right)

    def __str__(self) -> str:
        return f"{self.right.mean():.1%} right, confidence {self.confidence.mean():.1%}"

    def exceeds(self, other: LabelledAnswers) -> bool:
        """Test whether accuracy and confidence are far above those of other images."""
        if min(len(self), len(other)) < FEWEST:
            return False
        sides = ((self.right.astype(float), other.right.astype(float)), (self.confidence, other.confidence))
        apart = [float(a.mean() - b.mean()) for a, b in sides]
        error = [float(np.hypot(a.std() / np.sqrt(len(a)), b.std() / np.sqrt(len(b)))) for a, b in sides]
        return apart[0] >= APART and all(d > ERRORS * e for d, e in zip(apart, error, strict=True))


def recognise_training_images(
    shown: LabelledAnswers, splits: Sequence[str] = (), other: LabelledAnswers | None = None
) -> ImageOrigin:
    """Recognise whether the model was trained on the shown images, by their names in the manifest's column split, or by
    answers to `other` images of the run, where those shown are of another corpus that is said to be held out."""
    named = [name for name in splits if name]
    if named and len(named) == len(splits):
        trained = [is_training_split(name) for name in named]
        names = ", ".join(sorted(set(named)))
        return ImageOrigin(
            any(trained), f"{sum(trained) or len(named)} of {len(named)} clean ones by the manifest's split: {names}"
        )
    if other is not None:
        if shown.exceeds(other):
            return ImageOrigin(True, f"{shown}; of the run's own images {other}")
        more = "; the model was trained on the run's own images" if other.exceeds(shown) else ""
        return ImageOrigin(False, f"of another corpus: {shown}; of the run's own {other}{more}")
    if len(shown) >= FEWEST and shown.right.mean() >= NEARLY_ALL and shown.confidence.mean() >= CONFIDENT:
        return ImageOrigin(True, f"{shown}, as of images that a model was trained on")
    return UNKNOWN
