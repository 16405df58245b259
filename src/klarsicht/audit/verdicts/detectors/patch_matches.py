"""Detect windows that several images of a class share nearly pixel by pixel, and other classes do not: a few windows of
each image, those of most texture or relevance, are compared at any place. High-passed images reveal blended marks. The
expected number of matches is that of `numerics.statistics.base_rate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.ground.arrays import Floats
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging import patches
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks
from klarsicht.numerics.statistics.base_rate import null_match_rate
from klarsicht.numerics.statistics.split_half import cross_test, smoothed_rate

Vectors = NDArray[np.float32]

W = 5  # pixels a side of a window; the sides of the shrunk image decide which share of it that is
SEEDS = 1500  # windows tried as seeds: beyond, a class is sampled, and time grows with it, not with its square
WINDOW_POOL = 1400  # images of the pool that windows are compared with
SEED_BLOCK = 512  # seeds in a product
WINDOW_BLOCK = 256  # images whose windows are extracted at once: views and densities are several copies of them
SHIFTS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
GREY = np.array([0.299, 0.587, 0.114], np.float32)


def colour(x: Floats) -> Floats:
    """Return the colours unchanged."""
    return x


def grey(x: Floats) -> Floats:
    """Compute luminance, the component that re-encoding preserves best."""
    return x @ GREY[:, None] if x.shape[-1] == 3 else x.mean(-1, keepdims=True)


@dataclass(frozen=True)
class PatchView:
    """Representation in which windows are compared: a tint, colour or grey, high-passed where `fine`; variation below
    `soft` grey levels does not count."""

    tint: Callable[[Floats], Floats]
    fine: bool
    soft: float

    def __call__(self, x: Floats) -> Floats:
        return patches.high_pass(self.tint(x)) if self.fine else self.tint(x)

    def density(self, x: Floats) -> Floats:
        """Compute the texture of every window: the mean square of the high-passed image."""
        return patches.box_mean((patches.high_pass(self.tint(x)) ** 2).mean(-1), W)


def relevance_density(evidence: Floats, shape: tuple[int, ...]) -> Floats:
    """Compute the mean positive relevance of every window of images of a shape (H, W), from maps (n, G, G)."""
    return patches.box_mean(enlarge_masks(np.maximum(evidence, 0).astype(np.float32), shape), W)


@dataclass(frozen=True)
class Windows:
    """k windows of each of n images, at places (n, k, 2), as vectors float32 (9, k, n, D) with their neighbours by one
    pixel; the fifth is the window itself."""

    places: NDArray[np.intp]
    vectors: Vectors

    @classmethod
    def of(cls, x: Floats, density: Floats, view: PatchView, k: int) -> Windows:
        places = patches.select_peaks(density, W - 1, k)
        padded = np.pad(view(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        wide = patches.extract_windows(padded, places, W + 2).swapaxes(0, 1)
        shifted = [
            patches.normalise_windows(wide[:, :, 1 + i : 1 + i + W, 1 + j : 1 + j + W], view.soft) for i, j in SHIFTS
        ]
        return cls(places, np.stack(shifted))

    @classmethod
    def of_many(cls, x: Floats, view: PatchView, k: int, evidence: Floats | None = None) -> Windows:
        """Extract the k windows of most texture, or relevance by maps (n, G, G), of images (n, H, W, C), in blocks."""
        places, vectors = np.empty((len(x), k, 2), np.intp), np.empty(0, np.float32)
        for start in range(0, max(1, len(x)), WINDOW_BLOCK):
            some = slice(start, start + WINDOW_BLOCK)
            density = view.density(x[some]) if evidence is None else relevance_density(evidence[some], x.shape[1:3])
            part = cls.of(x[some], density, view, k)
            if start == 0:
                vectors = np.empty((len(SHIFTS), k, len(x), part.vectors.shape[-1]), np.float32)
            places[some], vectors[:, :, some] = part.places, part.vectors
        return cls(places, vectors)

    def max_correlations(self, seeds: Vectors, rows: Any = slice(None)) -> Vectors:
        """Compute the largest correlation (s, n) of seeds (s, D) with each image, over windows and shifts."""
        best = patches.max_correlation(seeds, self.vectors[:, 0, rows])
        for r in range(1, self.vectors.shape[1]):
            np.maximum(best, patches.max_correlation(seeds, self.vectors[:, r, rows]), out=best)
        return best

    def best_places(self, seed: Vectors) -> NDArray[np.intp]:
        """Return the place (n, 2) of the best match of a seed (D,) in each image."""
        match = np.einsum("sknd,d->skn", self.vectors, seed, optimize=True).reshape(-1, self.vectors.shape[2])
        shift, window = np.divmod(match.argmax(0), self.vectors.shape[1])
        return np.asarray(self.places[np.arange(len(self.places)), window] + np.array(SHIFTS)[shift])


@dataclass(frozen=True)
class PatchMatches:
    """Detector of duplicates among the k most textured windows of each image, at any place. Images are shrunk to
    `sides` pixels on the shorter side; windows match above `thresholds`, several, since re-encoding lowers
    correlations. With `by_evidence`, windows are those of most relevance; no detections where a run has no maps."""

    view: PatchView
    k: int
    sides: tuple[int, ...]
    thresholds: tuple[float, ...]
    by_evidence: bool = False
    change: str = "tile"

    def __call__(self, images: ClassImages, name: str) -> Iterator[Detection]:
        if self.by_evidence and (images.own.evidence is None or images.pool.evidence is None):
            return
        for side in usable_sides(images, self.sides):
            yield from self._at(images, name, side)

    def windows(self, stack: ImageStack, side: int) -> Windows:
        """Extract the windows of a stack at one side."""
        return Windows.of_many(stack.shrunk_to(side), self.view, self.k, stack.evidence if self.by_evidence else None)

    def _at(self, images: ClassImages, name: str, side: int) -> Iterator[Detection]:
        own, compared = self.windows(images.own, side), images.compared_pool
        pool = compared.compute_once(f"{name} {side}", lambda: self.windows(compared, side))  # for the next class, too
        owner = select_seed_owners(images, self.k)
        window = np.tile(np.arange(self.k), len(owner) // self.k)
        seeds = own.vectors[4, window, owner]
        counts, expected = count_matches(images, own, pool, seeds, owner, self.thresholds)
        for q, threshold in enumerate(self.thresholds):

            def natural(few: Any, threshold: float = threshold) -> Floats:
                return null_match_rate(
                    own.max_correlations(seeds[few]),
                    pool.max_correlations(seeds[few], comparison_rows(images)),
                    threshold,
                )

            rates = smoothed_rate(expected[q], len(comparison_rows(images)))
            test = cross_test(counts[q], images.sizes, rates, images.half[owner], natural)
            seed = seeds[test.seed]
            members = own.max_correlations(seed[None])[0] > threshold
            members[owner[test.seed]] = True
            yield make_detection(
                f"{name} {side} {threshold:g}", test.score, members, own.best_places(seed),
                images.own.shrunk_to(side).shape,
            )  # fmt: skip


def count_matches(
    images: ClassImages, own: Windows, pool: Windows, seeds: Vectors, owner: NDArray[np.intp],
    thresholds: tuple[float, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Count the matches of each seed in either half of the class (r, s, 2) and in the pool (r, s), for r thresholds."""
    inside = np.zeros((len(thresholds), len(seeds), 2), np.int64)
    outside = np.zeros((len(thresholds), len(seeds)), np.int64)
    others = comparison_rows(images)
    for start in range(0, len(seeds), SEED_BLOCK):
        some = slice(start, start + SEED_BLOCK)
        like, other = own.max_correlations(seeds[some]), pool.max_correlations(seeds[some], others)
        like[images.sources[owner[some], None] == images.sources] = -1
        for q, threshold in enumerate(thresholds):
            hit = like > threshold
            inside[q, some] = np.stack([hit[:, images.half].sum(1), hit[:, ~images.half].sum(1)], 1)
            outside[q, some] = (other > threshold).sum(1)
    return inside, outside


def usable_sides(images: ClassImages, sides: tuple[int, ...]) -> list[int]:
    """Return the sides that the images have; their own shorter side where they are smaller than all."""
    shorter = min(images.own.levels.shape[1:3])
    return [side for side in sides if side <= shorter] or [shorter]


def comparison_rows(images: ClassImages, most: int = WINDOW_POOL) -> NDArray[np.intp]:
    """Return the images of the pool that windows are compared with: at most `most` of other classes."""
    return np.flatnonzero(images.others)[:most]


def select_seed_owners(images: ClassImages, k: int) -> NDArray[np.intp]:
    """Return the images whose windows are seeds, each k times; a sample where there are too many."""
    n = len(images.own)
    most = max(2, SEEDS // k)
    chosen = np.sort(generator(images.seed, "seeds").permutation(n)[:most]) if n > most else np.arange(n)
    return np.repeat(chosen, k)


def make_detection(
    name: str, score: float, members: NDArray[np.bool_], where: Any, shape: tuple[int, ...]
) -> Detection:
    """Make a detection with places in shares of the image."""
    size = np.array(shape[1:3], np.float64)
    rows = np.flatnonzero(members)
    return Detection(name, score, rows, np.clip(where[rows] / size, 0, 1 - W / size), (W / size[0], W / size[1]))
