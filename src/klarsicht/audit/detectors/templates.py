"""Windows like the mean of windows that are alike: of marks that are blended or re-encoded, the mean has no noise.

Two carriers of a faint mark share less with each other than each does with the mark. So the windows that are most alike
on one half of a class are laid over each other, and their mean is looked for at every place of every image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.detectors.patch_matches import PatchView, W, Windows, compared, sides_of, sign
from klarsicht.ground.arrays import Floats, Rows
from klarsicht.numerics.imaging.patches import normalised
from klarsicht.numerics.statistics.base_rate import natural_likeness
from klarsicht.numerics.statistics.split_half import chernoff, crossed, rate

Vectors = NDArray[np.float32]

BLOCK = 64  # images whose windows are held at once
COMPARED = 1000  # images of the pool that templates are looked for in
RARE = 0.01  # of other images may hold the template; one that more hold is no artifact, whatever the class holds
COMMON = 1 - 1e-9  # a rate at which nothing surprises
LEVEL = 1.0  # times as many as nearly reach a rung are expected above it; carriers of faint marks are alike by degrees


@dataclass(frozen=True)
class TemplateMatches:
    """Duplicates of templates.

    Attributes:
        k: windows of each image that templates are begun with, those of richest texture.
        sides: the shorter side of the shrunk images.
        start: correlation above which windows are laid over each other.
        rungs: correlations with the template above which an image counts; the best of them is chosen, not shown.
        begun: templates that are tried in each half.
        rounds: how often a template is replaced by the mean of what is like it.
    """

    view: PatchView
    k: int
    sides: tuple[int, ...]
    rungs: tuple[float, ...]
    start: float = 0.75
    begun: int = 8
    rounds: int = 2
    change: str = "tile"

    def __call__(self, scene: ClassImages, name: str) -> Iterator[Detection]:
        for side in sides_of(scene, self.sides):
            yield self._at(scene, name, side)

    def _at(self, scene: ClassImages, name: str, side: int) -> Detection:
        once = distinct(scene)
        own, pool, others = self.field(scene.own, side), self.field(scene.pool, side), compared(scene, COMPARED)
        learned = [self.templates(scene, name, side, np.flatnonzero(part & once)) for part in (scene.half, ~scene.half)]
        templates = np.concatenate(learned)
        if not len(templates):
            return sign(
                f"{name} {side}", 0.0, np.zeros(len(own), bool), np.zeros((len(own), 2)), scene.own.at(side).shape
            )
        (like, places), (other, _) = own.match(templates, np.arange(len(own))), pool.match(templates, others)
        hits = np.stack([like > rung for rung in self.rungs])
        counts = np.stack([hits[:, :, part & once].sum(2) for part in (scene.half, ~scene.half)], 2)
        rates = np.stack([self.expected(like[:, once], other, rung) for rung in self.rungs])
        first = np.tile(np.arange(len(templates)) < len(learned[0]), len(self.rungs))
        sizes = int((scene.half & once).sum()), int((~scene.half & once).sum())
        found = crossed(counts.reshape(-1, 2), sizes, rates.ravel(), first)
        rung, number = divmod(found.seed, len(templates))
        return sign(f"{name} {side}", found.score, hits[rung, number], places[number], scene.own.at(side).shape)

    def field(self, shown: ImageStack, side: int) -> Field:
        """The same for all detectors that look through the same view."""
        return shown.keep(f"field {self.view} {side}", lambda: Field.of(shown.at(side), self.view))

    def expected(self, own: Floats, pool: Floats, rung: float) -> Floats:
        """Rates of templates (t,); one that is not rare elsewhere cannot surprise."""
        held = (pool > rung).mean(1)
        return np.where(held > RARE, COMMON, np.minimum(natural_likeness(own, pool, rung, LEVEL), COMMON))

    def templates(self, scene: ClassImages, name: str, side: int, rows: Rows) -> Vectors:
        """(t, D) of some images of the class: the means of what is like the windows that stand out most."""
        windows = scene.own.keep(f"{name} {side}", lambda: self.windows(scene.own, side))
        pool = scene.pool.keep(f"{name} {side}", lambda: self.windows(scene.pool, side))
        seeds = windows.vectors[4][:, rows].reshape(-1, windows.vectors.shape[-1])
        like = windows.alike(seeds, rows) > self.start
        others = compared(scene, COMPARED)
        outside = (pool.alike(seeds, others) > self.start).sum(1)
        worth = chernoff(like.sum(1), len(rows), rate(outside, len(others)))
        found = seeds[apart(worth, like, np.tile(np.arange(len(rows)), self.k), self.begun)]
        field = self.field(scene.own, side)
        for _ in range(self.rounds if len(found) else 0):
            found = self.means(field, found, rows)
        return np.asarray(found, np.float32)

    def windows(self, shown: ImageStack, side: int) -> Windows:
        x = shown.at(side)
        return Windows.of(x, self.view.density(x), self.view, self.k)

    def means(self, field: Field, templates: Vectors, rows: Rows) -> Vectors:
        """For each template (t, D) the mean of the windows that are like it, one an image, with the norm one; itself
        where there are few."""
        like, places = field.match(templates, rows)
        found = templates.copy()
        for i, held in enumerate(like > self.start):
            if held.sum() > 1:
                mean = field.cut(rows[held], places[i, held]).mean(0)
                found[i] = mean / max(float(np.linalg.norm(mean)), 1e-6)
        return found


def apart(worth: Floats, like: NDArray[np.bool_], owner: Rows, most: int) -> list[int]:
    """Seeds (s,) of most worth, none in an image that is like (s, n) one chosen before, or has it itself."""
    chosen: list[int] = []
    taken = np.zeros(like.shape[1], bool)
    for seed in np.argsort(-worth, kind="stable"):
        if len(chosen) == most or worth[seed] <= 0:
            break
        if not taken[owner[seed]]:
            chosen.append(int(seed))
            taken |= like[seed]
            taken[owner[seed]] = True
    return chosen


def distinct(scene: ClassImages) -> NDArray[np.bool_]:
    """One image of each source (n,): those of one source are alike for that reason."""
    once = np.zeros(len(scene.own), bool)
    once[np.unique(scene.sources, return_index=True)[1]] = True
    return once


@dataclass(frozen=True)
class Field:
    """All windows of n images, never held at once.

    Attributes:
        images: float32 (n, H, W, C), as they are compared.
        norms: float32 (n, h * w), by which a window is divided; see numerics.imaging.patches.normalised.
        width: w, windows in a row.
        soft: grey levels below which variation does not count.
    """

    images: Vectors
    norms: Vectors
    width: int
    soft: float

    @classmethod
    def of(cls, x: Floats, view: PatchView) -> Field:
        images = np.asarray(view(x), np.float32)
        norms = []
        for start in range(0, len(images), BLOCK):
            windows = _windows(images[start : start + BLOCK])
            square = (windows**2).sum(-1) - windows.shape[-1] * windows.mean(-1) ** 2
            norms.append(np.sqrt(np.maximum(square, 0) + windows.shape[-1] * view.soft**2))
        return cls(images, np.concatenate(norms), images.shape[2] - W + 1, view.soft)

    def __len__(self) -> int:
        return len(self.images)

    def match(self, templates: Vectors, rows: Rows) -> tuple[Vectors, Rows]:
        """Of templates (t, D), whose mean is nought, the largest correlation (t, n) in each image, and the upper left
        pixel (t, n, 2) of that window."""
        best, flat = [], []
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            like = (_windows(self.images[some]) @ templates.T) / self.norms[some][..., None]
            best.append(like.max(1))
            flat.append(like.argmax(1))
        return np.concatenate(best).T, np.stack(np.divmod(np.concatenate(flat).T, self.width), -1)

    def cut(self, rows: Rows, places: Rows) -> Vectors:
        """Windows (n, D) at places (n, 2), as vectors to compare."""
        return np.concatenate(
            [
                normalised(self.images[row, a : a + W, b : b + W][None], self.soft)
                for row, (a, b) in zip(rows, places, strict=True)
            ]
        )


def _windows(images: Vectors) -> Vectors:
    """All windows of images (n, H, W, C) as vectors (n, h * w, D)."""
    windows = sliding_window_view(images, (W, W), (1, 2))  # type: ignore[call-overload, unused-ignore]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(len(images), -1, W * W * images.shape[-1])
