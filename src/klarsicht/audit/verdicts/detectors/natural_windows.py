"""Measure whether images of a class share windows by nature, where no other classes tell what is natural."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klarsicht.audit.results.significance import ALIGNED
from klarsicht.audit.verdicts.detectors.bank import FINE, change_of, detect_windows
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.patch_matches import W, comparison_rows, grey
from klarsicht.audit.verdicts.detectors.templates import TEMPLATE_POOL, WindowField
from klarsicht.ground.arrays import Pixels, Rows
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.aligned_details import median_detail_correlation

ALIGNED_IMAGES, ALIGNED_SIDE = 200, 32  # images of a class whose alignment is measured, and their shorter side
SILENT = 1.0  # nats, most that windows of images without an artifact score where none is shared by nature
MOST_WINDOWS = 4  # windows of a class that are taken away, one after another
ONE_WINDOW, ALL_WINDOWS = 0.5, 0.25  # share of a class that its strongest window may hold, or several windows together
SHOWN_SELDOM = 0.002  # share of other images that are more like the mean window of the members than a completed one
SHOWS_WINDOW = 0.6  # least correlation of a completed member with the mean window


@dataclass(frozen=True)
class NaturalWindows:
    """Measures of the windows that images of a class share by nature. correlation: median correlation of the details of
    two images at the same places. left: largest score in nats by windows among the images that are left without those
    that show the strongest window, and further ones; with them, where they are too many, see `score_left`."""

    correlation: float
    left: float

    @property
    def natural(self) -> bool:
        """Whether windows are shared by nature, as far as can be seen."""
        return not (self.correlation < ALIGNED and self.left < SILENT)

    @classmethod
    def of(cls, images: ClassImages, windows: Sequence[Detection]) -> NaturalWindows:
        """Measure the alignment of the images of a class, and what remains of its shared windows, from its detections
        `windows`; these are searched again where the strongest score is not silent itself."""
        some = generator(images.seed, "aligned").permutation(len(images.own))[:ALIGNED_IMAGES]
        return cls(measure_alignment(images.own.levels[np.sort(some)]), score_left(images, windows))


def measure_alignment(levels: Pixels) -> float:
    """Measure how far images (n, H, W, C) are aligned: the median correlation of the details of two at the same
    places."""
    return median_detail_correlation(grey(ImageStack(levels).shrunk_to(ALIGNED_SIDE))[..., 0])


def score_left(images: ClassImages, windows: Sequence[Detection]) -> float:
    """Compute the largest score of a window detection, in nats, after the images that show the strongest windows are
    removed from the class. Windows are searched again until nothing is left, at most MOST_WINDOWS times: the first time
    where those images are at most ONE_WINDOW of the class, then where all that are removed are at most ALL_WINDOWS."""
    rest, strongest = images, strongest_window(windows)
    for number in range(MOST_WINDOWS):
        if strongest.score < SILENT:
            break
        kept = np.setdiff1d(np.arange(len(rest.own)), complete_members(rest, strongest).members)
        if len(images.own) - len(kept) > (ALL_WINDOWS if number else ONE_WINDOW) * len(images.own):
            break
        rest = select_images(rest, kept)
        strongest = strongest_window(detect_windows(rest))
    return float(strongest.score)


def complete_strongest(images: ClassImages, windows: Sequence[Detection]) -> list[Detection]:
    """Complete the members of the strongest window detection of a class, unless it scores less than SILENT."""
    best = strongest_window(windows)
    return [complete_members(images, one) if one is best and one.score >= SILENT else one for one in windows]


def strongest_window(windows: Sequence[Detection]) -> Detection:
    """Return the detection of a window with the largest score."""
    return max((one for one in windows if change_of(one.name) == "tile"), key=lambda one: one.score)


def complete_members(images: ClassImages, window: Detection) -> Detection:
    """Add to a detected window the images more like the mean window of the members, at any place, than SHOWS_WINDOW and
    than all but SHOWN_SELDOM of other images, each with its place."""
    side = round(min(W / np.array(window.extent)))
    own, pool = (
        WindowField.of(shown.shrunk_to(side), FINE)
        for shown in (images.own, ImageStack(images.pool.levels[comparison_rows(images, TEMPLATE_POOL)]))
    )
    size = np.array(own.images.shape[1:3])
    corners = np.minimum(np.rint(window.places * size).astype(int), size - W)
    mean = own.extract(window.members, corners).mean(0, keepdims=True)
    mean /= max(float(np.linalg.norm(mean)), 1e-6)
    (like,), (where,) = own.match(mean, np.arange(len(own)))
    (other,), _ = pool.match(mean, np.arange(len(pool)))
    edge = max(SHOWS_WINDOW, float(np.quantile(other, 1 - SHOWN_SELDOM)))
    further = np.setdiff1d(np.flatnonzero(like > edge), window.members)
    members = np.concatenate([window.members, further])
    places = np.concatenate([window.places, where[further] / size])
    order = np.argsort(members)
    return replace(window, members=members[order], places=places[order])


def select_images(images: ClassImages, rows: Rows) -> ClassImages:
    """Keep some images (m,) of a class, by their numbers in it."""
    evidence = images.own.evidence
    own = ImageStack(images.own.levels[rows], None if evidence is None else evidence[rows])
    return replace(images, own=own, half=images.half[rows], sources=images.sources[rows])
