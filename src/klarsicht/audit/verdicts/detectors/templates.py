"""Detect windows like a template, the mean of similar windows: two carriers of a faint or re-encoded mark correlate
less with each other than each does with the mark. The windows that match most on one half of a class are averaged, and
the mean is compared with every window of every image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.patch_matches import (
    PatchView,
    W,
    Windows,
    comparison_rows,
    make_detection,
    usable_sides,
)
from klarsicht.ground.arrays import Floats, Rows
from klarsicht.numerics.imaging.patches import normalise_windows
from klarsicht.numerics.statistics.base_rate import null_match_rate
from klarsicht.numerics.statistics.split_half import chernoff_bound, cross_test, smoothed_rate

Vectors = NDArray[np.float32]

IMAGE_BLOCK = 64  # images whose windows are held at once
TEMPLATE_POOL = 1000  # images of the pool that templates are compared with
RARE = 0.01  # share of other images that may match a template; with more matches it is no artifact
COMMON = 1 - 1e-9  # match rate at which the surprisal is 0
EXPECTED_RATIO = 1.0  # expected matches above a threshold per match just below it; faint marks correlate by degrees


@dataclass(frozen=True)
class TemplateMatches:
    """Detector of images with a window like a template. k: windows of each image that templates start from, those of
    most texture. sides: shorter sides of the shrunk images in pixels. thresholds: correlations with the template above
    which an image counts; the best one is chosen. averaging_threshold: correlation above which windows are averaged.
    templates_per_half: templates tried in each half. rounds: times that a template becomes the mean of its matches."""

    view: PatchView
    k: int
    sides: tuple[int, ...]
    thresholds: tuple[float, ...]
    averaging_threshold: float = 0.75
    templates_per_half: int = 8
    rounds: int = 2
    change: str = "tile"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        for side in usable_sides(images, self.sides):
            yield self._at(images, name, side)

    def _at(self, images: ClassImages, name: str, side: int) -> Detection:
        once = one_per_source(images)
        compared, others = images.compared_pool, comparison_rows(images, TEMPLATE_POOL)
        own, windows = self.field(images.own, side), self.windows(images.own, side)
        pool = compared.compute_once(f"{name} field {side}", lambda: self.field(compared, side))
        learned = [
            self.learn_templates(images, name, side, np.flatnonzero(part & once), windows, own)
            for part in (images.half, ~images.half)
        ]
        del windows
        templates = np.concatenate(learned)
        if not len(templates):
            return make_detection(
                f"{name} {side}", 0.0, np.zeros(len(own), bool), np.zeros((len(own), 2)),
                images.own.shrunk_to(side).shape,
            )  # fmt: skip
        (like, places), (other, _) = own.match(templates, np.arange(len(own))), pool.match(templates, others)
        hits = np.stack([like > threshold for threshold in self.thresholds])
        counts = np.stack([hits[:, :, part & once].sum(2) for part in (images.half, ~images.half)], 2)
        rates = np.stack([self.expected_rates(like[:, once], other, threshold) for threshold in self.thresholds])
        first = np.tile(np.arange(len(templates)) < len(learned[0]), len(self.thresholds))
        sizes = int((images.half & once).sum()), int((~images.half & once).sum())
        found = cross_test(counts.reshape(-1, 2), sizes, rates.ravel(), first)
        threshold, number = divmod(found.seed, len(templates))
        return make_detection(
            f"{name} {side}", found.score, hits[threshold, number], places[number], images.own.shrunk_to(side).shape
        )

    def field(self, stack: ImageStack, side: int) -> WindowField:
        """Return all windows of a stack."""
        return WindowField.of(stack.shrunk_to(side), self.view)

    def expected_rates(self, own: Floats, pool: Floats, threshold: float) -> Floats:
        """Compute the expected match rates (t,) of templates; COMMON where more than RARE of the pool match."""
        held = (pool > threshold).mean(1)
        return np.where(held > RARE, COMMON, np.minimum(null_match_rate(own, pool, threshold, EXPECTED_RATIO), COMMON))

    def learn_templates(
        self, images: ClassImages, name: str, side: int, rows: Rows, windows: Windows, field: WindowField
    ) -> Vectors:
        """Compute templates (t, D) from some images: means of the matches of the most surprising windows."""
        compared = images.compared_pool
        pool = compared.compute_once(f"{name} {side}", lambda: self.windows(compared, side))
        seeds = windows.vectors[4][:, rows].reshape(-1, windows.vectors.shape[-1])
        like = windows.max_correlations(seeds, rows) > self.averaging_threshold
        others = comparison_rows(images, TEMPLATE_POOL)
        outside = (pool.max_correlations(seeds, others) > self.averaging_threshold).sum(1)
        worth = chernoff_bound(like.sum(1), len(rows), smoothed_rate(outside, len(others)))
        templates = seeds[
            select_distinct_seeds(worth, like, np.tile(np.arange(len(rows)), self.k), self.templates_per_half)
        ]
        for _ in range(self.rounds if len(templates) else 0):
            templates = self.average_matches(field, templates, rows)
        return np.asarray(templates, np.float32)

    def windows(self, stack: ImageStack, side: int) -> Windows:
        """Extract the k windows of most texture of each image."""
        return Windows.of_many(stack.shrunk_to(side), self.view, self.k)

    def average_matches(self, field: WindowField, templates: Vectors, rows: Rows) -> Vectors:
        """Replace each template (t, D) by the normalised mean of its matches, one for each image, if it has two."""
        like, places = field.match(templates, rows)
        averages = templates.copy()
        for i, held in enumerate(like > self.averaging_threshold):
            if held.sum() > 1:
                mean = field.extract(rows[held], places[i, held]).mean(0)
                averages[i] = mean / max(float(np.linalg.norm(mean)), 1e-6)
        return averages


def select_distinct_seeds(worth: Floats, like: NDArray[np.bool_], owner: Rows, most: int) -> list[int]:
    """Select the seeds (s,) of largest surprisal whose images neither match (`like`, (s, n)) nor own an earlier one."""
    seeds: list[int] = []
    is_covered = np.zeros(like.shape[1], bool)
    for seed in np.argsort(-worth, kind="stable"):
        if len(seeds) == most or worth[seed] <= 0:
            break
        if not is_covered[owner[seed]]:
            seeds.append(int(seed))
            is_covered |= like[seed]
            is_covered[owner[seed]] = True
    return seeds


def one_per_source(images: ClassImages) -> NDArray[np.bool_]:
    """Select one image of each source (n,), since images of one source are alike for that reason."""
    once = np.zeros(len(images.own), bool)
    once[np.unique(images.sources, return_index=True)[1]] = True
    return once


@dataclass(frozen=True)
class WindowField:
    """All windows of n images float32 (n, H, W, C) in the compared representation, with their norms (n, h * w), w in a
    row, computed in blocks and never held at once; variation below `soft` grey levels does not count."""

    images: Vectors
    norms: Vectors
    width: int
    soft: float

    @classmethod
    def of(cls, x: Floats, view: PatchView) -> WindowField:
        images = np.asarray(view(x), np.float32)
        norms = []
        for start in range(0, len(images), IMAGE_BLOCK):
            windows = _windows(images[start : start + IMAGE_BLOCK])
            square = (windows**2).sum(-1) - windows.shape[-1] * windows.mean(-1) ** 2
            norms.append(np.sqrt(np.maximum(square, 0) + windows.shape[-1] * view.soft**2))
        return cls(images, np.concatenate(norms), images.shape[2] - W + 1, view.soft)

    def __len__(self) -> int:
        return len(self.images)

    def match(self, templates: Vectors, rows: Rows) -> tuple[Vectors, Rows]:
        """Compute the largest correlation (t, n) of zero-mean templates (t, D) in images, and its upper left pixels."""
        best, flat = [], []
        for start in range(0, len(rows), IMAGE_BLOCK):
            some = rows[start : start + IMAGE_BLOCK]
            like = (_windows(self.images[some]) @ templates.T) / self.norms[some][..., None]
            best.append(like.max(1))
            flat.append(like.argmax(1))
        return np.concatenate(best).T, np.stack(np.divmod(np.concatenate(flat).T, self.width), -1)

    def extract(self, rows: Rows, places: Rows) -> Vectors:
        """Extract the normalised windows (n, D) at places (n, 2)."""
        return np.concatenate(
            [
                normalise_windows(self.images[row, a : a + W, b : b + W][None], self.soft)
                for row, (a, b) in zip(rows, places, strict=True)
            ]
        )


def _windows(images: Vectors) -> Vectors:
    """Return all windows of images (n, H, W, C) as vectors (n, h * w, D)."""
    windows = sliding_window_view(images, (W, W), (1, 2))  # type: ignore[call-overload, unused-ignore]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(len(images), -1, W * W * images.shape[-1])
