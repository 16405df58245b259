"""Work units that show the model images of which only one part is kept, and images with one part of another class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from klarsicht.audit.results.rows import WHOLE_IMAGE, ExchangeRow, KeptRow
from klarsicht.audit.verdicts.interventions.experiment import Experiment, Predict
from klarsicht.audit.verdicts.interventions.image_parts import (
    BACKGROUND,
    IMAGE_PARTS,
    ImagePart,
    PartImages,
    background_masks,
)
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Floats, Pixels, Rows
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.seeding import generator

NEGATIVES = 512  # images of all classes together that one class is told from
EXCHANGED_SHARE = 0.5  # of the images of a class that are shown, how many others get its parts
FILL_IMAGES = 64  # images whose mean colour replaces what is destroyed
CHUNK_IMAGES = 16  # images that are changed at once

KEPT, EXCHANGED = map(schema_of, (KeptRow, ExchangeRow))


@dataclass(frozen=True)
class PartReader:
    """Images of a run with their background, and the parts that can be kept.

    Attributes:
        work: store, corpus, settings and groups.
        images: most images of a class.
    """

    work: DetectionUnits
    images: int

    @cached_property
    def parts(self) -> dict[str, ImagePart]:
        """The parts of IMAGE_PARTS; without relevance maps, all but the background."""
        maps = self.work.store.has_array("maps")
        return {name: part for name, part in IMAGE_PARTS.items() if maps or name != BACKGROUND}

    @cached_property
    def fill(self) -> Floats:
        """Mean colour (C,) of some images of all classes."""
        return np.asarray(self.work.input_images(self.work.pool_rows[:FILL_IMAGES]).mean((0, 1, 2)))

    @property
    def most_exchanged(self) -> int:
        """Most images of other classes that get the parts of a class."""
        return max(2, round(EXCHANGED_SHARE * self.images))

    def read(self, rows: Rows) -> PartImages:
        """Read the images of rows (n,)."""
        levels = self.work.input_images(rows)
        if BACKGROUND not in self.parts:
            return PartImages(levels)
        maps = np.asarray(self.work.store.array("maps")[rows], np.float32)
        return PartImages(levels, background_masks(maps, levels.shape[1:3]))

    def keep(self, number: int, part: str, rows: Rows) -> Pixels:
        """Read images of a class of which only one part is kept, uint8 (n, H, W, C); the same draws for the same first
        row."""
        rng = generator(self.work.settings.seed, f"destroyed {part}", number, int(rows[0]))
        return self.parts[part].keep(self.read(rows), self.fill, rng)

    def class_rows(self, number: int) -> Rows:
        """Draw rows of a class, `images` at most, in random order; the same for every step."""
        return self.order(number)[: self.images]

    def order(self, number: int) -> Rows:
        """Permute the rows of a class."""
        return generator(self.work.settings.seed, "kept", number).permutation(self.work.groups[number].rows)

    def negative_rows(self, number: int) -> Rows:
        """Return those of `class_rows` that other classes are told from: NEGATIVES of all classes together."""
        each = max(2, -(-NEGATIVES // len(self.work.groups)))
        return self.class_rows(number)[:each]


@dataclass(frozen=True)
class KeptPartUnits:
    """Work units that keep one part of images of a class; a unit is one class.

    Attributes:
        reader: of the images.
    """

    reader: PartReader

    @property
    def step(self) -> str:
        """Name of the step, which depends on the number of images."""
        return f"kept-{self.reader.images}"

    def __call__(self, unit: range) -> Written:
        store, written = self.reader.work.store, Written()
        for number in unit:
            written |= store.write_part(self.step, number, pa.Table.from_pylist(list(self.keep(number)), KEPT))
        return written

    def keep(self, number: int) -> Iterator[KeptRow]:
        """Yield the rows of the table `kept` of a class."""
        work, reader = self.reader.work, self.reader
        rows = reader.class_rows(number)
        with predictor(work) as predict:
            yield from self._describe(number, WHOLE_IMAGE, rows, work.logits(rows, predict))
            for part in reader.parts:
                yield from self._describe(number, part, rows, self._logits(number, part, rows, predict))

    def _logits(self, number: int, part: str, rows: Rows, predict: Predict) -> Floats:
        inputs = self.reader.work.input_images.pixel_scale.inputs
        return np.concatenate([predict(inputs(self.reader.keep(number, part, some))) for some in chunks(rows)])

    def _describe(self, number: int, part: str, rows: Rows, logits: Floats) -> Iterator[KeptRow]:
        target, scale = self.reader.work.groups[number].target, self.reader.work.scale
        levels, own, told = scale.scores(logits), scale.predicts(logits, target), len(self.reader.negative_rows(number))
        for i, row in enumerate(rows.tolist()):
            yield {
                "target": target,
                "row": row,
                "part": part,
                "level": float(levels[i, target]),
                "predicted": bool(own[i]),
                "levels": levels[i].tolist() if i < told else [],
            }


@dataclass(frozen=True)
class ExchangeUnits:
    """Work units that give images of other classes one part of images of the class; a unit is one class.

    The control gives them the same part of another image of their own class, so that what the exchange itself breaks is
    on both sides.

    Attributes:
        reader: of the images.
    """

    reader: PartReader

    @property
    def step(self) -> str:
        """Name of the step, which depends on the number of images."""
        return f"exchanged-{self.reader.images}"

    def __call__(self, unit: range) -> Written:
        store, written = self.reader.work.store, Written()
        for number in unit:
            written |= store.write_part(self.step, number, pa.Table.from_pylist(self.exchange(number), EXCHANGED))
        return written

    def exchange(self, number: int) -> list[ExchangeRow]:
        """Return the rows of the table `exchanged` of a class; none without images of other classes that have a second
        image of their class."""
        work, target = self.reader.work, self.reader.work.groups[number].target
        rows, donors, controls = self.draw_pairs(number)
        records: list[ExchangeRow] = []
        with predictor(work) as predict:
            for name, part in self.reader.parts.items():
                for some in chunks(np.arange(len(rows))):
                    images, given, control = (self.reader.read(of[some]) for of in (rows, donors, controls))
                    changed = (part.exchange(images, other) for other in (given, control))
                    with_part, plain = (predict(work.input_images.pixel_scale.inputs(one)) for one in changed)
                    shown = Experiment(with_part, plain, target, work.scale)
                    rise, (own, other) = shown.rises(), shown.taken
                    records += [
                        ExchangeRow(
                            target=target,
                            part=name,
                            row=int(rows[i]),
                            donor=int(donors[i]),
                            control=int(controls[i]),
                            rise=float(rise[j]),
                            taken=bool(own[j]),
                            taken_control=bool(other[j]),
                        )
                        for j, i in enumerate(some.tolist())
                    ]
        return records

    def draw_pairs(self, number: int) -> tuple[Rows, Rows, Rows]:
        """Draw images of other classes, in turn of each, a donor of the class and a control donor for each; rows
        (m,)."""
        work = self.reader.work
        images, carrying = work.corpus.image_numbers, work.corpus.image_numbers[work.groups[number].rows]
        rng = generator(work.settings.seed, "exchanged", number)
        others = [
            rows[~np.isin(images[rows], carrying)]
            for other in rng.permutation([i for i in range(len(work.groups)) if i != number])
            for rows in [rng.permutation(work.groups[other].rows)]
        ]
        others = [rows for rows in others if len(rows) > 1]
        turns = range(max((len(rows) for rows in others), default=0))
        pairs = [(rows[i], rows[i - 1]) for i in turns for rows in others if i < len(rows)][
            : self.reader.most_exchanged
        ]
        given = np.resize(self.reader.order(number)[::-1], len(pairs))
        recipients, controls = np.array(pairs, np.intp).reshape(-1, 2).T
        return recipients, given.astype(np.intp), controls


def chunks(rows: Rows) -> list[Rows]:
    """Cut rows (n,) into runs of CHUNK_IMAGES."""
    return [rows[i : i + CHUNK_IMAGES] for i in range(0, len(rows), CHUNK_IMAGES)]
