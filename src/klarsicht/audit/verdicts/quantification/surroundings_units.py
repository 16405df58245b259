"""Work unit that finds own places in the images of a run, and shows the model composites of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from klarsicht.audit.explanation.models.inputs import shrink_levels
from klarsicht.audit.results.surroundings import SURROUNDINGS_STEP, CompositeRow, PlacesRow
from klarsicht.audit.results.words import format_count
from klarsicht.audit.verdicts.own_places.composites import Pairs, lay_on_others
from klarsicht.audit.verdicts.own_places.own_places import OwnPlaces, enlarge, find_own_places
from klarsicht.audit.verdicts.quantification.natural_surroundings import is_ordinary, largest_ordinary_share
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Ints, Pixels, Rows
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.seeding import generator

PLACES_SIDE = 64  # pixels on the shorter side at which places are looked at
MOST_PLACED, MOST_SHOWN_CLASSES = 4000, 20  # that are examined together; of more classes nothing is asked
LEAST_PLACED, LEAST_PLACED_SIDE = 100, 24  # images of each class, and pixels on the shorter side
COMPOSITES_PER_CLASS = 100
SHRUNK_BLOCK, CHUNK = 256, 16  # images that are read at once, and composites that are made at once

PLACE_SCHEMA, COMPOSITE_SCHEMA = map(schema_of, (PlacesRow, CompositeRow))


@dataclass(frozen=True)
class SurroundingsUnits:
    """Work unit on the images of all classes together; there is one.

    Attributes:
        work: store, corpus, settings and groups.
    """

    work: DetectionUnits

    step = SURROUNDINGS_STEP

    def __call__(self, unit: range) -> Written:
        store, written = self.work.store, Written()
        for number in unit:
            found = find_own_places(self.images, self.labels, self.work.settings.seed, largest_ordinary_share())
            composites = [] if is_ordinary(found.separate) else list(self.show_composites(found))
            written |= store.write_part(
                "places", number, pa.Table.from_pylist(list(self.describe(found)), PLACE_SCHEMA)
            )
            written |= store.write_part("composites", number, pa.Table.from_pylist(composites, COMPOSITE_SCHEMA))
            written |= store.write_part("separate", number, {"separate": [found.separate], "way": [found.way]})
        return written

    @property
    def shortfall(self) -> str:
        """Lack of images or pixels to tell exceptions, or surplus of classes, in words; empty where there is none."""
        groups, sides = self.work.groups, self.work.input_images.shape
        if len(groups) > MOST_SHOWN_CLASSES:
            return f"{len(groups)} classes; at most {MOST_SHOWN_CLASSES}"
        smallest = min(groups, key=len)
        if len(smallest) < LEAST_PLACED:
            return f"{format_count(len(smallest), 'image')} of {smallest.name}; at least {LEAST_PLACED} of each class"
        if min(sides) < LEAST_PLACED_SIDE:
            return f"images of {sides[0]} x {sides[1]} pixels; at least {LEAST_PLACED_SIDE} on each side"
        return ""

    @cached_property
    def rows(self) -> Rows:
        """Rows of the run that are examined: of each class all, or equally many at random where they are too many."""
        rng, groups = generator(self.work.settings.seed, SURROUNDINGS_STEP), self.work.groups
        each = MOST_PLACED // len(groups)
        return np.concatenate([np.sort(rng.permutation(group.rows)[:each]) for group in groups])

    @cached_property
    def labels(self) -> Ints:
        """Number of the class of each of them, int (n,)."""
        each = MOST_PLACED // len(self.work.groups)
        return np.repeat(np.arange(len(self.work.groups)), [min(each, len(group)) for group in self.work.groups])

    @cached_property
    def images(self) -> Pixels:
        """The images, shrunk to PLACES_SIDE: uint8 (n, h, w, C)."""
        blocks = (
            self.work.input_images(self.rows[a : a + SHRUNK_BLOCK]) for a in range(0, len(self.rows), SHRUNK_BLOCK)
        )
        return np.concatenate([np.rint(shrink_levels(block, PLACES_SIDE)).astype(np.uint8) for block in blocks])

    def describe(self, found: OwnPlaces) -> Iterator[PlacesRow]:
        """Yield the rows of the table `places`."""
        targets = [group.target for group in self.work.groups]
        for i, row in enumerate(self.rows.tolist()):
            yield PlacesRow(
                row=row,
                target=targets[found.labels[i]],
                side=targets[found.side[i]],
                margin=float(found.margin[i]),
                height=found.own.shape[1],
                width=found.own.shape[2],
                own=np.packbits(found.own[i]).tobytes(),
            )

    def show_composites(self, found: OwnPlaces) -> Iterator[CompositeRow]:
        """Lay own places of usable images on images with surroundings of another class, and of their own, and yield
        what the model says of both; none of classes without two such images."""
        work, rng = self.work, generator(self.work.settings.seed, "composites")
        targets = np.array([group.target for group in work.groups])
        drawn = list(draw_trials(found, rng))
        with predictor(work) as predict:
            for start in range(0, len(drawn), CHUNK):
                some = np.array(drawn[start : start + CHUNK])
                says = []
                for others in (some[:, 1], some[:, 2]):
                    levels = self.lay_on(some[:, 0], others, found, rng)
                    scores = work.scale.scores(predict(work.input_images.pixel_scale.inputs(levels)))
                    says.append(targets[scores[:, targets].argmax(1)])
                for (source, donor, control), predicted, other in zip(some.tolist(), *says, strict=True):
                    yield CompositeRow(
                        source=int(self.rows[source]),
                        target=int(targets[found.labels[source]]),
                        donor=int(self.rows[donor]),
                        side=int(targets[found.side[donor]]),
                        predicted=int(predicted),
                        control=int(self.rows[control]),
                        predicted_control=int(other),
                    )

    def lay_on(self, sources: Rows, donors: Rows, found: OwnPlaces, rng: np.random.Generator) -> Pixels:
        """Lay own places of images on others, at the size of the model's input: uint8 (m, H, W, C)."""
        both, count = np.concatenate([sources, donors]), len(sources)
        levels = self.work.input_images(self.rows[both])
        own = enlarge(found.own[both], levels.shape[1:3], 0)
        return lay_on_others(levels, own, Pairs(np.arange(count), count + np.arange(count)), rng)


def draw_trials(found: OwnPlaces, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Draw of each class COMPOSITES_PER_CLASS usable images, each with a usable image on the side of another class and
    one on the side of its own class."""
    for label in np.unique(found.labels):
        sources = np.flatnonzero(found.usable & (found.labels == label))
        elsewhere = np.flatnonzero(found.usable & ~found.exceptional & (found.side != label))
        here = np.flatnonzero(found.usable & (found.side == label))
        if len(sources) < 2 or not len(elsewhere) or len(here) < 2:
            continue
        for source in rng.permutation(sources)[:COMPOSITES_PER_CLASS].tolist():
            yield source, int(rng.choice(elsewhere)), int(rng.choice(here[here != source]))
