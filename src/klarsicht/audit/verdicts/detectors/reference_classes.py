"""Compare a class with classes of photographs that come along, where a run has too few to tell what is natural.

`reference_scores.json` holds the scores of these detectors in clean classes of photographs, each beside one other
class: the null of the largest of them. Its rank is a p-value for photographs of such classes; what is left of a class
without the members must not stand out by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.results.significance import APART_P, WITH_OWN_NULL, compare_with_reference
from klarsicht.audit.verdicts.detectors.artifact_embedding import load_reference_embedding
from klarsicht.audit.verdicts.detectors.bank import (
    ALIGNED_WINDOWS,
    DETECTORS,
    FEW_CLASS_DETECTORS,
    LEARNED_DETECTORS,
    run_detectors,
)
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection
from klarsicht.audit.verdicts.detectors.natural_windows import select_images

REFERENCE_FILE = Path(__file__).parent / "reference_scores.json"


@dataclass(frozen=True)
class ReferenceClasses:
    """Scores of clean classes. images: number of images of each class, and of the other class. names: (r,), of the
    classes. signs: (m,), names of the detections. scores: float (r, m), in nats."""

    images: int
    names: tuple[str, ...]
    signs: tuple[str, ...]
    scores: NDArray[np.float64]

    def without(self, names: Sequence[str]) -> ReferenceClasses:
        """Leave out classes of some names."""
        kept = [i for i, name in enumerate(self.names) if name not in names]
        return replace(self, names=tuple(self.names[i] for i in kept), scores=self.scores[kept])


@cache
def shipped_reference() -> ReferenceClasses:
    """Read the scores that come along; see benchmarks/audit/reference_scores.py."""
    return read_reference(REFERENCE_FILE)


def read_reference(file: Path) -> ReferenceClasses:
    """Read the scores of reference classes from a file."""
    known = json.loads(file.read_text(encoding="utf-8"))
    return ReferenceClasses(
        known["images"], tuple(known["names"]), tuple(known["signs"]), np.array(known["scores"], np.float64)
    )


@dataclass(frozen=True)
class ReferenceTest:
    """Test of the detection by which a class stands out most among reference classes. sign: name of the detection. p:
    p-value, see `significance.compare_with_reference`. left: the same of what is left of the class without the members;
    NaN where p is above APART_P or more than half of the class are members: what more share is its nature."""

    sign: str
    p: float
    left: float

    @classmethod
    def of(
        cls, images: ClassImages, detections: Sequence[Detection], reference: ReferenceClasses | None = None,
        detect: Callable[[ClassImages], list[Detection]] | None = None,
    ) -> ReferenceTest:  # fmt: skip
        """Test a class by its detections, some of which the reference knows; `detect` makes those of what is left."""
        classes = reference or shipped_reference()
        best, p = find_standing_out(images, detections, classes)
        remaining_score, kept = float("nan"), np.setdiff1d(np.arange(len(images.own)), best.members)
        if p <= APART_P and 2 * len(kept) >= len(images.own):
            rest = select_images(images, kept)
            remaining_score = find_standing_out(rest, (detect or detect_described)(rest), classes)[1]
        return cls(best.name, p, remaining_score)


def compare_aligned(images: ClassImages) -> tuple[list[Detection], ReferenceTest]:
    """Detect windows that aligned images of a class share, and test them beside random classes of the same images."""
    found, scores = detect_aligned(images), ALIGNED_WINDOWS.score_random_classes(images)
    names = tuple(f"random class {i}" for i in range(1, len(scores) + 1))
    reference = ReferenceClasses(len(images.own), names, tuple(one.name for one in found), scores)
    return found, ReferenceTest.of(images, found, reference, detect_aligned)


def detect_aligned(images: ClassImages) -> list[Detection]:
    """Run the detector of aligned images on the images of a class."""
    return list(ALIGNED_WINDOWS(images, WITH_OWN_NULL))


def find_standing_out(
    images: ClassImages, detections: Sequence[Detection], reference: ReferenceClasses
) -> tuple[Detection, float]:
    """Return the detection of a class that stands out most among reference classes, and its p-value."""
    by_name = {one.name: one for one in detections}
    scores = np.array([by_name[sign].score for sign in reference.signs])
    best, p = compare_with_reference(scores, reference.scores, min(1, reference.images / len(images.own)))
    return by_name[reference.signs[best]], p


def detect_described(images: ClassImages) -> list[Detection]:
    """Run the detectors of the reference on the images of a class: all but windows and what is learned on the run."""
    described = {
        name: one for name, one in DETECTORS.items() if one.change != "tile" and not isinstance(one, LEARNED_DETECTORS)
    }
    return run_detectors(images, described) + detect_shipped(images)


def detect_shipped(images: ClassImages) -> list[Detection]:
    """Run the detectors of few classes on the images of a class: by the embedding of the reference, and by colours."""
    embedding = load_reference_embedding() if images.own.levels.shape[-1] == 3 else None
    return run_detectors(replace(images, embedding=embedding), FEW_CLASS_DETECTORS)
