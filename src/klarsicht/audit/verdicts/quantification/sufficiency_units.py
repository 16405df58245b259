"""Work units that show the model images of which only one part is kept, and images with one part of another class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import torch

from klarsicht.audit.explanation.models.forward import open_observer
from klarsicht.audit.explanation.networks.eval_mode import as_channels_last, channels_last
from klarsicht.audit.results.rows import ExchangeRow
from klarsicht.audit.verdicts.interventions.experiment import Experiment
from klarsicht.audit.verdicts.interventions.framings import FRAMINGS, Window, resample
from klarsicht.audit.verdicts.interventions.image_parts import (
    BACKGROUND,
    IMAGE_PARTS,
    REGION_PARTS,
    SINGLE_CORNERS,
    ImagePart,
    PartImages,
    background_masks,
)
from klarsicht.audit.verdicts.interventions.region_masks import RegionMasks, estimate_region, load_region
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Floats, Pixels, Rows
from klarsicht.ground.progress import progress
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.seeding import generator

FEATURE_IMAGES = 4096  # images of all classes together whose features are compared
LEAST_IMAGES = 16  # of each class among them
EXCHANGED_SHARE = 0.5  # of the images of a class that are shown, how many others get its parts
FILL_IMAGES = 64  # images whose mean colour replaces what is destroyed
CHUNK_IMAGES = 16  # images that are changed at once
LEAST_RECEIVERS = 12  # images of a class that get parts of others, at least
KEPT_ANSWERS = 1 << 28  # bytes of answers to controls that are kept for other classes

EXCHANGED = schema_of(ExchangeRow)
KEPT = pa.schema(
    [
        ("target", pa.int64()),
        ("row", pa.int64()),
        ("part", pa.string()),
        ("rest", pa.bool_()),
        ("features", pa.list_(pa.float32())),
    ]
)
"""Columns of the table `kept`: features of an image of which one part was kept, or of which (`rest`) it was made that
of the common donor."""


@dataclass(frozen=True)
class PartReader:
    """Images of a run with their background, and the parts that can be kept.

    Attributes:
        work: store, corpus, settings and groups.
        images: most images of a class.
        region: a mask file, a table or a function, see region_masks.load_region; empty: estimated where images are
            aligned.
        only: the one part that is asked for, without framings; empty: all of them.
    """

    work: DetectionUnits
    images: int
    region: str = ""
    only: str = ""

    @cached_property
    def masks(self) -> RegionMasks | None:
        """Masks of the region; None where none is given, and images are not aligned."""
        images = self.work.input_images
        if self.region:
            return load_region(self.region, images)
        return estimate_region(images(self.work.pool_rows[:FILL_IMAGES]))

    @cached_property
    def identity(self) -> str:
        """Part of the names of steps: the numbers of parts and of images, and the region that was given; or the part
        that alone is asked for."""
        if self.only:
            return f"{self.only.replace(' ', '-')}-{self.images}"
        return f"{len(IMAGE_PARTS)}-parts-{self.images}" + (
            f"-{self.masks.identity}" if self.region and self.masks else ""
        )

    @cached_property
    def parts(self) -> dict[str, ImagePart]:
        """The parts of IMAGE_PARTS, without relevance maps all but the background; and those of a region."""
        if self.only:
            return {self.only: IMAGE_PARTS[self.only]}
        maps = self.work.store.has_array("maps")
        parts = {name: part for name, part in IMAGE_PARTS.items() if maps or name != BACKGROUND}
        return parts | (REGION_PARTS if self.masks is not None else {})

    @cached_property
    def fill(self) -> Floats:
        """Mean colour (C,) of some images of all classes."""
        return np.asarray(self.work.input_images(self.work.pool_rows[:FILL_IMAGES]).mean((0, 1, 2)))

    def number_parts(self, names: Sequence[str]) -> str:
        """Write the numbers of some of the `questions`, part of the name of the steps on them."""
        return ".".join(str(self.questions.index(name)) for name in names)

    @property
    def most_exchanged(self) -> int:
        """Most images of other classes that get the parts of a class."""
        return max(2, round(EXCHANGED_SHARE * self.images))

    def read(self, rows: Rows) -> PartImages:
        """Read the images of rows (n,)."""
        levels, background = self.work.input_images(rows), None
        if self.only:
            return PartImages(levels)
        if BACKGROUND in self.parts:
            maps = np.asarray(self.work.store.array("maps")[rows], np.float32)
            background = background_masks(maps, levels.shape[1:3])
        return PartImages(levels, background, None if self.masks is None else self.masks(rows))

    def list_reads(self, rows: Rows) -> Iterator[Read]:
        """List what `read` reads of the run for rows (n,), whatever chunks they are read in."""
        if BACKGROUND in self.parts:
            yield Read.of_rows("maps", rows)

    def keep(self, number: int, part: str, images: PartImages, first: int) -> Pixels:
        """Keep only one part of images of a class, uint8 (n, H, W, C); the same draws for the same first row."""
        rng = generator(self.work.settings.seed, f"destroyed {part}", number, first)
        return self.parts[part].keep(images, self.fill, rng)

    def without(self, part: str, images: PartImages) -> Pixels:
        """Give images that part of the common donor, so that it says nothing, uint8 (n, H, W, C)."""
        return self.parts[part].exchange(images, self.common_donor)

    @cached_property
    def common_donor(self) -> PartImages:
        """The image (1, H, W, C) whose parts replace those of all images."""
        return PartImages(self.work.input_images(self.work.pool_rows[:1]))

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the parts that are exchanged, and of the framings."""
        return (self.only,) if self.only else (*self.parts, *FRAMINGS)

    @property
    def exchanged_parts(self) -> tuple[str, ...]:
        """Names of the parts that are exchanged."""
        return tuple(name for name in self.questions if name not in FRAMINGS)

    @property
    def windows(self) -> tuple[Window, ...]:
        """Windows of the framings and of their controls, each once."""
        framings = [FRAMINGS[name] for name in self.questions if name in FRAMINGS]
        return tuple(dict.fromkeys(window for one in framings for window in (one.window, one.control)))

    def exchange(self, name: str, images: PartImages, donors: PartImages) -> Pixels:
        """Replace a part of images by that of their donors."""
        return self.parts[name].exchange(images, donors)

    def class_rows(self, number: int) -> Rows:
        """Draw rows of a class, `images` at most, in random order; the same for every step."""
        return self.order(number)[: self.images]

    def order(self, number: int) -> Rows:
        """Permute the rows of a class."""
        return generator(self.work.settings.seed, "kept", number).permutation(self.work.groups[number].rows)

    def feature_rows(self, number: int) -> Rows:
        """Return those of `class_rows` whose features are compared: FEATURE_IMAGES of all classes together, but
        LEAST_IMAGES of each."""
        return self.class_rows(number)[: max(LEAST_IMAGES, FEATURE_IMAGES // len(self.work.groups))]


@dataclass(frozen=True)
class KeptPartUnits:
    """Work units that read the network's features of images of which one part was kept, or of images without it; a
    unit is one class.

    Attributes:
        reader: of the images.
        absences: the parts that images are shown without; None: images of which one part was kept, of all.
    """

    reader: PartReader
    absences: tuple[str, ...] | None = None

    @property
    def step(self) -> str:
        """Name of the step, which depends on the images and the region."""
        if self.absences is None:
            return f"kept-{self.reader.identity}"
        return f"missing-{self.reader.number_parts(self.absences)}-{self.reader.identity}"

    @property
    def ways(self) -> tuple[tuple[str, bool], ...]:
        """Each part with whether it is missing."""
        if self.absences is None:
            return tuple((part, False) for part in self.reader.parts)
        return tuple((part, True) for part in self.absences)

    def __call__(self, unit: range) -> Written:
        store, written = self.reader.work.store, Written()
        for number in unit:
            written |= store.write_part(self.step, number, pa.concat_tables(self.observe(number)))
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run."""
        for number in unit:
            yield from self.reader.list_reads(self.reader.feature_rows(number))

    def observe(self, number: int) -> Iterator[pa.Table]:
        """Yield the rows of the table `kept` of a class, part by part."""
        reader, rows, ways = self.reader, self.reader.feature_rows(number), self.ways
        features: dict[tuple[str, bool], list[Floats]] = {way: [] for way in ways}
        parts = len(ways) * len(chunks(rows))
        with feature_reader(reader.work) as observe, progress("parts", parts) as advance:
            for some in chunks(rows):
                images = reader.read(some)
                for part, rest in ways:
                    shown = reader.without(part, images) if rest else reader.keep(number, part, images, int(some[0]))
                    features[part, rest].append(observe(shown))
                    advance()
        for part, rest in ways:
            yield self._table(number, part, rest, rows, np.concatenate(features[part, rest]))

    def _table(self, number: int, part: str, rest: bool, rows: Rows, features: Floats) -> pa.Table:
        n = len(rows)
        columns = ([self.reader.work.groups[number].target] * n, rows, [part] * n, [rest] * n, list(features))
        return pa.table([pa.array(column, kind) for column, kind in zip(columns, KEPT.types, strict=True)], schema=KEPT)


@contextmanager
def feature_reader(work: DetectionUnits) -> Iterator[Callable[[Pixels], Floats]]:
    """Yield the function from images uint8 (n, H, W, C) to the input of the network's head (n, F), in batches."""
    images = work.input_images
    with channels_last(images.classifier.module), open_observer(images.classifier) as observe:

        def features(levels: Pixels) -> Floats:
            parts = torch.split(images.pixel_scale.inputs(levels), work.settings.batch)
            return np.concatenate([observe(as_channels_last(part)).features for part in parts])

        yield features


@dataclass(frozen=True)
class PlainAnswers:
    """Logits of images of other classes without a part of the class, which are the same for every class: with each
    part of another image of their own class, and in each window of the framings.

    An image is shown in all these ways at once, so its logits do not depend on the class that asks first.

    Attributes:
        reader: of the images.
        answers: logits (K,) of the images that were asked last, by row, and by the name of a part or by a window.
    """

    reader: PartReader
    answers: dict[int, dict[str | Window, Floats]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ways(self) -> int:
        """Number of ways in which an image is shown."""
        return len(self.reader.exchanged_parts) + len(self.reader.windows)

    def ask(self, row: int, control: int, predict: Callable[[Pixels], Floats]) -> dict[str | Window, Floats]:
        """Return the logits of the image of a row, with the parts of the control and in each window."""
        if row not in self.answers:
            reader = self.reader
            image, other = reader.read(np.array([row])), reader.read(np.array([control]))
            parts: dict[str | Window, Pixels] = {
                name: reader.exchange(name, image, other) for name in reader.exchanged_parts
            }
            pictures = parts | {window: resample(image.levels, window) for window in reader.windows}
            of_row = dict(zip(pictures, predict(np.concatenate([*pictures.values()])), strict=True))
            if self.answers and (len(self.answers) + 1) * sum(y.nbytes for y in of_row.values()) > KEPT_ANSWERS:
                del self.answers[next(iter(self.answers))]
            self.answers[row] = of_row
        return self.answers[row]


@dataclass(frozen=True)
class ExchangeUnits:
    """Work units that give images of other classes one part of images of the class; a unit is one class.

    The control gives them the same part of another image of their own class, so that what the exchange itself breaks is
    on both sides. Images of a class are receivers of several others, and their controls are shown once.

    Attributes:
        reader: of the images.
        plain: answers to the controls.
    """

    reader: PartReader
    plain: PlainAnswers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", PlainAnswers(self.reader))

    @property
    def step(self) -> str:
        """Name of the step, which depends on the images and the region."""
        return f"exchanged-{self.reader.identity}"

    def most_shown(self, numbers: Sequence[int]) -> int:
        """Bound the number of images that these classes show."""
        reader = self.reader
        exchanges = reader.most_exchanged * len(numbers)
        receivers = sum(min(self.receivers, len(group.rows)) for group in reader.work.groups)
        return exchanges * len(reader.exchanged_parts) + min(exchanges, receivers) * self.plain.ways

    def __call__(self, unit: range) -> Written:
        store, written = self.reader.work.store, Written()
        for number in unit:
            written |= store.write_part(self.step, number, pa.Table.from_pylist(self.exchange(number), EXCHANGED))
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run."""
        for number in unit:
            yield from self.reader.list_reads(np.concatenate(self.draw_pairs(number)[:3]))

    def exchange(self, number: int) -> list[ExchangeRow]:
        """Return the rows of the table `exchanged` of a class; none without images of other classes that have a second
        image of their class."""
        work, target, scale = self.reader.work, self.reader.work.groups[number].target, self.reader.work.scale
        rows, donors, controls, owners = self.draw_pairs(number)
        records: dict[str, list[ExchangeRow]] = {name: [] for name in self.reader.questions}
        as_inputs = work.input_images.pixel_scale.inputs
        count = len(rows) + len(records) * len(chunks(rows))
        with predictor(work) as on_inputs, progress("parts", count) as advance:

            def predict(levels: Pixels) -> Floats:
                return on_inputs(as_inputs(levels))

            for some in chunks(np.arange(len(rows))):
                answers = []
                for i in some:
                    answers.append(self.plain.ask(int(rows[i]), int(controls[i]), predict))
                    advance()
                images, lenders = self.reader.read(rows[some]), self.reader.read(donors[some])
                for name in self.reader.questions:
                    change = FRAMINGS.get(name)
                    plain = np.stack([one[change.control if change else name] for one in answers])
                    with_part = (
                        np.stack([one[change.window] for one in answers])
                        if change
                        else predict(self.reader.exchange(name, images, lenders))
                    )
                    shown = Experiment(with_part, plain, target, scale)
                    rise, (own, other) = shown.rises(), shown.taken
                    stays, stays_control = (
                        [bool(scale.predicts(y, int(owners[i]))) for y, i in zip(logits, some, strict=True)]
                        for logits in (with_part, plain)
                    )
                    records[name] += [
                        ExchangeRow(
                            target=target,
                            part=name,
                            own=int(owners[i]),
                            row=int(rows[i]),
                            donor=int(rows[i] if change else donors[i]),
                            control=int(rows[i] if change else controls[i]),
                            rise=float(rise[j]),
                            taken=bool(own[j]),
                            taken_control=bool(other[j]),
                            stays=stays[j],
                            stays_control=stays_control[j],
                        )
                        for j, i in enumerate(some.tolist())
                    ]
                    advance()
        return [record for those in records.values() for record in those]

    def draw_pairs(self, number: int) -> tuple[Rows, Rows, Rows, Rows]:
        """Draw receivers of other classes, in turn of each, a donor of the class, a control donor and the own class of
        each; rows (m,), the last outputs."""
        work, most, others = self.reader.work, self.reader.most_exchanged, []
        images, of_class = work.corpus.image_numbers, work.corpus.image_numbers[work.groups[number].rows]
        rng = generator(work.settings.seed, "exchanged", number)
        for other in rng.permutation([i for i in range(len(work.groups)) if i != number]):
            pairs = self.order_receivers(int(other), number)
            pairs = pairs[~np.isin(images[pairs], of_class).any(1)]
            if len(pairs):
                others.append([(row, control, work.groups[other].target) for row, control in pairs])
            if len(others) == most:
                break
        in_turn = [pair for turn in zip_longest(*others) for pair in turn if pair is not None]
        rows, controls, owners = np.array(in_turn[:most], np.intp).reshape(-1, 3).T
        donors = np.resize(self.reader.order(number)[::-1], len(rows)).astype(np.intp)
        return rows, donors, controls, owners

    def order_receivers(self, other: int, number: int) -> Rows:
        """Order images of another class as receivers of a class's parts, each with its control, rows (m, 2): the
        `receivers` first ones in turn, so that all of them are used as often; none of a single image."""
        pairs, count = self.receiver_pairs[other], self.receivers
        return np.concatenate([np.roll(pairs[:count], -self.receivers_of_class * number, 0), pairs[count:]])

    @cached_property
    def receiver_pairs(self) -> list[Rows]:
        """Rows of each class in random order, each with that of its control, (m, 2)."""
        seed, pairs = self.reader.work.settings.seed, []
        for i, group in enumerate(self.reader.work.groups):
            rows = generator(seed, "receivers", i).permutation(group.rows)
            pairs.append(np.stack([rows, np.roll(rows, 1)], 1) if len(rows) > 1 else np.empty((0, 2), np.intp))
        return pairs

    @property
    def receivers_of_class(self) -> int:
        """Number of images of each other class that get the parts of one class, where classes are large enough."""
        return -(-self.reader.most_exchanged // max(1, len(self.reader.work.groups) - 1))

    @property
    def receivers(self) -> int:
        """Number of images of a class that get parts of others, where it is large enough."""
        return max(self.receivers_of_class, LEAST_RECEIVERS)


def is_shown_missing(part: str) -> bool:
    """Say whether images are shown without a part: not without single corners, for the rest has three of them, nor
    without the inside of a region, which is its outside alone; nor is a framing a part."""
    return part not in (*SINGLE_CORNERS, *REGION_PARTS, *FRAMINGS)


def chunks(rows: Rows) -> list[Rows]:
    """Cut rows (n,) into runs of CHUNK_IMAGES."""
    return [rows[i : i + CHUNK_IMAGES] for i in range(0, len(rows), CHUNK_IMAGES)]
