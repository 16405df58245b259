"""Detection of planted artifacts that a fine-tuned copy of the model has learned to use: a copy is fine-tuned on a
corpus with artifacts planted in several classes, and audited as by `quantification`. What it has learned is measured by
planting the same artifacts in images that were held out of the fine-tuning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.finetuning import ClassificationTask, Training, trainable_copy
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.step_units import run_step
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.results.power_rows import CourseRow, VerdictColumns
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Experiment
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.audit.verdicts.interventions.planted_artifact import PlantedArtifact
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.audit.verdicts.sensitivity.planted_data import (
    MAX_PLANTED_SHARE,
    MIN_CARRIERS,
    Planted,
    PlantedSet,
    PlantedUnits,
)
from klarsicht.ground.errors import UsageError
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.seeding import generator

MAX_HELD_OUT, MIN_HELD_OUT = 256, 20  # bounds on the number of held-out images, a tenth of all
COURSE_COLUMNS = schema_of(CourseRow)
Carriers = dict[Planted, NDArray[np.intp]]


@dataclass(frozen=True)
class FinetunedUnits:
    """Picklable work function that plants artifacts, fine-tunes a copy and audits it; a unit is one course: one planted
    corpus with its copy. examination: detection units of the unchanged corpus. courses: artifacts that each course
    plants. truth: int64 (N,), target output of each row of the corpus. clean: group numbers of the classes where
    nothing was found in the unchanged corpus. step: name of the step and table in the run store."""

    examination: DetectionUnits
    courses: tuple[PlantedSet, ...]
    truth: NDArray[np.int64]
    clean: tuple[int, ...]
    training: Training
    level: float
    step: str

    def __call__(self, unit: range) -> Written:
        written = Written()
        for index in unit:
            rows = pa.Table.from_pylist(self.run_course(index), COURSE_COLUMNS)
            written |= self.examination.store.write_part(self.step, index, rows)
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run: all of a verdict on every class."""
        work = self.examination
        yield Read("texts", ("corpus", "path"))
        yield from (Read("table", (name, work.step)) for name in ("signs", "classes"))
        yield from work.list_shared_reads()
        yield from work.list_class_reads(range(len(work.groups)), ("maps",))

    def run_course(self, index: int) -> list[CourseRow]:
        """Run one course; return a row per planted artifact, and a row with empty kind per clean class without one."""
        carriers = self.carriers(index)
        kinds = {int(row): planted_artifact.kind for planted_artifact, rows in carriers.items() for row in rows}
        before = self.plant(kinds)
        task = ClassificationTask(
            before.input_images, self.training_rows, self.truth[self.training_rows], self.examination.settings.seed
        )
        assert before.classifier is not None
        after = replace(before, classifier=self.training(before.classifier, task))
        verdicts = {v.target: v for v in audit_planted(after, tuple(carriers), self.level)}
        groups, rates = self.examination.groups, (self.accuracy(before), self.accuracy(after))
        planted = [
            self.planted_row(index, one, rows, verdicts.get(groups[one.number].target), before, after, rates)
            for one, rows in carriers.items()
        ]
        spared = sorted(set(self.clean) - {planted_artifact.number for planted_artifact in self.courses[index]})
        left = [verdicts[groups[number].target] for number in spared if groups[number].target in verdicts]
        return planted + [clean_row(index, verdict, rates) for verdict in left]

    def plant(self, kinds: dict[int, str]) -> PlantedUnits:
        """Prepare detection units with artifacts planted in rows (row -> kind), with the unchanged model."""
        work = self.examination
        return PlantedUnits(
            work.store,
            work.corpus,
            work.settings,
            work.groups,
            work.identity,
            work.input_images.classifier,
            kinds=kinds,
        )

    def carriers(self, index: int) -> Carriers:
        """Draw the training rows that carry each artifact; an artifact with fewer than MIN_CARRIERS is left out."""
        rows_of: Carriers = {}
        for planted_artifact in self.courses[index]:
            rows = np.setdiff1d(
                self.examination.drop_repeats(self.examination.groups[planted_artifact.number].rows)[0],
                self.held_out_rows,
            )
            rng = generator(self.examination.settings.seed, "carriers", index, planted_artifact.number)
            count = round(planted_artifact.prevalence * len(rows))
            if count >= MIN_CARRIERS:
                rows_of[planted_artifact] = np.sort(rng.permutation(rows)[:count])
        return rows_of

    @cached_property
    def held_out_rows(self) -> NDArray[np.intp]:
        """Rows held out of every fine-tuning."""
        rows = np.concatenate([group.rows for group in self.examination.groups])
        count = min(MAX_HELD_OUT, max(MIN_HELD_OUT, len(rows) // 10))
        return np.sort(generator(self.examination.settings.seed, "held out").permutation(rows)[:count])

    @cached_property
    def training_rows(self) -> NDArray[np.intp]:
        """Rows on which copies are fine-tuned."""
        rows = np.concatenate([group.rows for group in self.examination.groups])
        return np.setdiff1d(rows, self.held_out_rows)

    def accuracy(self, work: PlantedUnits) -> float:
        """Compute the accuracy on held-out images."""
        with predictor(work) as predict:
            answers = predict(work.input_images.as_inputs(self.held_out_rows)).argmax(1)
        return float((answers == self.truth[self.held_out_rows]).mean())

    def planted_row(
        self, course: int, artifact: Planted, rows: NDArray[np.intp], verdict: Verdict | None, before: PlantedUnits,
        after: PlantedUnits, accuracy: tuple[float, float],
    ) -> CourseRow:  # fmt: skip
        """Make the row of a planted artifact, of which `rows` of the run carry it; accuracy: before and after."""
        use, was = (self.measure_use(work, artifact) for work in (after, before))
        used = use.rank <= 1 and raises_class(use)
        more = LogitEffect.of_values(use.rise.value - was.rise.value, use.turned.value - was.turned.value)
        verdict_rows = np.array(verdict.rows if verdict else (), np.intp)
        both = len(np.intersect1d(verdict_rows, rows))
        rightly = 2 * both >= len(verdict_rows) > 0
        columns = verdict_columns(verdict) if verdict else NO_VERDICT
        columns |= {"artifactual": rightly and columns["artifactual"], "poisoned": rightly and columns["poisoned"]}
        return CourseRow(
            course=course, kind=artifact.kind, prevalence=artifact.prevalence,
            target=self.examination.groups[artifact.number].target, planted=len(rows), used=used,
            learned=used and raises_class(more), rank=use.rank, rise=use.rise.value, rise_before=was.rise.value,
            turned=use.flips, turned_before=was.flips, f1=2 * both / (len(verdict_rows) + len(rows)),
            accuracy_before=accuracy[0], accuracy=accuracy[1], **columns,
        )  # fmt: skip

    def measure_use(self, work: PlantedUnits, planted_artifact: Planted) -> ComparedEffect:
        """Measure the effect of the planted artifact on held-out images of other classes."""
        target = self.examination.groups[planted_artifact.number].target
        rows = self.held_out_rows[self.truth[self.held_out_rows] != target]
        x, seed = work.input_images.as_inputs(rows), self.examination.settings.seed
        planted = PlantedArtifact(planted_artifact.kind, seed, work.input_images.pixel_scale)
        marked = [put_on(image, planted, generator(seed, "use", int(row))) for image, row in zip(x, rows, strict=True)]
        with predictor(work) as predict:
            plain = predict(x)
            return Experiment(predict(torch.stack(marked)), plain, target).effect(plain)


def raises_class(effect: LogitEffect) -> bool:
    """Say whether an artifact is measured to raise its class, and to matter."""
    return effect.rise.value > 0 and matters(effect, "value")


def require_trainable(audit: Audit) -> None:
    """Check, before any expensive step, that copies of the model can be fine-tuned. Raises UsageError: the run does not
    explain labels, or its outputs are independent; ModelError: a network that cannot be trained."""
    if audit.settings.target != "label":
        raise UsageError(
            "no labels to train on", got=f"a run with target {audit.settings.target}",
            rule="copies are fine-tuned on labels", remedy="Leave --train out, or audit with --target label.",
        )  # fmt: skip
    if audit.settings.several_labels or audit.classifier.independent:
        raise UsageError(
            "no training of independent outputs yet", got="several labels an image, or outputs that are sigmoids",
            rule="copies are fine-tuned on classes that exclude each other", remedy="Leave --train out.",
        )  # fmt: skip
    trainable_copy(audit.classifier)


def max_planted_classes(classes: int, artifactual: int) -> int:
    """Compute how many classes may be planted at once, where `artifactual` classes are artifactual already. Raises
    UsageError: none may."""
    free = int(MAX_PLANTED_SHARE * classes) - artifactual
    if free < 1:
        raise UsageError(
            "no room for a planted class", got=f"{classes} classes, {artifactual} of them artifactual already",
            rule=f"no more than {MAX_PLANTED_SHARE:.0%} may hold something at once: p compares with the others",
            remedy="Leave --train out, or audit more classes.",
        )  # fmt: skip
    return free


def run_finetunings(
    audit: Audit, work: DetectionUnits, courses: tuple[PlantedSet, ...], clean: tuple[int, ...], training: Training,
    level: float, workers: int,
) -> list[CourseRow]:  # fmt: skip
    """Run all courses and return their rows; finished courses are not repeated."""
    asked = repr((courses, clean, training, level))
    name = "poisoning-" + hashlib.sha256(asked.encode()).hexdigest()[:8]
    unit = FinetunedUnits(work, courses, np.asarray(audit.targets, np.int64), clean, training, level, name)
    run_step(audit, work.store, unit, name, partition(len(courses), 1), workers, "trainings on planted corpora")
    return list(work.store.table(name, name).to_pylist())


NO_VERDICT = VerdictColumns(
    artifactual=False, poisoned=False, sign=None, tried=None, z=None, p_use=None, low=None
)  # fmt: skip


def verdict_columns(verdict: Verdict) -> VerdictColumns:
    """Collect the columns of a verdict."""
    use = verdict.use
    return VerdictColumns(
        artifactual=verdict.artifactual, poisoned=verdict.poisoned, sign=verdict.detection.sign, tried=use.tried,
        z=use.z, p_use=use.p_use, low=use.low,
    )  # fmt: skip


def clean_row(course: int, verdict: Verdict, accuracy: tuple[float, float]) -> CourseRow:
    """Make the row of a clean class, in which nothing was planted; accuracy: before and after."""
    return CourseRow(
        course=course, kind="", prevalence=None, target=verdict.target, planted=None, used=None, learned=None,
        rank=None, rise=None, rise_before=None, turned=None, turned_before=None, f1=None,
        accuracy_before=accuracy[0], accuracy=accuracy[1], **verdict_columns(verdict),
    )  # fmt: skip


def audit_planted(work: PlantedUnits, planted_set: PlantedSet, level: float) -> Quantification:
    """Quantify a planted corpus and its model, in memory; other classes keep their detections, and relevance maps are
    those of the run, of the unchanged model and images."""
    classes = DetectedClasses.of(work, level)
    for planted_artifact in planted_set:
        one, seen = work.examine(planted_artifact.number)
        if seen:
            classes = classes.replace_class(seen, one)
    trial = InterventionUnits(work, classes.to_insert)
    return classes.judge({row["target"]: row for number in range(len(work.groups)) for row in trial.effects(number)})
