"""Detect windows that images of a class share at the same place, where images are aligned.

Radiographs, scans, slides and faces share windows by nature. So what is common to all compared images is taken off:
from each pixel of the high-passed images its mean, and what is left is divided by its deviation. Windows of the largest
rest are compared at the same places: what apparatus prints or cuts lies there, within a pixel or two.

The null is the same search in random classes: as many images, drawn from the class and the others together. A mark of
the class is in both halves of such a draw, and in its others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection
from klarsicht.audit.verdicts.detectors.patch_matches import W, comparison_rows, grey, make_detection, usable_sides
from klarsicht.ground.arrays import Bools, Doubles, Floats, Rows
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging import patches
from klarsicht.numerics.statistics.base_rate import null_match_rate
from klarsicht.numerics.statistics.split_half import CrossTest, cross_test, draw_halves, smoothed_rate

Vectors = NDArray[np.float32]

LEAST_DEVIATION: Final = 4.0  # grey levels: where images hardly differ, noise is no rest
SOFT: Final = 0.35  # deviations: variation within a window below it does not count
COMPARED_SEEDS: Final = 1000  # images whose windows are tried
RANDOM_CLASSES: Final = 39  # of the null: with the class itself 40, so that a rank can reach a p of 0.025


@dataclass(frozen=True)
class Likeness:
    """Correlations of windows with images.

    Attributes:
        owner: int (s,), image of each of s windows.
        places: int (s, 2), upper left pixels.
        like: float32 (s, n), the largest correlation of each window with each image.
        shape: (n, H, W, 1), of the shrunk images.
    """

    owner: Rows
    places: Rows
    like: Vectors
    shape: tuple[int, ...]

    def test(self, own: Bools, half: Bools, sources: Rows, threshold: float) -> tuple[CrossTest, Rows]:
        """Test the windows of a class (n,) across its halves, masks of all images, against the other images; return the
        test, and the windows (t,) that it numbers."""
        seeds = np.flatnonzero(own[self.owner])
        owner, inside, outside = self.owner[seeds], self.like[np.ix_(seeds, own)], self.like[np.ix_(seeds, ~own)]
        within = np.where(sources[owner, None] == sources[own], 0, inside)
        hit, first = within > threshold, half[own]
        counts = np.stack([hit[:, first].sum(1), hit[:, ~first].sum(1)], 1)
        rates = smoothed_rate((outside > threshold).sum(1), outside.shape[1])
        sizes = int(first.sum()), int((~first).sum())
        return cross_test(
            counts, sizes, rates, half[owner], lambda few: null_match_rate(within[few], outside[few], threshold)
        ), seeds


@dataclass(frozen=True)
class AlignedWindows:
    """Detector of windows at the same place, beyond what aligned images have in common.

    Attributes:
        k: windows of each image that are tried, those of the largest rest.
        sides: shorter sides of the shrunk images in pixels.
        thresholds: correlations above which an image matches.
        reach: pixels by which the same place may vary.
    """

    k: int = 3
    sides: tuple[int, ...] = (50, 90)
    thresholds: tuple[float, ...] = (0.8, 0.9)
    reach: int = 2
    change: str = "tile"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        n, own, half, sources = _masks(images)
        for side in usable_sides(images, self.sides):
            likeness = self.likeness(images, side)
            for threshold in self.thresholds:
                test, seeds = likeness.test(own, half, sources, threshold)
                seed = int(seeds[test.seed])
                members = likeness.like[seed, :n] > threshold
                members[likeness.owner[seed]] = True
                where = np.broadcast_to(likeness.places[seed], (n, 2))
                yield make_detection(f"{name} {side} {threshold:g}", test.score, members, where, likeness.shape)

    def score_random_classes(self, images: ClassImages) -> Doubles:
        """Compute the scores (RANDOM_CLASSES, m) of the m detections in random classes of as many images, each beside
        all other images."""
        n, own, _, sources = _masks(images)
        rng, scores = generator(images.seed, "random classes"), []
        sides = [self.likeness(images, side) for side in usable_sides(images, self.sides)]
        for _ in range(RANDOM_CLASSES):
            members, half = rng.permutation(own), np.zeros(len(own), bool)
            half[members] = draw_halves(n, rng)
            each = ((one, threshold) for one in sides for threshold in self.thresholds)
            scores.append([one.test(members, half, sources, threshold)[0].score for one, threshold in each])
        return np.array(scores)

    def likeness(self, images: ClassImages, side: int) -> Likeness:
        """Compare windows of the class and of other images, shrunk to a side: those of the class come first."""
        return images.own.compute_once(f"aligned {side}", partial(self._compare, images, side))

    def _compare(self, images: ClassImages, side: int) -> Likeness:
        others = images.pool.shrunk_to(side)[comparison_rows(images)]
        rest = standardise_details(np.concatenate([images.own.shrunk_to(side), others]))
        density = patches.box_mean((rest**2).mean(-1), W)
        places = patches.select_peaks(density, W - 1, self.k)
        some = np.sort(generator(images.seed, "aligned windows").permutation(len(rest))[:COMPARED_SEEDS])
        owner, at = np.repeat(some, self.k), places[some].reshape(-1, 2)
        return Likeness(owner, at, match_same_place(rest, owner, at, self.reach), rest.shape)


def _masks(images: ClassImages) -> tuple[int, Bools, Bools, Rows]:
    """Return the size of the class, and of the class and the compared other images together the masks of the class and
    of its half, and the sources; each other image is one of its own."""
    n, m = len(images.own), len(comparison_rows(images))
    sources = np.concatenate([np.unique(images.sources, return_inverse=True)[1], n + np.arange(m)])
    return n, np.arange(n + m) < n, np.concatenate([images.half, np.zeros(m, bool)]), sources


def standardise_details(images: Floats) -> Vectors:
    """High-pass images (n, H, W, C) of levels 0 to 255 in grey, subtract the mean of all and divide by the deviation,
    pixel by pixel: (n, H, W, 1)."""
    details = patches.high_pass(grey(np.asarray(images, np.float32)))
    deviation = np.sqrt(details.var(0) + LEAST_DEVIATION**2)
    return np.asarray((details - details.mean(0)) / deviation, np.float32)


def match_same_place(rest: Vectors, owner: Rows, places: Rows, reach: int) -> Vectors:
    """Compute the largest correlation (s, n) of s windows of images (n, H, W, 1), by owner (s,) and place (s, 2), with
    each image within `reach` pixels of the same place."""
    wide = np.pad(rest, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    like = np.empty((len(owner), len(rest)), np.float32)
    span = 2 * reach + 1
    for place in np.unique(places, axis=0):
        here = np.flatnonzero((places == place).all(1))
        near = wide[:, place[0] : place[0] + W + 2 * reach, place[1] : place[1] + W + 2 * reach]
        shifted = [
            patches.normalise_windows(near[:, i : i + W, j : j + W], SOFT) for i in range(span) for j in range(span)
        ]
        like[here] = patches.max_correlation(shifted[len(shifted) // 2][owner[here]], np.stack(shifted))
    return like
