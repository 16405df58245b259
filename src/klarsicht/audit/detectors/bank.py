"""The bank of strict detectors: each scores one class at a few settings, in nats of surprise on held-out images.

A score is no p-value: natural groups of images surprise as well. What a score is worth is decided by the scores of
other classes; see numerics.statistics.conformal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.detectors.patch_matches import PatchMatches, PatchView, colour, grey
from klarsicht.audit.detectors.templates import TemplateMatches
from klarsicht.ground.arrays import Floats
from klarsicht.numerics.imaging import image_statistics
from klarsicht.numerics.statistics.base_rate import lump, natural_rate
from klarsicht.numerics.statistics.split_half import surprise


class Measure(Protocol):
    def __call__(self, x: Floats, /) -> Floats: ...


class Detector(Protocol):
    """Looks at a scene, called by its name, and gives one sign for each of its settings, always in the same order.

    `change` says how its artifact is put on other images; a name of interventions.CHANGES.
    """

    @property
    def change(self) -> str: ...

    def __call__(self, scene: ClassImages, name: str, /) -> Iterator[Detection]: ...


@dataclass(frozen=True)
class TailDetector:
    """More images of the class beyond an extreme of the other classes than there should be, for where its middle lies.

    Attributes:
        high: whether the upper tail is meant.
        shares: of the other classes' images beyond the extreme.
    """

    measure: Measure
    high: bool
    change: str
    shares: tuple[float, ...] = (0.002, 0.0005)

    def __call__(self, scene: ClassImages, name: str) -> Iterator[Detection]:
        own, pool = self.values(scene.own), self.values(scene.pool)[scene.others]
        for share in self.shares:
            edge = float(np.quantile(pool, 1 - share))
            expected = natural_rate(own[None], pool[None], edge)[0]
            beyond = own > edge
            halves = [beyond[side] for side in (scene.half, ~scene.half)]
            score = float(np.mean([surprise(half.sum(), len(half), expected) for half in halves]))
            yield Detection(f"{name} {share:g}", score, np.flatnonzero(lump(own, edge)))

    def values(self, shown: ImageStack) -> Floats:
        """The measure, with a sign that makes the meant tail the upper one."""
        found = shown.keep(getattr(self.measure, "__name__", "measure"), lambda: measured(self.measure, shown.levels))
        return found if self.high else -found


def measured(measure: Measure, levels: NDArray[np.uint8], block: int = 256) -> Floats:
    """A measure of many images, some at a time."""
    blocks = [measure(levels[a : a + block].astype(np.float32)) for a in range(0, len(levels), block)]
    return np.concatenate([*blocks, np.zeros(0)])


PLAIN = PatchView(colour, fine=False, soft=12.0)
FINE = PatchView(colour, fine=True, soft=8.0)
FINE_GREY = PatchView(grey, fine=True, soft=2.5)

DETECTORS: dict[str, Detector] = {
    "texture": PatchMatches(PLAIN, k=1, sides=(32, 50, 90), rungs=(0.9, 0.95, 0.98)),
    "evidence": PatchMatches(PLAIN, k=1, sides=(32, 50, 90), rungs=(0.9, 0.95), by_evidence=True),
    "fine": PatchMatches(FINE, k=3, sides=(32, 50, 90), rungs=(0.8, 0.9, 0.98)),
    "fine-grey": PatchMatches(FINE_GREY, k=3, sides=(32, 50, 90), rungs=(0.85, 0.93, 0.98)),
    "template": TemplateMatches(FINE_GREY, k=3, sides=(32, 50), rungs=(0.8, 0.86, 0.92)),
    "frame": TailDetector(image_statistics.frame, high=True, change="border"),
    "bars": TailDetector(image_statistics.bars, high=True, change="border"),
    "noise": TailDetector(image_statistics.noise, high=True, change="noise", shares=(0.02, 0.002, 0.0005)),
    "roughness": TailDetector(image_statistics.roughness, high=True, change="noise"),
    "chroma-noise": TailDetector(image_statistics.chroma_noise, high=True, change="noise"),
    "sharpness": TailDetector(image_statistics.sharpness, high=False, change="blur"),
    "ringing": TailDetector(image_statistics.ringing, high=False, change="blur"),
    "veil": TailDetector(image_statistics.veil, high=True, change="light"),
    "blockiness": TailDetector(image_statistics.blockiness, high=True, change="blocks"),
}
"""Colour casts are measured (numerics.imaging.image_statistics) and not among them: whole classes are green or blue by
nature. A cast of 13 % was not found on 48 real classes, and the heavy tails of natural colour hid what other detectors
saw."""


def examined(scene: ClassImages) -> list[Detection]:
    """What every detector sees."""
    return [sign for name, detector in DETECTORS.items() for sign in detector(scene, name)]


def change_of(name: str) -> str:
    """How the artifact behind a sign is put on other images: what its detector says. Signs of a run that was examined
    before may be of a detector that is gone; those were all of windows."""
    detector = DETECTORS.get(name.split()[0])
    return detector.change if detector else "tile"
