"""Find further artifacts of a called class: a rare artifact is hidden by a frequent one, so the images left without the
members of the first are compared with the same clean classes as the whole class was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.step_units import run_step
from klarsicht.audit.results.class_verdict import Verdict, order_verdicts
from klarsicht.audit.results.detection_rows import FURTHER_STEPS, list_called, name_further_step
from klarsicht.audit.results.rows import NO_EFFECT, EffectRow, FurtherEffectRow, FurtherSignRow, SignRow
from klarsicht.audit.results.same_marks import merge_same_marks
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.detectors.bank import run_detectors
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits, most_images_inserted
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, sign_row
from klarsicht.ground.arrays import Rows
from klarsicht.ground.progress import note
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read

MOST_FURTHER = 2  # artifacts of a class beside the first
FURTHER_SIGNS, FURTHER_EFFECTS = map(schema_of, (FurtherSignRow, FurtherEffectRow))


@dataclass(frozen=True)
class FurtherUnits:
    """Work units that look for further artifacts in called classes; a unit is one class of `called`."""

    detection_units: DetectionUnits
    called: tuple[Verdict, ...]
    level: float

    @property
    def step(self) -> str:
        """Name of the step and of its table of detections."""
        return name_further_step(self.called, self.level)

    @property
    def effects_table(self) -> str:
        return f"{self.step}-effects"

    def __call__(self, unit: range) -> Written:
        store, written = self.detection_units.store, Written()
        for number in unit:
            signs: list[FurtherSignRow] = []
            effects: list[FurtherEffectRow] = []
            for i, (of_class, effect) in enumerate(self.search(self.called[number]), 2):
                signs += [{**row, "artifact": i} for row in of_class]
                effects += [{**effect, "artifact": i}]
            written |= store.write_part(self.step, number, pa.Table.from_pylist(signs, FURTHER_SIGNS))
            written |= store.write_part(self.effects_table, number, pa.Table.from_pylist(effects, FURTHER_EFFECTS))
        return written

    def list_reads(self, unit: range) -> Iterator[Read]:
        """List what a unit reads of the run: the tables of verdicts, and what its classes' detections and insertions
        read."""
        work, step = self.detection_units, InterventionUnits.step
        yield Read("texts", ("corpus", "path"))
        yield from (
            Read("table", (name, of)) for name, of in (("signs", work.step), ("classes", work.step), (step, step))
        )
        targets = {self.called[i].target for i in unit}
        numbers = [i for i, group in enumerate(work.groups) if group.target in targets]
        yield from work.list_reads(numbers)
        yield from InterventionUnits(work, ()).list_reads(numbers)

    def search(self, first: Verdict) -> Iterator[tuple[list[SignRow], EffectRow]]:
        """Examine a class without the members of its artifacts, until nothing more is called; yield of each further
        artifact the detections and the effect."""
        work, left_out = self.detection_units, np.array(first.rows, np.intp)
        number = next(i for i, group in enumerate(work.groups) if group.target == first.target)
        distinct, _ = work.drop_repeats(work.groups[number].rows)
        for _ in range(MOST_FURTHER):
            rest = np.setdiff1d(distinct, left_out)
            if len(rest) < MIN_IMAGES:
                return
            found = run_detectors(work.class_images(number, rest))
            signs = [sign_row(first.target, rest, one) for one in found]
            if not self.judge(signs, NO_EFFECT).artifactual:
                return
            effect = self.measure_effect(number, signs, left_out)
            yield signs, effect
            left_out = np.union1d(left_out, self.judge(signs, effect).rows)

    def measure_effect(self, number: int, signs: Sequence[SignRow], left_out: Rows) -> EffectRow:
        """Insert the artifact of detections into images of other classes; left-out images are no others of the
        class."""
        inserted, target = self.classes.replace_class(signs).to_insert, signs[0]["target"]
        units = InterventionUnits(self.detection_units, inserted, tuple(left_out.tolist()))
        return next(iter(units.effects(number)), NO_EFFECT | {"target": target})

    def judge(self, signs: Sequence[SignRow], effect: EffectRow) -> Verdict:
        """Give the verdict on the detections and the effect of what is left of a class, beside the other classes."""
        target = signs[0]["target"]
        found = self.classes.replace_class(signs).judge({**self.effects, target: effect})
        return next(verdict for verdict in found if verdict.target == target)

    @cached_property
    def classes(self) -> DetectedClasses:
        return DetectedClasses.of(self.detection_units, self.level)

    @cached_property
    def effects(self) -> dict[int, EffectRow]:
        rows = self.detection_units.store.table("effects", InterventionUnits.step).to_pylist()
        return {row["target"]: row for row in rows}

    @cached_property
    def signs(self) -> dict[tuple[int, int], list[SignRow]]:
        """The detections in what was left of classes, by output and number of the search, from the table of the
        step."""
        signs: dict[tuple[int, int], list[SignRow]] = {}
        for row in self.detection_units.store.table(self.step, self.step).to_pylist():
            signs.setdefault((row["target"], row.pop("artifact")), []).append(row)
        return signs

    def verdicts(self) -> dict[int, tuple[Verdict, ...]]:
        """Return the verdicts on the further artifacts of each class that has any, from the tables of the step."""
        store = self.detection_units.store
        effects = {
            (row["target"], row["artifact"]): row for row in store.table(self.effects_table, self.step).to_pylist()
        }
        found: dict[int, tuple[Verdict, ...]] = {}
        for key, rows in sorted(self.signs.items()):
            found[key[0]] = (*found.get(key[0], ()), self.judge(rows, effects[key]))
        return found

    def add_further(self, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
        """Yield the verdicts on classes with those on their further artifacts; what is one mark becomes one."""
        signs, further = self.signs, self.verdicts()
        for first in verdicts:
            searches = {1: self.classes.signs.get(first.target, [])}
            searches |= {number: rows for (target, number), rows in signs.items() if target == first.target}
            one, *others = merge_same_marks([first, *further.get(first.target, ())], searches, self.level)
            yield replace(one, further=tuple(others))


def find_further_artifacts(audit: Audit, work: DetectionUnits, first: Quantification, workers: int) -> Quantification:
    """Add to each called class the verdicts on its further artifacts, at most MOST_FURTHER. Classes that are too few to
    be compared are judged by other tests, and have no further ones."""
    called = list_called(first)
    if not called or not class_strategy(len(first)).compares_classes:
        return first
    units = FurtherUnits(work, called, first.level)
    if not work.store.is_finished(units.step):
        most = len(called) * MOST_FURTHER * most_images_inserted(work.outputs)
        images = "the other images of " + ("one class" if len(called) == 1 else f"{len(called)} classes")
        note(f"further artifacts are sought in {images}: at most {most:,} more images will be shown to the network")
    run_step(audit, work.store, units, units.step, partition(len(called), 1), workers, "further artifacts")
    audit.sharing.once(f"{units.step}.kept", lambda: work.store.forget_unfinished((FURTHER_STEPS,)))
    return replace(first, verdicts=order_verdicts([*units.add_further(first)]))
