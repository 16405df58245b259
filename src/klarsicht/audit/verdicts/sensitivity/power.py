"""Detection power of an audit: known artifacts are planted in classes of the user's own corpus and detected.

That a class would be called *artifactual* needs no training: detectors look at images, not at the model. When it would
be called *poisoned* depends on what a model learns: on request, copies of the model are fine-tuned on the planted
images (audit.verdicts.sensitivity.finetuned), else the answer is "unknown"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.finetuning import RATE, Training
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.step_units import run_step
from klarsicht.audit.results.power_rows import PowerRow, TrialRow
from klarsicht.audit.results.rows import FewClassMeasures
from klarsicht.audit.results.significance import LEVEL, class_strategy
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.detectors.bank import ALL_DETECTORS, change_of, run_detectors
from klarsicht.audit.verdicts.detectors.detection import Detection, ImageStack
from klarsicht.audit.verdicts.quantification import opened_runs, quantification
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, measure_few
from klarsicht.audit.verdicts.sensitivity import detection_limits, finetuned
from klarsicht.audit.verdicts.sensitivity.finetuned_results import FinetunedResults
from klarsicht.audit.verdicts.sensitivity.planted_data import MIN_CARRIERS, plan_courses
from klarsicht.audit.verdicts.synthetic.artifacts import PLANTS, draw_plant
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction, plant_on_levels
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import UsageError
from klarsicht.ground.ranges import PLANTED_CLASSES, PREVALENCE
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator, integer
from klarsicht.ground.step_words import MEASURED_BESIDE
from klarsicht.ground.user_arguments import check_arguments

POWER_FILE = "power.json"
PREVALENCES = (0.2, 0.1, 0.05, 0.02, 0.01)
TRIALS = schema_of(TrialRow)


@dataclass(frozen=True)
class Power:
    """Detection power by kind of artifact and prevalence. trials: one row per kind, prevalence and class. kinds,
    prevalences: planted kinds of artifacts and prevalences. level: significance level. finetuned: results of fine-tuned
    copies, where requested."""

    trials: tuple[TrialRow, ...]
    kinds: tuple[str, ...]
    prevalences: tuple[float, ...]
    level: float
    finetuned: FinetunedResults | None = None

    def __repr__(self) -> str:
        return f"Power({len(self.trials)} trials of {len(self.kinds)} kinds, level {self.level:g})"

    def select(self, kind: str, prevalence: float) -> list[TrialRow]:
        """Select the trials of one kind and prevalence."""
        return [t for t in self.trials if t["kind"] == kind and t["prevalence"] == prevalence]

    def share(self, kind: str, prevalence: float, by: str = "") -> float:
        """Compute the share of planted classes found, by one detector or by all; NaN where none was planted."""
        mine = self.select(kind, prevalence)
        found = [by in t["detectors"] if by else t["found"] for t in mine]
        return sum(found) / len(mine) if mine else float("nan")

    def limit(self, kind: str, by: str = "") -> float | None:
        """Compute the detection limit of a kind, by one detector or by all; None without any."""
        return detection_limits.detection_limit({p: self.share(kind, p, by) for p in self.prevalences})

    def detectors(self, kind: str) -> dict[str, float]:
        """Compute the detection limit of every detector that has one."""
        return {by: limit for by in ALL_DETECTORS if (limit := self.limit(kind, by)) is not None}

    def format_limit(self, kind: str) -> str:
        """Format the detection limit of a kind."""
        return detection_limits.format_limit(self.limit(kind))

    def format_counts(self, kind: str, prevalence: float) -> str:
        """Format the counts as found/planted."""
        mine = self.select(kind, prevalence)
        return f"{sum(t['found'] for t in mine)}/{len(mine)}"

    def to_json(self) -> dict[str, Any]:
        down_to = {kind: self.limit(kind) for kind in self.kinds}
        of_each = {kind: self.detectors(kind) for kind in self.kinds}
        poisoned = self.finetuned.to_json() if self.finetuned else "unknown"
        told = {"level": self.level, "limits": down_to, "detectors": of_each, "poisoned": poisoned}
        return told | {"trials": list(self.trials)}

    def lines(self) -> list[PowerRow]:
        """Collect one row per kind for the report."""
        by_kind = {line["kind"]: line for line in self.finetuned.lines()} if self.finetuned else {}
        return [
            PowerRow(
                kind=kind,
                limit=self.format_limit(kind),
                prevalences=list(self.prevalences),
                detectors=", ".join(
                    f"{by} {detection_limits.format_percent(limit)}" for by, limit in self.detectors(kind).items()
                ),
                cells=[self.format_counts(kind, p) for p in self.prevalences],
                shares=[self.share(kind, p) for p in self.prevalences],
                learned=by_kind.get(kind),
                notes=self.finetuned.notes() if self.finetuned else (),
            )
            for kind in self.kinds
        ]


@dataclass(frozen=True)
class PlantingUnits:
    """Picklable work function that plants one artifact in one class and runs the detectors; a unit is one trial.
    trials: (kind, prevalence, group number of the class). scores: float64 (n, m), scores of n classes, `numbers`, and m
    detections in the unchanged corpus. class_measures: of these n classes; only asked where they are few. step: name of
    the step and table in the run store."""

    examination: DetectionUnits
    trials: tuple[tuple[str, float, int], ...]
    scores: NDArray[np.float64]
    numbers: tuple[int, ...]
    class_measures: tuple[FewClassMeasures, ...]
    level: float
    step: str

    def __call__(self, unit: range) -> Written:
        store, written = self.examination.store, Written()
        for index in unit:
            row = self.run_trial(index)
            written |= store.write_part(self.step, index, pa.Table.from_pylist([row] if row else [], TRIALS))
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run: what all units read, and the maps of the classes of its trials."""
        yield from self.examination.list_shared_reads()
        yield from self.examination.list_class_reads([self.trials[index][2] for index in unit], ("maps",))

    def run_trial(self, index: int) -> TrialRow | None:
        """Run one trial; None where fewer than MIN_CARRIERS images would carry the artifact."""
        kind, prevalence, number = self.trials[index]
        rows, _ = self.examination.drop_repeats(self.examination.groups[number].rows)
        count = round(prevalence * len(rows))
        if count < MIN_CARRIERS:
            return None
        rng = generator(self.examination.settings.seed, "power", index)
        carriers = np.sort(rng.permutation(len(rows))[:count])
        scene = self.examination.class_images(number, rows)
        artifact = draw_plant(kind, integer(self.examination.settings.seed, "power", index))
        levels = plant_in_carriers(scene.own.levels, artifact, carriers, rng)
        scene = replace(scene, own=ImageStack(levels, scene.own.evidence))
        signs, place = run_detectors(scene), self.numbers.index(number)
        scores, described = self.scores.copy(), list(self.class_measures)
        classes = class_strategy(len(self.numbers))
        if not classes.compares_classes:
            signs, measures = measure_few(scene, signs)
            signs, described[place] = signs[: scores.shape[1]], measures
        scores[place] = [sign.score for sign in signs]
        significance = classes.test_detections(scores, [sign.name for sign in signs], change_of, described)
        best, p = signs[significance.decisive[place]], float(significance.p_decisive[place])
        both = len(np.intersect1d(best.members, carriers))
        return {
            "kind": kind,
            "prevalence": prevalence,
            "target": self.examination.groups[number].target,
            "planted": count,
            "p": p,
            "sign": best.name,
            "found": bool(p <= self.level and 2 * both >= len(best.members) > 0),
            "f1": 2 * both / (len(best.members) + count),
            "detectors": calling_detectors(signs, significance.significant(self.level)[place], carriers),
        }


def calling_detectors(
    signs: Sequence[Detection], significant: NDArray[np.bool_], carriers: NDArray[np.intp]
) -> list[str]:
    """List the detectors with a significant detection whose members are at least half carriers. signs: m detections.
    significant: bool (m,), which are significant. carriers: positions of the images with the artifact."""
    true = [2 * len(np.intersect1d(sign.members, carriers)) >= len(sign.members) > 0 for sign in signs]
    return sorted(
        {sign.name.split()[0] for sign, one, other in zip(signs, true, significant, strict=True) if one and other}
    )


@check_arguments
def power(
    run: str | Path | RunStore, *, kinds: Sequence[str] | None = None, prevalences: Sequence[float] | None = None,
    classes: int = 5, level: float = LEVEL, workers: int = 1, data: Any = None,
    classifier: Classifier | None = None, train: int | None = None, rate: float = RATE,
    device: str = ANY_DEVICE, engine: str = LOCAL_ENGINE,
) -> Power:  # fmt: skip
    """Plant each kind at each prevalence in some classes of a run and count which are found; quantify the run first.

    The results are written to `power.json`, the table `power`, and a section of the report.

    Args:
        kinds: names of synthetic.artifacts.PLANTS, all of them by default, or of synthetic.families.FAMILIES:
            of a family, every class gets an artifact of random place, size and colour.
        classes: number of classes that each is planted in, one at a time, drawn from those where nothing was found.
        level, workers, data, classifier, device, engine: see quantification.quantify.
        train: epochs for which copies of the model are fine-tuned on planted corpora, to measure which artifacts would
            be called poisoned; several kinds are then planted at once. None leaves this unknown.
        rate: learning rate of the fine-tuning.

    Raises:
        UsageError: an unknown kind, a prevalence outside (0, 1), no class to plant in, no epochs, no labels to train
            on; and as quantify does.
        ModelError: a model that cannot be trained, or a training that diverged.
    """
    kinds_tried, shares = tuple(dict.fromkeys(kinds or PLANTS)), tuple(dict.fromkeys(prevalences or PREVALENCES))
    check_plants(kinds_tried, shares, classes)
    training = None if train is None else Training(train, rate)
    with opened_runs.open_run(
        run, level=level, workers=workers, data=data, classifier=classifier, device=device, engine=engine
    ) as (audit, work):
        if training:
            finetuned.require_trainable(audit)
        judgement = quantification.run_quantification(audit, work, level, workers)
        clean = [number for number, group in enumerate(work.groups) if group.target in clean_targets(judgement)]
        if not clean:
            raise UsageError("no class to plant in", got="none where nothing was found", rule="at least 1")
        room = finetuned.max_planted_classes(len(judgement), len(judgement) - len(clean)) if training else 1
        trials = run_trials(audit, work, tuple(product(kinds_tried, shares)), classes, clean, level, workers)
        result = Power(tuple(trials), kinds_tried, shares, level)
        if training:
            planned = plan_courses(kinds_tried, shares, classes, clean, room, generator(work.settings.seed, "courses"))
            lines = finetuned.run_finetunings(audit, work, planned, tuple(clean), training, level, workers)
            result = replace(
                result, finetuned=FinetunedResults(tuple(lines), kinds_tried, shares, training.epochs, training.rate)
            )
        write_results(work.store, result)
    return result


def clean_targets(quantification: Quantification) -> set[int]:
    """Collect the targets of the classes where nothing was found."""
    return {v.target for v in quantification if not v.artifactual}


def run_trials(
    audit: Audit, work: DetectionUnits, pairs: Sequence[tuple[str, float]], classes: int, clean: Sequence[int],
    level: float, workers: int,
) -> list[TrialRow]:  # fmt: skip
    """Plant each (kind, prevalence) in some clean classes, one class at a time; return the rows of all trials."""
    rng, compared = generator(work.settings.seed, "power"), DetectedClasses.of(work, level)
    by_target = {group.target: number for number, group in enumerate(work.groups)}
    drawn = [rng.permutation(clean)[:classes].tolist() for _ in pairs]
    trials = tuple((*pair, number) for pair, numbers in zip(pairs, drawn, strict=True) for number in numbers)
    scores = np.array([[line["score"] for line in lines] for lines in compared.signs.values()])
    described, targets = tuple(compared.described[target] for target in compared.signs), tuple(compared.signs)
    asked = (trials, level) if class_strategy(len(described)).compares_classes else (trials, level, described)
    name = "power-" + hashlib.sha256(repr(asked).encode()).hexdigest()[:8]
    trial = PlantingUnits(work, trials, scores, tuple(by_target[target] for target in targets), described, level, name)
    run_step(audit, work.store, trial, name, partition(len(trials), 1), workers, "plants in this corpus")
    return list(work.store.table(name, name).to_pylist())


def write_results(store: RunStore, result: Power) -> None:
    """Write the results as JSON, as a table and to the report."""
    store.forget_unfinished(MEASURED_BESIDE)  # of calls with other arguments that were stopped
    store.write_json(POWER_FILE, result.to_json())
    store.write_table("power", pa.Table.from_pylist(result.lines()))
    page.write_report(store)


def check_plants(kinds: Sequence[str], prevalences: Sequence[float], classes: int) -> None:
    """Check kinds, prevalences and number of classes. Raises UsageError: an unknown kind, a prevalence outside (0, 1),
    or no class."""
    for kind in kinds:
        draw_plant(kind, 0)
    for share in prevalences:
        PREVALENCE.require("prevalence", share)
    PLANTED_CLASSES.require("number of classes", classes)


def plant_in_carriers(
    levels: Pixels, artifact: PlantFunction, carriers: NDArray[np.intp], rng: np.random.Generator
) -> Pixels:
    """Plant an artifact in the carriers among images (n, H, W, C)."""
    out = levels.copy()
    for i in carriers:
        out[i] = plant_on_levels(out[i], artifact, rng)
    return out
