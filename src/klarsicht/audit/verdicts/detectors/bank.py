"""Registry of detectors: each scores one class at a few settings, in nats of surprisal on held-out images. Natural
groups score as well: the p of a score follows from those of other classes, see numerics.statistics.conformal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from klarsicht.audit.results.significance import WITH_OWN_NULL
from klarsicht.audit.verdicts.detectors.aligned_windows import AlignedWindows
from klarsicht.audit.verdicts.detectors.altered_images import AlteredImages
from klarsicht.audit.verdicts.detectors.artifact_embedding import EMBEDDED_SIDE
from klarsicht.audit.verdicts.detectors.colour_spots import FlatColour, OneSidedColour
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack, Measure, measure_in_blocks
from klarsicht.audit.verdicts.detectors.outlying_groups import SHRUNK, EmbeddedGroups, OutlyingGroups
from klarsicht.audit.verdicts.detectors.patch_matches import SHIFTS, PatchMatches, PatchView, W, colour, grey
from klarsicht.audit.verdicts.detectors.templates import TemplateMatches, one_per_source
from klarsicht.ground.arrays import Floats
from klarsicht.ground.progress import track
from klarsicht.numerics.imaging import image_descriptions, image_statistics
from klarsicht.numerics.statistics.base_rate import null_rate, select_above_gap
from klarsicht.numerics.statistics.split_half import binomial_surprisal


class Detector(Protocol):
    """Protocol of a detector: called with the images of a class and its own name, it yields one detection for each
    setting, in the same order. `change` is how its artifact is inserted, a name of interventions.insertion.CHANGES."""

    @property
    def change(self) -> str: ...

    def __call__(self, images: ClassImages, name: str, /) -> Iterator[Detection]: ...


@dataclass(frozen=True)
class TailDetector:
    """Detector of an excess of the class's images, one of each source, beyond an extreme quantile of the other classes,
    given the class's median: of their `measure`, in the upper tail where it is `high`, with `shares` of the other
    classes' images beyond."""

    measure: Measure
    high: bool
    change: str
    shares: tuple[float, ...] = (0.002, 0.0005)

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        own, pool = self.values(images.own), self.values(images.pool)[images.others]
        once = one_per_source(images)
        for share in self.shares:
            edge = float(np.quantile(pool, 1 - share))
            expected = null_rate(own[None, once], pool[None], edge)[0]
            beyond = own > edge
            halves = [beyond[side & once] for side in (images.half, ~images.half)]
            score = float(np.mean([binomial_surprisal(half.sum(), len(half), expected) for half in halves]))
            yield Detection(f"{name} {share:g}", score, np.flatnonzero(select_above_gap(own, edge)))

    def values(self, stack: ImageStack) -> Floats:
        """Compute the measure, negated where the lower tail is meant."""
        found = stack.compute_once(
            getattr(self.measure, "__name__", "measure"), lambda: measure_in_blocks(self.measure, stack.levels)
        )
        return found if self.high else -found


PLAIN = PatchView(colour, fine=False, soft=12.0)
FINE = PatchView(colour, fine=True, soft=8.0)
FINE_GREY = PatchView(grey, fine=True, soft=2.5)

DETECTORS: dict[str, Detector] = {
    "texture": PatchMatches(PLAIN, k=1, sides=(32, 50, 90), thresholds=(0.9, 0.95, 0.98)),
    "evidence": PatchMatches(PLAIN, k=1, sides=(32, 50, 90), thresholds=(0.9, 0.95), by_evidence=True),
    "fine": PatchMatches(FINE, k=3, sides=(32, 50, 90), thresholds=(0.8, 0.9, 0.98)),
    "fine-grey": PatchMatches(FINE_GREY, k=3, sides=(32, 50, 90), thresholds=(0.85, 0.93, 0.98)),
    "template": TemplateMatches(FINE_GREY, k=3, sides=(32, 50), thresholds=(0.8, 0.86, 0.92)),
    "frame": TailDetector(image_statistics.frame, high=True, change="border"),
    "bars": TailDetector(image_statistics.bars, high=True, change="border"),
    "noise": TailDetector(image_statistics.noise, high=True, change="noise", shares=(0.02, 0.002, 0.0005)),
    "chroma-noise": TailDetector(image_statistics.chroma_noise, high=True, change="noise"),
    "sharpness": TailDetector(image_statistics.sharpness, high=False, change="blur"),
    "ringing": TailDetector(image_statistics.ringing, high=False, change="blur"),
    "veil": TailDetector(image_statistics.veil, high=True, change="light"),
    "blockiness": TailDetector(image_statistics.blockiness, high=True, change="blocks"),
    "spectrum": OutlyingGroups(image_descriptions.spectrum),
    "autocorrelation": OutlyingGroups(image_descriptions.autocorrelations),
    "channel-correlation": OutlyingGroups(image_descriptions.channel_correlations),
    "colours": OutlyingGroups(image_descriptions.colours, shrunk=True),
    "borders": OutlyingGroups(image_descriptions.borders),
    "binary-patterns": OutlyingGroups(image_descriptions.binary_patterns),
    "embedding": EmbeddedGroups(),
    "embedding-means": EmbeddedGroups((0.002,), whiten=False),
    "altered": AlteredImages(),
}
"""Colour casts are not among them: whole classes are green or blue by nature."""

LEARNED_DETECTORS = (EmbeddedGroups, AlteredImages)
"""Detectors by what is learned on the run's own images."""

FEW_CLASS_DETECTORS: dict[str, Detector] = {
    "shipped-embedding": EmbeddedGroups(),
    "flat-colour": FlatColour(),
    "one-sided-colour": OneSidedColour(),
}
"""Detectors of runs with too few classes to be compared; for the first of them images carry the embedding of the
reference classes."""

ALIGNED_WINDOWS = AlignedWindows()
ALIGNED_DETECTORS: dict[str, Detector] = {WITH_OWN_NULL: ALIGNED_WINDOWS}
"""Detectors of such runs whose images are aligned."""

ALL_DETECTORS = DETECTORS | FEW_CLASS_DETECTORS | ALIGNED_DETECTORS


def run_detectors(images: ClassImages, detectors: Mapping[str, Detector] = DETECTORS) -> list[Detection]:
    """Run detectors, by default all, on the images of a class."""
    tried = track(detectors.items(), len(detectors), "detectors")
    return [detection for name, detector in tried for detection in detector(images, name)]


def bytes_of_image(shape: tuple[int, int, int]) -> int:
    """Compute the bytes that detectors hold at once of one image (H, W, C) of a class: its levels, floats at each side
    to which images are shrunk, and the windows of the detector that holds most."""
    height, width, channels = shape
    short, long = sorted((height, width))
    compared = [one for one in DETECTORS.values() if isinstance(one, PatchMatches | TemplateMatches)]
    sides = {side for one in compared for side in one.sides} | {SHRUNK, EMBEDDED_SIDE}
    areas = {side: side * round(long * side / short) for side in sides if side < short} or {short: height * width}
    windows = max(len(SHIFTS) * one.k * W * W for one in compared) * channels
    return height * width * channels + 4 * (channels * sum(areas.values()) + windows + 2 * max(areas.values()))


def detect_windows(images: ClassImages) -> list[Detection]:
    """Run the detectors of windows on the images of a class."""
    return run_detectors(images, {name: one for name, one in DETECTORS.items() if one.change == "tile"})


def change_of(name: str) -> str:
    """Return the change by which the artifact of a detection is inserted into other images."""
    return ALL_DETECTORS[name.split()[0]].change
