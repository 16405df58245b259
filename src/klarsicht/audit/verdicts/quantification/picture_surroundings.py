"""Exchange the surroundings of single pictures: own places of a picture are found by a network that learns them on
composites of the run's images, and laid on images with surroundings of other classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.audit.results.surroundings import (
    PLACES_TABLE,
    SURROUNDINGS_STEP,
    PlacesRow,
    is_examined,
    read_surroundings,
    unpack_places,
)
from klarsicht.audit.verdicts.own_places.composites import LARGEST, SMALLEST, Pairs, lay_on_others, usable_places
from klarsicht.audit.verdicts.own_places.own_places import (
    enlarge,
    outline_places,
    places_above,
    score_own_places,
    teach_own_places,
)
from klarsicht.audit.verdicts.own_places.place_network import PlaceNetwork
from klarsicht.audit.verdicts.quantification.surroundings_units import PLACES_SIDE
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Bools, Ints, Pixels, Rows
from klarsicht.ground.seeding import generator

MOST_TAUGHT: Final = 800  # images of the run on which own places are learned


@dataclass(frozen=True)
class PictureSurroundings:
    """Images of a run with a shortcut in their surroundings, and what finds own places in others.

    Attributes:
        work: store, corpus, settings and groups.
        rows, labels, sides: int (n,), images of the run, with usable own places, and outputs of their class and side.
        own: bool (n, h, w), their own places.
    """

    work: DetectionUnits
    rows: Rows
    labels: Ints
    sides: Ints
    own: Bools

    @classmethod
    def of(cls, work: DetectionUnits) -> PictureSurroundings | None:
        """Read what `audit shortcuts` found; None where it found no shortcut, or too few images with own places."""
        if not is_examined(work.store) or not read_surroundings(work.store).found:
            return None
        places: list[PlacesRow] = work.store.table(PLACES_TABLE, SURROUNDINGS_STEP).to_pylist()
        labels, sides, rows = (np.array([row[name] for row in places]) for name in ("target", "side", "row"))
        own = np.stack([unpack_places(row) for row in places])
        order = generator(work.settings.seed, "own places of pictures").permutation(len(rows))
        order = order[np.argsort(labels[order] == sides[order], kind="stable")]  # exceptions first
        kept = np.sort(order[usable_places(own, labels != sides)[order]][:MOST_TAUGHT])
        if min((int((labels[kept] == label).sum()) for label in np.unique(labels)), default=0) < 2:
            return None
        return cls(work, rows[kept], labels[kept], sides[kept], own[kept])

    @cached_property
    def network(self) -> PlaceNetwork:
        """Network that finds own places, taught on composites of these images."""
        levels = self._shrink(self.work.input_images(self.rows))
        numbers = np.unique(self.labels, return_inverse=True)[1]
        return teach_own_places(levels, self.own, numbers, self.labels != self.sides, self.work.settings.seed)

    def own_places(self, image: Pixels) -> Bools | None:
        """Find the own places (H, W) of an image (H, W, C); None where they are not about as large as usual."""
        shown = self._shrink(image[None])
        odds = score_own_places(self.network, shown)
        own = outline_places(shown, places_above(odds, 0, shown.shape[1:3]), odds, self.work.settings.seed)
        places = enlarge(own, (image.shape[0], image.shape[1]), 0)[0]
        usual = float(np.median(self.own.mean((1, 2))))
        return places if SMALLEST * usual < places.mean() < LARGEST * usual else None

    def give(self, image: Pixels, own: Bools, donors: Rows) -> Pixels:
        """Lay own places (H, W) of an image (H, W, C) on rows of the run: uint8 (m, H, W, C)."""
        number = {int(row): i for i, row in enumerate(self.rows)}
        levels = np.concatenate([image[None], self.work.input_images(donors)])
        theirs = enlarge(self.own[[number[int(row)] for row in donors]], (image.shape[0], image.shape[1]), 0)
        pairs = Pairs(np.zeros(len(donors), np.intp), 1 + np.arange(len(donors)))
        return lay_on_others(levels, np.concatenate([own[None], theirs]), pairs, generator(0, "shifts"))

    def draw_donors(self, target: int, most: int) -> tuple[Rows, Rows]:
        """Draw rows on the side of a class, and as many on those of others in turn; `most` at most, no exceptions."""
        rng = generator(self.work.settings.seed, "donors of surroundings", target)
        usual = self.labels == self.sides
        rows = {int(side): rng.permutation(self.rows[usual & (self.sides == side)]) for side in np.unique(self.sides)}
        own = rows.pop(target, np.array([], np.intp))
        turns = [of[i] for i in range(most) for of in rows.values() if i < len(of)]
        count = min(most, len(own), len(turns))
        return own[:count], np.array(turns[:count], np.intp)

    def _shrink(self, levels: Pixels) -> Pixels:
        return np.rint(shrink_levels(levels, PLACES_SIDE)).astype(np.uint8)
