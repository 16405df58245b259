"""What could this audit have found? Known artifacts are planted in classes of the user's own corpus, and looked for.

No training is needed to know when a class would be called *artifactual*: detectors look at images, not at the model.
When it would be called *poisoned* depends on what a model learns from the planted images: where it is asked, copies of
the model are fine-tuned on them (audit.sensitivity.finetuned), else the answer is "unknown".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from klarsicht.audit.detectors.bank import DETECTORS, change_of, examined
from klarsicht.audit.detectors.detection import Detection, ImageStack
from klarsicht.audit.executor import partition
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.models.finetuning import RATE, Training
from klarsicht.audit.pipeline import Audit, through
from klarsicht.audit.quantify import quantification
from klarsicht.audit.quantify.units import DetectionUnits
from klarsicht.audit.report import page
from klarsicht.audit.results.significance import PLACED, compared
from klarsicht.audit.results.verdicts import LEVEL, Quantification
from klarsicht.audit.sensitivity import detection_limits, finetuned
from klarsicht.audit.sensitivity.finetuned_results import Learned
from klarsicht.audit.sensitivity.planted_data import courses
from klarsicht.audit.synthetic import artifacts
from klarsicht.audit.synthetic.artifacts import PLANTS
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator
from klarsicht.ground.store import RunStore
from klarsicht.numerics.statistics.conformal import Verdicts
from klarsicht.numerics.statistics.split_half import combined

FILE = "power.json"
PREVALENCES = (0.2, 0.1, 0.05, 0.02, 0.01)
FEWEST = 2  # images that carry a plant: one alone repeats nothing
TRIALS = pa.schema(
    {"kind": pa.string(), "prevalence": pa.float64(), "target": pa.int64(), "planted": pa.int64(), "p": pa.float64()}
    | {"sign": pa.string(), "found": pa.bool_(), "f1": pa.float64(), "detectors": pa.list_(pa.string())}
)


@dataclass(frozen=True)
class Power:
    """Trials, one for each kind, prevalence and class: a line of the table `trials`.

    `found` says that the class was called artifactual for images most of which carry the plant; `f1` compares them;
    `detectors` are those that would have called it so by themselves. `learned` is what copies made of plants that they
    were trained on, where that was asked.
    """

    trials: tuple[dict[str, Any], ...]
    kinds: tuple[str, ...]
    prevalences: tuple[float, ...]
    level: float
    learned: Learned | None = None

    def of(self, kind: str, prevalence: float) -> list[dict[str, Any]]:
        return [t for t in self.trials if t["kind"] == kind and t["prevalence"] == prevalence]

    def share(self, kind: str, prevalence: float, by: str = "") -> float:
        """Of the classes planted so, those found, by one detector or by all; not a number where none was planted."""
        mine = self.of(kind, prevalence)
        found = [by in t["detectors"] if by else t["found"] for t in mine]
        return sum(found) / len(mine) if mine else float("nan")

    def limit(self, kind: str, by: str = "") -> float | None:
        """The smallest prevalence at which half of the classes are found, and at all larger ones; None without any."""
        return detection_limits.limit({p: self.share(kind, p, by) for p in self.prevalences})

    def detectors(self, kind: str) -> dict[str, float]:
        """The limit of every detector that has one."""
        return {by: limit for by in DETECTORS if (limit := self.limit(kind, by)) is not None}

    def told(self, kind: str) -> str:
        return detection_limits.told(self.limit(kind))

    def cell(self, kind: str, prevalence: float) -> str:
        mine = self.of(kind, prevalence)
        return f"{sum(t['found'] for t in mine)}/{len(mine)}"

    def to_json(self) -> dict[str, Any]:
        down_to = {kind: self.limit(kind) for kind in self.kinds}
        of_each = {kind: self.detectors(kind) for kind in self.kinds}
        poisoned = self.learned.to_json() if self.learned else "unknown"
        told = {"level": self.level, "limits": down_to, "detectors": of_each, "poisoned": poisoned}
        return told | {"trials": list(self.trials)}

    def lines(self) -> list[dict[str, Any]]:
        """One line a kind, for the page."""
        by_kind = {line["kind"]: line for line in self.learned.lines()} if self.learned else {}
        return [
            {"kind": kind, "limit": self.told(kind), "prevalences": list(self.prevalences)}
            | {
                "detectors": ", ".join(
                    f"{by} {detection_limits.percent(limit)}" for by, limit in self.detectors(kind).items()
                )
            }
            | {"cells": [self.cell(kind, p) for p in self.prevalences]}
            | {"shares": [self.share(kind, p) for p in self.prevalences]}
            | {"learned": by_kind.get(kind), "notes": self.learned.notes() if self.learned else ()}
            for kind in self.kinds
        ]


@dataclass(frozen=True)
class PlantingUnits:
    """Plants one artifact in one class and looks; a unit is one trial.

    Attributes:
        trials: (kind, prevalence, number of the class).
        scores: float (classes, signs) of the corpus as it is.
    """

    examination: DetectionUnits
    trials: tuple[tuple[str, float, int], ...]
    scores: NDArray[np.float64]
    numbers: tuple[int, ...]
    level: float
    step: str

    def __call__(self, unit: range) -> None:
        for index in unit:
            line = self.try_one(index)
            self.examination.store.write_part(self.step, index, pa.Table.from_pylist([line] if line else [], TRIALS))

    def try_one(self, index: int) -> dict[str, Any] | None:
        """None where so few images would be planted that nothing could repeat."""
        kind, prevalence, number = self.trials[index]
        rows, _ = self.examination.distinct(self.examination.groups[number].rows)
        count = round(prevalence * len(rows))
        if count < FEWEST:
            return None
        rng = generator(self.examination.settings.seed, "power", index)
        carriers = np.sort(rng.permutation(len(rows))[:count])
        scene = self.examination.scene(number, rows)
        levels = with_plants(scene.own.levels, kind, carriers, rng)
        signs = examined(replace(scene, own=ImageStack(levels, scene.own.evidence)))
        scores, place = self.scores.copy(), self.numbers.index(number)
        scores[place] = [sign.score for sign in signs]
        placed = np.array([change_of(sign.name) == PLACED for sign in signs])
        found = compared(scores, placed)
        best = signs[found.best[place]]
        p = max(float(found.extended[place]), float(combined(best.score, found.tests)))
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
            "detectors": calling(signs, self.called(found, place, signs), carriers),
        }

    def called(self, found: Verdicts, place: int, signs: Sequence[Detection]) -> NDArray[np.bool_]:
        """Which signs of a class would have called it alone."""
        own = combined([sign.score for sign in signs], found.tests)
        return np.asarray(np.maximum(found.p_of(found.levels[place]), own) <= self.level)


def calling(signs: Sequence[Detection], called: NDArray[np.bool_], carriers: NDArray[np.intp]) -> list[str]:
    """The detectors of those signs that are called (m,) for images half of which or more carry the plant."""
    true = [2 * len(np.intersect1d(sign.members, carriers)) >= len(sign.members) > 0 for sign in signs]
    return sorted({sign.name.split()[0] for sign, one, other in zip(signs, true, called, strict=True) if one and other})


def power(
    run: str | Path, *, kinds: Sequence[str] | None = None, prevalences: Sequence[float] | None = None,
    classes: int = 5, level: float = LEVEL, workers: int = 1, data: str | None = None,
    classifier: Classifier | None = None, train: int | None = None, rate: float = RATE,
) -> Power:  # fmt: skip
    """Plants each kind at each prevalence in some classes of a run, and says which are found; quantifies it first.

    Writes `power.json`, the table `power`, and a section of the page.

    Args:
        kinds: names of planting.PLANTS; all of them by default.
        classes: how many classes each is planted in, one at a time, drawn from those where nothing was found.
        level, workers, data, classifier: see quantification.quantify.
        train: epochs for which copies of the model are fine-tuned on planted corpora, to say what of that would be
            called poisoned; several kinds are planted at once then. None: it stays unknown.
        rate: of that training.

    Raises:
        UsageError: an unknown kind, a prevalence outside (0, 1), no class to plant in, no epochs, no labels to train
            on; and as quantify does.
        ModelError: a model that cannot be trained, or a training that diverged.
    """
    asked, shares = tuple(dict.fromkeys(kinds or PLANTS)), tuple(dict.fromkeys(prevalences or PREVALENCES))
    check(asked, shares, classes)
    training = None if train is None else Training(train, rate)
    with quantification.opened(run, level=level, workers=workers, data=data, classifier=classifier) as (audit, work):
        if training:
            finetuned.require_trainable(audit)
        found = quantification.run_quantification(audit, work, level, workers)
        clean = [number for number, group in enumerate(work.groups) if group.target in unsuspected(found)]
        if not clean:
            raise UsageError("no class to plant in", got="none where nothing was found", rule="at least 1")
        room = finetuned.room(len(found), len(found) - len(clean)) if training else 1
        trials = planted_and_sought(audit, work, tuple(product(asked, shares)), classes, clean, level, workers)
        result = Power(tuple(trials), asked, shares, level)
        if training:
            planned = courses(asked, shares, classes, clean, room, generator(work.settings.seed, "courses"))
            lines = finetuned.learned(audit, work, planned, tuple(clean), training, level, workers)
            result = replace(result, learned=Learned(tuple(lines), asked, shares, training.epochs, training.rate))
        written(work.store, result)
    return result


def unsuspected(found: Quantification) -> set[int]:
    """Targets of the classes where nothing was found."""
    return {v.target for v in found if not v.artifactual}


def planted_and_sought(
    audit: Audit, work: DetectionUnits, asked: Sequence[tuple[str, float]], classes: int, clean: Sequence[int],
    level: float, workers: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Each kind and prevalence in some of the clean classes, by number, one class at a time."""
    rng, signs = generator(work.settings.seed, "power"), quantification.signs_by_target(work)
    by_target = {group.target: number for number, group in enumerate(work.groups)}
    drawn = [rng.permutation(clean)[:classes].tolist() for _ in asked]
    trials = tuple((*pair, number) for pair, numbers in zip(asked, drawn, strict=True) for number in numbers)
    scores = np.array([[line["score"] for line in lines] for lines in signs.values()])
    name = "power-" + hashlib.sha256(repr((trials, level)).encode()).hexdigest()[:8]
    trial = PlantingUnits(work, trials, scores, tuple(by_target[target] for target in signs), level, name)
    through(audit, work.store, trial, name, partition(len(trials), 1), workers, "plants in this corpus")
    return list(work.store.table(name, name).to_pylist())


def written(store: RunStore, result: Power) -> None:
    """As JSON, as a table and on the page."""
    store.write_json(FILE, result.to_json())
    store.write_table("power", pa.Table.from_pylist(result.lines()))
    page.write_report(store)


def check(kinds: Sequence[str], prevalences: Sequence[float], classes: int) -> None:
    for kind in kinds:
        artifacts.plant(kind)
    for share in prevalences:
        if not 0 < share < 1:
            raise UsageError("prevalence out of range", got=share, rule="above 0, below 1")
    if classes < 1:
        raise UsageError("no classes to plant in", got=classes, rule="at least 1")


def with_plants(levels: Pixels, kind: str, carriers: NDArray[np.intp], rng: np.random.Generator) -> Pixels:
    """Images (n, H, W, C) of which the carriers hold the artifact."""
    out = levels.copy()
    for i in carriers:
        out[i] = artifacts.on_levels(out[i], kind, rng)
    return out
