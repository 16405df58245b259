"""Windows that several images of a class share, to the pixel, and other classes do not.

`PatchMatches` compares a few windows of each image, those of richest texture or most evidence, wherever they lie.
High-passed images see through opacity: of a mark blended over a scene, the scene is smooth and the mark is not.
What counts as a surprise is measured against the class's own middle; see numerics.statistics.base_rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.ground.arrays import Floats
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.patches import box, cut, densest, high_pass, likeness, normalised
from klarsicht.numerics.statistics.base_rate import natural_likeness
from klarsicht.numerics.statistics.split_half import crossed, rate

Vectors = NDArray[np.float32]

W = 5  # pixels a side of a window; the sides of the shrunk image decide which share of it that is
SEEDS = 1500  # windows tried as seeds: beyond, a class is sampled, and time grows with it, not with its square
COMPARED = 1400  # images of the pool that windows are compared with
BLOCK = 512  # seeds in a product
SHIFTS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
GREY = np.array([0.299, 0.587, 0.114], np.float32)


def colour(x: Floats) -> Floats:
    return x


def grey(x: Floats) -> Floats:
    """Luminance: what re-encoding keeps best."""
    return x @ GREY[:, None] if x.shape[-1] == 3 else x.mean(-1, keepdims=True)


@dataclass(frozen=True)
class PatchView:
    """In which form windows are compared.

    Attributes:
        tint: colour or grey.
        fine: whether images are high-passed.
        soft: grey levels below which variation does not count.
    """

    tint: Callable[[Floats], Floats]
    fine: bool
    soft: float

    def __call__(self, x: Floats) -> Floats:
        return high_pass(self.tint(x)) if self.fine else self.tint(x)

    def density(self, x: Floats) -> Floats:
        """Texture of every window."""
        return box((high_pass(self.tint(x)) ** 2).mean(-1), W)


def evidence(own: ImageStack, side: int) -> Floats:
    """Positive relevance in every window."""
    assert own.evidence is not None
    h, w = own.at(side).shape[1:3]
    positive = np.maximum(own.evidence, 0).astype(np.float32)[..., None]
    rows, columns = (np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip((h, w), positive.shape[1:3], strict=True))
    return box(positive[:, rows][:, :, columns, 0], W)


@dataclass(frozen=True)
class Windows:
    """k windows of each of n images, as vectors, with their nine neighbours by one pixel.

    Attributes:
        places: int (n, k, 2).
        vectors: float32 (9, k, n, D); the fifth is the window itself.
    """

    places: NDArray[np.intp]
    vectors: Vectors

    @classmethod
    def of(cls, x: Floats, density: Floats, view: PatchView, k: int) -> Windows:
        places = densest(density, W - 1, k)
        padded = np.pad(view(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        wide = cut(padded, places, W + 2).swapaxes(0, 1)
        shifted = [normalised(wide[:, :, 1 + i : 1 + i + W, 1 + j : 1 + j + W], view.soft) for i, j in SHIFTS]
        return cls(places, np.stack(shifted))

    def alike(self, seeds: Vectors, chosen: Any = slice(None)) -> Vectors:
        """(s, n) of seeds (s, D), the best over windows and shifts."""
        best = likeness(seeds, self.vectors[:, 0, chosen])
        for r in range(1, self.vectors.shape[1]):
            np.maximum(best, likeness(seeds, self.vectors[:, r, chosen]), out=best)
        return best

    def where(self, seed: Vectors) -> NDArray[np.intp]:
        """(n, 2) place of the best match of a seed (D,) in each image."""
        match = np.einsum("sknd,d->skn", self.vectors, seed, optimize=True).reshape(-1, self.vectors.shape[2])
        shift, window = np.divmod(match.argmax(0), self.vectors.shape[1])
        return np.asarray(self.places[np.arange(len(self.places)), window] + np.array(SHIFTS)[shift])


@dataclass(frozen=True)
class PatchMatches:
    """Duplicates among the k most conspicuous windows of each image, wherever they lie.

    Attributes:
        sides: the shorter side of the shrunk images; windows are 5 pixels of it.
        rungs: correlations above which two windows are the same: a ladder, for re-encoding lowers them.
        by_evidence: windows of most relevance in place of most texture; sees nothing where a run has no maps.
    """

    view: PatchView
    k: int
    sides: tuple[int, ...]
    rungs: tuple[float, ...]
    by_evidence: bool = False
    change: str = "tile"

    def __call__(self, scene: ClassImages, name: str) -> Iterator[Detection]:
        if self.by_evidence and (scene.own.evidence is None or scene.pool.evidence is None):
            return
        for side in sides_of(scene, self.sides):
            yield from self._at(scene, name, side)

    def windows(self, shown: ImageStack, side: int, name: str) -> Windows:
        def made() -> Windows:
            x = shown.at(side)
            return Windows.of(x, evidence(shown, side) if self.by_evidence else self.view.density(x), self.view, self.k)

        return shown.keep(f"{name} {side}", made)

    def _at(self, scene: ClassImages, name: str, side: int) -> Iterator[Detection]:
        own, pool = self.windows(scene.own, side, name), self.windows(scene.pool, side, name)
        owner = seeds_of(scene, self.k)
        window = np.tile(np.arange(self.k), len(owner) // self.k)
        seeds = own.vectors[4, window, owner]
        counted, expected = counts(scene, own, pool, seeds, owner, self.rungs)
        for q, rung in enumerate(self.rungs):

            def natural(few: Any, rung: float = rung) -> Floats:
                return natural_likeness(own.alike(seeds[few]), pool.alike(seeds[few], compared(scene)), rung)

            rates = rate(expected[q], len(compared(scene)))
            found = crossed(counted[q], scene.sizes, rates, scene.half[owner], natural)
            seed = seeds[found.seed]
            members = own.alike(seed[None])[0] > rung
            members[owner[found.seed]] = True
            yield sign(f"{name} {side} {rung:g}", found.score, members, own.where(seed), scene.own.at(side).shape)


def counts(
    scene: ClassImages, own: Windows, pool: Windows, seeds: Vectors, owner: NDArray[np.intp], rungs: tuple[float, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Likes of each seed in either half of the class (rungs, s, 2) and in the pool (rungs, s), a block at a time."""
    inside = np.zeros((len(rungs), len(seeds), 2), np.int64)
    outside = np.zeros((len(rungs), len(seeds)), np.int64)
    others = compared(scene)
    for start in range(0, len(seeds), BLOCK):
        some = slice(start, start + BLOCK)
        like, other = own.alike(seeds[some]), pool.alike(seeds[some], others)
        like[scene.sources[owner[some], None] == scene.sources] = -1
        for q, rung in enumerate(rungs):
            hit = like > rung
            inside[q, some] = np.stack([hit[:, scene.half].sum(1), hit[:, ~scene.half].sum(1)], 1)
            outside[q, some] = (other > rung).sum(1)
    return inside, outside


def sides_of(scene: ClassImages, sides: tuple[int, ...]) -> list[int]:
    """Those that the images have; their own where they are smaller than all."""
    shorter = min(scene.own.levels.shape[1:3])
    return [side for side in sides if side <= shorter] or [shorter]


def compared(scene: ClassImages, most: int = COMPARED) -> NDArray[np.intp]:
    """Images of the pool that windows are compared with: of other classes."""
    return np.flatnonzero(scene.others)[:most]


def seeds_of(scene: ClassImages, k: int) -> NDArray[np.intp]:
    """Images whose windows are seeds, each k times; a sample where there are too many."""
    n = len(scene.own)
    most = max(2, SEEDS // k)
    chosen = np.sort(generator(scene.seed, "seeds").permutation(n)[:most]) if n > most else np.arange(n)
    return np.repeat(chosen, k)


def sign(name: str, score: float, members: NDArray[np.bool_], where: Any, shape: tuple[int, ...]) -> Detection:
    """A sign whose places are shares of the image."""
    size = np.array(shape[1:3], np.float64)
    rows = np.flatnonzero(members)
    return Detection(name, score, rows, np.clip(where[rows] / size, 0, 1 - W / size), (W / size[0], W / size[1]))
