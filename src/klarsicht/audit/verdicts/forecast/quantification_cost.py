"""Forecast of the time, disk and memory of `audit quantify`, from classes that are examined beside the whole pool.

Images are read as often as the cache of decoded images does not hold them. Steps of the learned embedding cost alike.
What the pool costs is paid once in a process and measured whole; the detectors and the search among clusters cost
a + b n log n of a class of n images, artifacts on other images the mean of the classes that were tried. How many
classes will be noted, and so get pictures and families, is not known: one in twenty is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Final

import numpy as np

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.inputs import CACHE_BYTES
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.results.verdicts import LEVEL
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    STAGES,
    ArtifactEmbedding,
    EmbeddingTraining,
    taught_families,
    training_steps,
)
from klarsicht.audit.verdicts.detectors.detection import ImageStack
from klarsicht.audit.verdicts.detectors.family_resemblance import name_resembled_families
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.forecast.cost import Cost, SizeLaw, StepCost, measure_cost
from klarsicht.audit.verdicts.forecast.explained_sample import ExplainedSample
from klarsicht.audit.verdicts.forecast.pair_cost import measure_pair_cost
from klarsicht.audit.verdicts.forecast.quantified_sample import QuantifiedSample
from klarsicht.audit.verdicts.quantification.cluster_units import CLASS_IMAGES, candidate_analyses
from klarsicht.audit.verdicts.quantification.embedding_units import MIN_LEARNED, MIN_SIDE, read_images, sample_rows
from klarsicht.audit.verdicts.quantification.intervention_units import MAX_CONTROLS
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Rows
from klarsicht.ground.errors import ImageError
from klarsicht.ground.seeding import generator

EXAMINED_IMAGES: Final = 2000  # most images of a class that is examined for the law; beyond, samples are compared
EXAMINED_CLASSES: Final = 16  # at most; what is put on others costs .6 of its mean more or less from class to class
LEAST_EXAMINED: Final = 3  # whatever time it takes
READ_SHARE: Final = 0.25  # of the sample's time, for images of classes
CLASS_PARTS: Final = (0.3, 0.6)  # of the largest class that is examined
TIMED_STEPS: Final = 24  # of the embedding's training, after the first one
TRAINED_IMAGES: Final = 256  # on which they are timed
EXAMINED_SHARE, TRIED_SHARE, SEARCHED_SHARE = 0.35, 0.2, 0.2  # of the sample's time, for each step


@dataclass(frozen=True)
class PlannedQuantification:
    """Quantification of which a sample is computed.

    Attributes:
        units: detection units of the whole corpus, whose groups are its classes.
        sample: explained images of some of them.
        seconds: that the sample takes, about, beyond those of the pool, where nothing else runs.
        workers: processes over which units are divided.
    """

    units: DetectionUnits
    sample: ExplainedSample
    seconds: float
    workers: int

    @cached_property
    def sizes(self) -> Rows:
        """Images of each class that is examined, ascending; of larger ones a sample is."""
        most = self.units.most_images
        return np.array(sorted(min(len(group), most) for group in self.units.groups if len(group) >= MIN_IMAGES))

    def forecast(self, opening: StepCost, report: StepCost) -> Iterator[StepCost]:
        """Yield the cost of each step.

        Args:
            opening: of model, corpus and hash.
            report: of the audit's pictures and page, which are made again.
        """
        yield replace(opening, step="opening and hash", sample="all images", law="images")
        pool = self.units.pool_rows
        cost, readable = self.read(pool)
        each = cost.times(1 / len(pool))
        network = None
        if (learned := len(sample_rows(self.units))) >= MIN_LEARNED and min(self.units.input_images.shape) >= MIN_SIDE:
            step, network = self.train(readable, learned)
            yield step
        yield self.decode(each, len(pool), learned if network is not None else 0)
        groups = self.choose_classes(each.undisturbed_seconds)
        if not groups:
            return
        sample = QuantifiedSample.begin(self.sample, self.units, readable, groups, network)
        yield self.examine(sample, groups)
        yield self.insert(sample)
        if self.units.store.has_array("maps"):
            yield self.search(sample)
        yield self.write(sample, report)

    def read(self, rows: Rows) -> tuple[Cost, Rows]:
        """Read images, which are kept; return their cost, and the rows that can be read."""
        readable = []
        _ = self.units.input_images
        with measure_cost() as watch:
            for row in rows.tolist():
                try:
                    self.units.input_images([row])
                    readable.append(row)
                except ImageError:
                    pass
        return watch.cost, np.array(readable, np.intp)

    @property
    def unread_bytes(self) -> float:
        """Bytes that the cache of decoded images will still grow by."""
        whole = min(CACHE_BYTES, sum(map(len, self.units.groups)) * self.units.image_bytes)
        return float(max(0, whole - self.units.input_images.cache.bytes))

    def train(self, rows: Rows, images: int) -> tuple[StepCost, ArtifactEmbedding]:
        """Measure steps of the embedding's training on some of so many images."""
        few = read_images(self.units, rows[:TRAINED_IMAGES])
        training, steps = EmbeddingTraining(few, taught_families(few.shape[-1]), 0), training_steps(images)
        training.network.train()
        rng = generator(self.units.settings.seed, "timed steps")
        with measure_cost() as first:
            training.run_step(0, rng)
        with measure_cost() as others:
            for step in range(1, 1 + TIMED_STEPS):
                training.run_step(step, rng)
        cost = first.cost + others.cost.times((steps - 1) / TIMED_STEPS)
        more = self.unread_bytes + (images - len(few)) * few[0].nbytes
        cost = replace(cost, disk=float(STAGES * len(training.state())))
        measured = f"{TIMED_STEPS} of {steps:,} steps"
        return StepCost.of("learned embedding", measured, "images, up to 1,200", cost, more=more), training.network

    def decode(self, each: Cost, pool: int, learned: int) -> StepCost:
        """Forecast the cost of reading images: each once where all stay in the cache, else once in each step."""
        images = sum(map(len, self.units.groups))
        times = images
        if images * self.units.image_bytes > CACHE_BYTES:
            tried = np.minimum(self.sizes, 2 * MAX_CONTROLS) + np.minimum(self.sizes, CLASS_IMAGES)
            times = learned + pool + images + int(tried.sum())
        cost = replace(each.times(times), peak=0.0)
        return StepCost.of("reading images", f"{pool:,} images", "images", cost, processes=self.workers)

    def choose_classes(self, each: float) -> list[Group]:
        """Choose classes that the sample explains, the largest one, and parts of it, in the order in which they are
        examined; their images are read.

        Args:
            each: seconds that an image takes to be read.
        """
        affordable = max(LEAST_EXAMINED * MIN_IMAGES, int(READ_SHARE * self.seconds / max(each, 1e-6)))
        explained = {group.target for group in self.sample.classes()}
        largest = max(self.units.groups, key=len)
        others = [group for group in self.units.groups if group.target in explained and group is not largest]
        classes = list[Group]()
        for group in [largest, *others][:EXAMINED_CLASSES]:
            if affordable < MIN_IMAGES:
                break
            _, rows = self.read(group.rows[: min(affordable, EXAMINED_IMAGES)])
            affordable -= len(rows)
            if len(rows) >= MIN_IMAGES:
                classes.append(replace(group, rows=rows))
        if not classes:
            return []
        first = classes[0]
        parts = [replace(first, rows=first.rows[: int(len(first) * part)]) for part in CLASS_PARTS]
        return [*classes[:2], *(part for part in parts if len(part) >= MIN_IMAGES), *classes[2:]]

    def examine(self, sample: QuantifiedSample, groups: Sequence[Group]) -> StepCost:
        """Measure the detectors on some classes; what the first costs more than again is paid once in a process."""
        cold, costs = sample.examine(0), list[tuple[int, Cost]]()
        seconds = 0.0
        for number in range(len(groups)):
            if seconds > EXAMINED_SHARE * self.seconds and len(costs) >= LEAST_EXAMINED:
                break
            cost = sample.examine(number)
            costs.append((len(groups[number]), cost))
            seconds += cost.undisturbed_seconds
        law = SizeLaw.of(costs)
        once = cold.beyond(costs[0][1])
        total = law.total(self.sizes)
        grown = max(0.0, total.added - max(cost.added for _, cost in costs))
        return self.divide_step("signs of artifacts", costs, total + once.times(self.workers), grown)

    def divide_step(self, step: str, costs: Sequence[tuple[int, Cost]], cost: Cost, grown: float = 0.0) -> StepCost:
        """Make the line of a step whose units are classes, divided among processes."""
        sizes = [n for n, _ in costs]
        measured = f"{len(sizes)} groups of {min(sizes)} to {max(sizes)} images"
        more = self.unread_bytes + grown
        return StepCost.of(step, measured, "n log n of each class", cost, processes=self.workers, more=more)

    def insert(self, sample: QuantifiedSample) -> StepCost:
        """Measure the cost of putting artifacts of the examined classes on other images; the mean over them stands for
        every class."""
        costs, seconds = list[tuple[int, Cost]](), 0.0
        numbers = {group.target: number for number, group in reversed(list(enumerate(sample.units.groups)))}
        for target in sample.units.sign_rows:
            number = numbers[target]
            if seconds > TRIED_SHARE * self.seconds and len(costs) >= LEAST_EXAMINED:
                break
            cost = sample.insert(number)
            costs.append((len(sample.units.groups[number]), cost))
            seconds += cost.undisturbed_seconds
        if not costs:
            return StepCost.of("artifacts on other images", "no class of the sample", "classes", Cost())
        total = Cost()
        for _, cost in costs:
            total += cost
        step = self.divide_step("artifacts on other images", costs, total.times(len(self.sizes) / len(costs)))
        return replace(step, sample=f"{len(costs)} classes", law="classes")

    def search(self, sample: QuantifiedSample) -> StepCost:
        """Measure the search among clusters of classes whose images are explained."""
        classes = self.sample.classes()
        if not classes:
            return StepCost.of("clusters on other images", "no class of the sample", "n log n of each class", Cost())
        largest = max(classes, key=len)
        parts = [replace(largest, rows=largest.rows[: int(len(largest) * part)]) for part in CLASS_PARTS]
        cold = sample.search(classes[0])
        costs, seconds = list[tuple[int, Cost]](), 0.0
        for group in [*classes[1:], *(part for part in parts if len(part) >= MIN_IMAGES), classes[0]]:
            if seconds > SEARCHED_SHARE * self.seconds and len(costs) >= LEAST_EXAMINED:
                break
            cost = sample.search(group)
            costs.append((len(group), cost))
            seconds += cost.undisturbed_seconds
        pair = Cost()
        for analysis in candidate_analyses([self.sample.analysis(m, [largest]) for m in self.units.settings.metric]):
            one = measure_pair_cost(analysis, largest, int(self.sizes.max()))
            pair = Cost(pair.cpu + one.cpu, pair.wall + one.wall)
        law = SizeLaw.of(costs, pair)
        total = law.total(self.sizes) + cold.beyond(law.total(np.array([len(classes[0])])))
        return self.divide_step("clusters on other images", costs, total)

    def write(self, sample: QuantifiedSample, report: StepCost) -> StepCost:
        """Forecast the cost of pictures and page, taken as that of the pictures and page of the audit, and of naming
        families for noted classes."""
        noted_count, units = ceil(LEVEL * len(self.sizes)), sample.units
        total = Cost(report.cpu_seconds, report.wall_seconds, peak=report.peak_bytes or 0.0)
        if units.learned is not None:
            rows = units.groups[0].rows
            levels = shrink_to_embed(ImageStack(units.input_images(rows)))
            with measure_cost() as named:
                name_resembled_families(units.learned, levels, np.arange(len(rows)) < len(rows) // 4, 0)
            total += named.cost.times(noted_count)
        return StepCost.of("pictures and report", f"the audit's, {noted_count} noted classes", "noted classes", total)
