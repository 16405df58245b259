"""Forecast of the time, disk and memory of an audit: units of a sample are computed, and each step is extrapolated by
its own law.

Hashing and relevance are linear in images. The clusters of a class of n images cost a + b n log n + c n^2, a and b
fitted to the classes of the sample and to parts of the largest, c measured apart (`audit.verdicts.forecast.pair_cost`),
and summed over the sizes of all classes. Ranking and report are constant and linear in classes. What is paid once in a
process (compiled code, the first batch) is measured where it occurs. For `audit quantify`, see
`audit.verdicts.forecast.quantification_cost`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.executor import limited_threads, partition
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.pipeline import SCREENING_UNIT
from klarsicht.audit.explanation.report.figures import CLASSES_ILLUSTRATED
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.verdicts.forecast.cost import Cost, Forecast, SizeLaw, StepCost, add_steps, measure_cost
from klarsicht.audit.verdicts.forecast.explained_sample import ExplainedSample
from klarsicht.audit.verdicts.forecast.pair_cost import measure_pair_cost
from klarsicht.audit.verdicts.forecast.quantification_cost import PlannedQuantification
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.ranges import SAMPLE_SECONDS, WORKERS
from klarsicht.ground.seeding import generator

HASHED_IMAGES: Final = 1000  # whose hash is timed
MOST_CLASSES: Final = 16  # of the sample
LEAST_IMAGES: Final = 48  # of the sample, where the corpus has so many
FIRST_CLASSES: Final = 5  # clustered whatever time it takes, where the sample has so many; the first is slower
PARTS: Final = (0.25, 0.5)  # of the largest class of the sample, clustered for the law
TIMED_TARGETS: Final = 3  # of a screening, after the first one
RELEVANCE_SHARE: Final = 0.6  # of the sample's time


def forecast(
    settings: AuditSettings, *, classifier: Classifier | None = None, corpus: Any = None, seconds: float = 60,
    workers: int = 1,
) -> Forecast:  # fmt: skip
    """Compute a sample of an audit's units in a temporary folder, and extrapolate the cost of each step.

    Args:
        settings, classifier, corpus: as for `pipeline.run`.
        seconds: that the sample takes, about, and that of `audit quantify` as much again, besides the pool of images
            that classes are compared with; a larger sample is surer. Of `audit quantify` they are those of a machine
            on which nothing else runs, since a few classes alone would be tried on a busy one.
        workers: processes over which units are divided, as if each were as fast as this one alone.

    Raises:
        UsageError, InputError, ModelError: as `pipeline.run` raises them.
    """
    SAMPLE_SECONDS.require("seconds", seconds)
    WORKERS.require("workers", workers)
    with measure_cost() as opening:
        audit = Audit.of(settings, classifier, corpus).with_batch()
    with limited_threads(settings.threads), temporary_folder() as folder:
        plan = PlannedAudit(audit, folder, seconds, workers)
        relevance, sample = plan.explain()
        steps = [
            StepCost.of("opening", "all images", "images", opening.cost),
            plan.hash(),
            relevance,
            *(plan.cluster(sample, metric) for metric in plan.metrics),
            plan.report(sample),
        ]
        quantification = plan.quantify(sample, add_steps(steps[:2]), steps[-1])
        counts = len(audit.corpus), len(audit.corpus.classes), workers
        return Forecast(*counts, tuple(steps), tuple(quantification))


@dataclass(frozen=True)
class PlannedAudit:
    """Audit of which a sample is computed.

    Attributes:
        audit: of the whole corpus.
        folder: an empty folder.
        seconds: elapsed time that the sample takes, about.
        workers: processes over which units are divided.
    """

    audit: Audit
    folder: Path
    seconds: float
    workers: int

    @property
    def images(self) -> int:
        return len(self.audit.corpus)

    @property
    def by_class(self) -> bool:
        """Whether each class is audited on its own images."""
        return self.audit.settings.target in ("label", "predicted")

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Images of each group, int (K,); by prediction, of each label."""
        if self.by_class:
            return np.array(sorted(Counter(self.audit.corpus.labels).values()), np.int64)
        targets = self.audit.classifier.n_classes if self.audit.settings.screens else 1
        return np.full(targets, self.images, np.int64)

    @property
    def metrics(self) -> list[str]:
        """Metrics whose clusters are computed, the baseline of the ranking among them."""
        return list(dict.fromkeys([*self.audit.settings.metric, ranking.PLAIN_METRIC]))

    def draw_rows(self, count: int) -> list[int]:
        """Draw at most `count` rows: large enough classes one after another, the last one cut; where the corpus is
        screened, or has no such class, any rows."""
        rng = generator(self.audit.settings.seed, "forecast")
        labels = np.array(self.audit.corpus.labels)
        names, sizes = np.unique(labels, return_counts=True)
        large = names[sizes >= MIN_IMAGES]
        if not self.by_class or not len(large):
            chosen: list[int] = np.sort(rng.permutation(self.images)[:count]).tolist()
            return chosen
        rows: list[int] = []
        for name in rng.permutation(large)[:MOST_CLASSES]:
            rows += np.flatnonzero(labels == name)[: count - len(rows)].tolist()
        return rows

    def hash(self) -> StepCost:
        """Measure the hash of some images."""
        some = np.unique(np.linspace(0, self.images - 1, HASHED_IMAGES).astype(int)).tolist()
        part = self.audit.corpus[some]
        with measure_cost() as watch:
            _ = part.hash
        return StepCost.of("hash", f"{len(some)} images", "images", watch.cost.times(self.images / len(some)))

    def explain(self) -> tuple[StepCost, ExplainedSample]:
        """Explain a sample. Two batches come first: they show what is paid once, and how large the sample may be."""
        batch, unit = self.audit.settings.batch, self.audit.settings.unit
        rows = self.draw_rows(2 * batch)
        first = min(batch, -(-len(rows) // 2))
        with measure_cost() as begun:
            tried = ExplainedSample.begin(self.audit, rows, first, self.folder / "first")
        cold, *warm = [tried.explain(some) for some in partition(len(rows), first)[:2]]
        each = (warm or [cold])[0].wall / first
        affordable = int(RELEVANCE_SHARE * self.seconds / max(each, 1e-6))
        rows = self.draw_rows(max(affordable, LEAST_IMAGES))
        sample = ExplainedSample.begin(self.audit, rows, min(unit, len(rows)), self.folder / "sample")
        cost, began = Cost(), time.perf_counter()
        for some in partition(len(rows), min(unit, len(rows))):
            if sample.done_units and time.perf_counter() - began > self.seconds * RELEVANCE_SHARE:
                break
            cost += sample.explain(some)
            sample = replace(sample, done_units=some.stop)
        sample = sample.first_rows()
        once = begun.cost + (cold.beyond(warm[0]) if warm else Cost())
        total = once + cost.times(self.images / sample.done_units)
        return self.divide_step("relevance", f"{sample.done_units} images", "images", total, sample), sample

    def divide_step(
        self, step: str, basis: str, law: str, cost: Cost, sample: ExplainedSample, more: float = 0.0
    ) -> StepCost:
        """Make the line of a step whose units are divided among processes; each has the table of images."""
        more += sample.image_bytes * (self.images - sample.done_units)
        return StepCost.of(step, basis, law, cost, processes=self.workers, more=more)

    def cluster(self, sample: ExplainedSample, metric: str) -> StepCost:
        """Measure the clusters of the sample under one metric."""
        units = -(-self.images // self.audit.settings.unit) / len(sample.store.done_units("attribution"))
        reading = sample.measure_reading(units, self.images / len(sample.audit.corpus))
        name, classes = f"clusters ({metric})", sample.classes() if self.by_class else []
        if not self.by_class:
            return self.screen(sample, metric, reading)
        if not classes:
            rule = f"no class of {MIN_IMAGES} images in the sample"
            return self.divide_step(name, rule, "n log n of each class", reading, sample)
        largest = max(classes, key=len)
        parts = [replace(largest, rows=largest.rows[: int(len(largest) * part)]) for part in PARTS]
        parts = [part for part in parts if len(part) >= MIN_IMAGES]
        cold = sample.cluster(metric, classes[:1])
        costs, began = list[tuple[int, Cost]](), time.perf_counter()
        share = self.seconds * (1 - RELEVANCE_SHARE) / len(self.metrics)
        for group in [*classes[1:FIRST_CLASSES], *parts, *classes[FIRST_CLASSES:], classes[0]]:
            costs.append((len(group), sample.cluster(metric, [group])))
            if time.perf_counter() - began > share and len(costs) >= FIRST_CLASSES + len(parts):
                break
        law = SizeLaw.of(costs, measure_pair_cost(sample.analysis(metric, [largest]), largest, int(self.sizes.max())))
        total = law.total(self.sizes[self.sizes >= MIN_IMAGES])
        grown = max(0.0, total.added - max(cost.added for _, cost in costs))
        total += cold.beyond(law.total(np.array([len(classes[0])]))) + reading
        if few := int((self.sizes < MIN_IMAGES).sum()):
            total += sample.cluster(metric, [replace(largest, rows=largest.rows[:1])]).times(few)
        counts = [n for n, _ in costs]
        measured = f"{len(counts)} groups of {min(counts)} to {max(counts)} images"
        return self.divide_step(name, measured, "n log n of each class", total, sample, grown)

    def screen(self, sample: ExplainedSample, metric: str, reading_cost: Cost) -> StepCost:
        """Measure the clusters of parts of the sample for a few targets; what the first target costs more is paid once
        in a unit."""
        name, later = f"clusters ({metric})", min(len(self.sizes) - 1, TIMED_TARGETS)
        rows = np.arange(sample.done_units)
        cold = sample.cluster(metric, [Group("0", 0, rows)])
        first, others = list[tuple[int, Cost]](), list[tuple[int, Cost]]()
        for part in (*PARTS, 1):
            some = rows[: max(1, int(len(rows) * part))]
            groups = [Group(str(target), target, some) for target in range(1 + later)]
            alone = sample.cluster(metric, groups[:1])
            each = sample.cluster(metric, groups).beyond(alone).times(1 / later) if later else alone
            first.append((len(some), alone.beyond(each)))
            others.append((len(some), each))
        units = -(-len(self.sizes) // SCREENING_UNIT)
        group = Group("0", 0, rows)
        pair = measure_pair_cost(sample.analysis(metric, [group]), group, self.images)
        total = SizeLaw.of(others, pair).total(self.sizes) + SizeLaw.of(first).total(self.sizes[:1]).times(units)
        grown = max(0.0, total.added - max(cost.added for _, cost in others))
        total += cold.beyond(first[-1][1] + others[-1][1]) + reading_cost
        measured = f"{1 + later} targets on {others[0][0]} to {others[-1][0]} images"
        return self.divide_step(name, measured, "n log n of the corpus, targets", total, sample, grown)

    def groups(self) -> tuple[Group, ...]:
        """Return the classes of the whole corpus, with all images; by prediction, those of a label count as one."""
        audit, every = self.audit, np.ones(self.images, bool)
        if audit.settings.target == "label":
            return tuple(audit.groups(np.zeros(0), every))
        names, numbers = np.unique(np.array(audit.corpus.labels), return_inverse=True)
        return tuple(Group(str(name), i, np.flatnonzero(numbers == i)) for i, name in enumerate(names))

    def quantify(self, sample: ExplainedSample, opening: StepCost, report: StepCost) -> list[StepCost]:
        """Measure a sample of `audit quantify`; nothing where it compares no classes.

        Args:
            opening: of model, corpus and hash.
            report: of pictures and page.
        """
        audit, groups = self.audit, self.groups() if self.by_class else ()
        if len(groups) < 2:
            return []
        units = DetectionUnits(
            sample.store, audit.corpus, audit.settings, groups, audit.classifier.identity, audit.classifier
        )
        planned = PlannedQuantification(units, sample, self.seconds, self.workers)
        return list(planned.forecast(opening, report))

    def report(self, sample: ExplainedSample) -> StepCost:
        """Measure ranking, pictures and report of the sample."""
        if self.by_class:
            groups, classes = sample.classes(), int((self.sizes >= MIN_IMAGES).sum())
        else:
            groups, classes = [Group("0", 0, np.arange(sample.done_units))], len(self.sizes)
        name, law = "ranking and report", "once, and classes"
        if not groups:
            return StepCost.of(name, "no class of the sample", law, Cost())
        first, again = sample.report(groups, self.metrics)
        drawn = min(CLASSES_ILLUSTRATED, classes) / min(CLASSES_ILLUSTRATED, len(groups))
        total = first.beyond(again).times(drawn) + again.times(classes / len(groups))
        return StepCost.of(name, f"{len(groups)} classes", law, total, more=sample.image_bytes * self.images)
