"""Would a model learn to use what is planted, and would an audit of it say so? A copy is trained to tell.

Several classes hold an artifact each, a copy of the model is fine-tuned on them, and that copy is audited as
`quantification` does. What it learned is known by putting the real artifact on images that no training has seen.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from klarsicht.audit.detectors.bank import change_of
from klarsicht.audit.executor import partition
from klarsicht.audit.interventions.effect import LogitEffect, effect
from klarsicht.audit.models.finetuning import ClassificationTask, Training, trainable
from klarsicht.audit.pipeline import Audit, through
from klarsicht.audit.quantify import quantification
from klarsicht.audit.quantify.units import DetectionUnits, InterventionUnits, predictor
from klarsicht.audit.results import significance
from klarsicht.audit.results.verdicts import FLIPPED, FLOOR, Quantification, Verdict
from klarsicht.audit.sensitivity.planted_data import MOST, Planted, PlantedSet, PlantedUnits
from klarsicht.audit.synthetic import artifacts
from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator

HELD, LEAST = 256, 20  # images that no fine-tuning sees: a tenth of them, no more, and no fewer
FEWEST = 2  # images that carry a plant: one alone repeats nothing
LINES = pa.schema(
    {"course": pa.int64(), "kind": pa.string(), "prevalence": pa.float64(), "target": pa.int64()}
    | {
        "planted": pa.int64(),
        "used": pa.bool_(),
        "learned": pa.bool_(),
        "artifactual": pa.bool_(),
        "poisoned": pa.bool_(),
    }
    | {"rank": pa.int64()}
    | {name: pa.float64() for name in ("rise", "rise_before", "turned", "turned_before")}
    | {"sign": pa.string(), "f1": pa.float64(), "tried": pa.string(), "z": pa.float64(), "p_use": pa.float64()}
    | {"low": pa.float64(), "accuracy_before": pa.float64(), "accuracy": pa.float64()}
)
Line = dict[str, Any]
Carriers = dict[Planted, NDArray[np.intp]]


@dataclass(frozen=True)
class FinetunedUnits:
    """Plants, trains a copy, audits it; a unit is one course.

    Attributes:
        examination: of the corpus as it is.
        courses: what is planted at once.
        truth: int (rows of the corpus,), right outputs.
        clean: numbers of the classes where nothing was found in the corpus as it is.
        level: of p, for either claim.
    """

    examination: DetectionUnits
    courses: tuple[PlantedSet, ...]
    truth: NDArray[np.int64]
    clean: tuple[int, ...]
    training: Training
    level: float
    step: str

    def __call__(self, unit: range) -> None:
        for index in unit:
            lines = pa.Table.from_pylist(self.try_one(index), LINES)
            self.examination.store.write_part(self.step, index, lines)

    def try_one(self, index: int) -> list[Line]:
        """A line for each plant, and one without a kind for each class that was clean and stayed so."""
        carriers = self.carriers(index)
        kinds = {int(row): dose.kind for dose, rows in carriers.items() for row in rows}
        before = self.dosed(kinds)
        lesson = ClassificationTask(
            before.gallery, self.taught, self.truth[self.taught], self.examination.settings.seed
        )
        assert before.classifier is not None
        after = replace(before, classifier=self.training(before.classifier, lesson))
        found = {v.target: v for v in audited(after, tuple(carriers), self.level)}
        groups = self.examination.groups
        rates = {"course": index, "accuracy_before": self.accuracy(before), "accuracy": self.accuracy(after)}
        planted = [
            rates | self.told(dose, rows, found.get(groups[dose.number].target), before, after)
            for dose, rows in carriers.items()
        ]
        spared = sorted(set(self.clean) - {dose.number for dose in self.courses[index]})
        left = [found[groups[number].target] for number in spared if groups[number].target in found]
        return planted + [rates | called(v) | {"kind": "", "target": v.target} for v in left]

    def dosed(self, kinds: dict[int, str]) -> PlantedUnits:
        """The examination with artifacts on rows, by the model as it is."""
        work = self.examination
        return PlantedUnits(
            work.store, work.corpus, work.settings, work.groups, work.identity, work.gallery.classifier, kinds=kinds
        )

    def carriers(self, index: int) -> Carriers:
        """Rows that carry each artifact, of images that are trained on; none where so few could repeat nothing."""
        found: Carriers = {}
        for dose in self.courses[index]:
            rows = np.setdiff1d(self.examination.distinct(self.examination.groups[dose.number].rows)[0], self.held)
            rng = generator(self.examination.settings.seed, "carriers", index, dose.number)
            count = round(dose.prevalence * len(rows))
            if count >= FEWEST:
                found[dose] = np.sort(rng.permutation(rows)[:count])
        return found

    @cached_property
    def held(self) -> NDArray[np.intp]:
        """Rows that no copy is trained on."""
        rows = np.concatenate([group.rows for group in self.examination.groups])
        count = min(HELD, max(LEAST, len(rows) // 10))
        return np.sort(generator(self.examination.settings.seed, "held out").permutation(rows)[:count])

    @cached_property
    def taught(self) -> NDArray[np.intp]:
        rows = np.concatenate([group.rows for group in self.examination.groups])
        return np.setdiff1d(rows, self.held)

    def accuracy(self, work: PlantedUnits) -> float:
        """On images that were held out."""
        with predictor(work) as predict:
            answers = predict(work.gallery(self.held).astype(np.float32)).argmax(1)
        return float((answers == self.truth[self.held]).mean())

    def told(
        self, dose: Planted, rows: NDArray[np.intp], verdict: Verdict | None, before: PlantedUnits, after: PlantedUnits
    ) -> Line:
        use, was = (self.use(work, dose) for work in (after, before))
        used = use.rank <= 1 and moves(use.shift, use.flips)
        named = np.array(verdict.rows if verdict else (), np.intp)
        both = len(np.intersect1d(named, rows))
        rightly = 2 * both >= len(named) > 0
        said = called(verdict) if verdict else {}
        return said | {
            "kind": dose.kind,
            "prevalence": dose.prevalence,
            "target": self.examination.groups[dose.number].target,
            "planted": len(rows),
            "used": used,
            "learned": used and moves(use.shift - was.shift, use.flips - was.flips),
            "artifactual": rightly and said.get("artifactual", False),
            "poisoned": rightly and said.get("poisoned", False),
            "rank": use.rank,
            "rise": use.shift,
            "rise_before": was.shift,
            "turned": use.flips,
            "turned_before": was.flips,
            "f1": 2 * both / (len(named) + len(rows)),
        }

    def use(self, work: PlantedUnits, dose: Planted) -> LogitEffect:
        """What the real artifact does to held-out images of other classes."""
        target = self.examination.groups[dose.number].target
        rows = self.held[self.truth[self.held] != target]
        x = work.gallery(rows)
        rng = [generator(self.examination.settings.seed, "use", int(row)) for row in rows]
        marked = np.stack([artifacts.on_levels(one, dose.kind, r) for one, r in zip(x, rng, strict=True)])
        with predictor(work) as predict:
            plain = predict(x.astype(np.float32))
            return effect("planted", plain, predict(marked.astype(np.float32)), plain, target)


def moves(rise: float, turned: float) -> bool:
    """Whether a class rises, by the floor of *poisoned*: in logits, or in images that are taken for it."""
    return rise > 0 and (rise >= FLOOR or turned >= FLIPPED)


def require_trainable(audit: Audit) -> None:
    """Refuses, before hours are spent, what no copy could be trained on.

    Raises:
        UsageError: a run that does not explain labels.
        ModelError: a network that cannot be trained.
    """
    if audit.settings.target != "label":
        raise UsageError(
            "no labels to train on", got=f"a run with target {audit.settings.target}",
            rule="copies are fine-tuned on labels", remedy="Leave --train out, or audit with --target label.",
        )  # fmt: skip
    trainable(audit.classifier)


def room(classes: int, taken: int) -> int:
    """How many of the classes may be planted at once, where something was found in some of them already.

    Raises:
        UsageError: none.
    """
    free = int(MOST * classes) - taken
    if free < 1:
        raise UsageError(
            "no room for a planted class", got=f"{classes} classes, {taken} of them artifactual already",
            rule=f"no more than {MOST:.0%} may hold something at once: p compares with the others",
            remedy="Leave --train out, or audit more classes.",
        )  # fmt: skip
    return free


def learned(
    audit: Audit, work: DetectionUnits, courses: tuple[PlantedSet, ...], clean: tuple[int, ...], training: Training,
    level: float, workers: int,
) -> list[Line]:  # fmt: skip
    """Lines of all courses; those that are done are not trained again."""
    asked = repr((courses, clean, training, level))
    name = "poisoning-" + hashlib.sha256(asked.encode()).hexdigest()[:8]
    unit = FinetunedUnits(work, courses, np.asarray(audit.targets, np.int64), clean, training, level, name)
    through(audit, work.store, unit, name, partition(len(courses), 1), workers, "trainings on planted corpora")
    return list(work.store.table(name, name).to_pylist())


def called(verdict: Verdict) -> Line:
    names = ("artifactual", "poisoned", "sign", "tried", "z", "p_use", "low")
    return {name: getattr(verdict, name) for name in names}


def audited(work: PlantedUnits, doses: PlantedSet, level: float) -> Quantification:
    """What `quantification.judged` says of the planted corpus and its model. Signs of other classes stay as they were.

    Nothing is written. Relevance maps are those of the run: the model and the images as they were.
    """
    signs = quantification.signs_by_target(work)
    described = {line["target"]: line for line in work.store.table("classes", work.step).to_pylist()}
    for dose in doses:
        one, seen = work.examine(dose.number)
        if seen:
            signs[one["target"]], described[one["target"]] = seen, one
    choice = significance.chosen(list(signs.values()), change_of)
    trial = InterventionUnits(work, quantification.candidates(signs, choice, work.groups))
    effects = {line["target"]: line for number in range(len(work.groups)) for line in trial.lines(number)}
    return quantification.concluded(work.store, choice, described, effects, level)
