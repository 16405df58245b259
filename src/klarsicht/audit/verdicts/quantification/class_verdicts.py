"""Make the verdicts on all classes from their detections and the effects of their artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict, order_verdicts
from klarsicht.audit.results.rows import NO_EFFECT, ClassRow, EffectRow, SignRow
from klarsicht.audit.results.significance import p_values_of_use
from klarsicht.audit.results.verdicts import Quantification, has_cleaning
from klarsicht.audit.verdicts.quantification.selected_detections import SelectedDetections, select_detections
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.run_folder.store import RunStore


@dataclass(frozen=True)
class DetectedClasses:
    """Classes of a run that are compared: their rows of the tables `signs` and `classes`, by target, at a level of
    p."""

    store: RunStore
    groups: tuple[Group, ...]
    signs: dict[int, list[SignRow]]
    described: dict[int, ClassRow]
    level: float

    @classmethod
    def of(cls, work: DetectionUnits, level: float) -> DetectedClasses:
        """Read the tables of a run whose classes were examined."""
        signs: dict[int, list[SignRow]] = {}
        for row in work.store.table("signs", work.step).to_pylist():
            signs.setdefault(row["target"], []).append(row)
        described = {row["target"]: row for row in work.store.table("classes", work.step).to_pylist()}
        return cls(work.store, work.groups, signs, described, level)

    def replace_class(self, signs: Sequence[SignRow], row: ClassRow | None = None) -> DetectedClasses:
        """Replace the detections of one class, and its row of the table `classes` where one is given."""
        target = signs[0]["target"]
        described = self.described if row is None else self.described | {target: row}
        return replace(self, signs=self.signs | {target: list(signs)}, described=described)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(class, reason) of the classes that could not be examined."""
        return tuple((line["class"], line["skipped"]) for line in self.described.values() if line["skipped"])

    @cached_property
    def choice(self) -> SelectedDetections:
        """The strongest detection of each class, and those to insert."""
        return select_detections([*self.signs.values()], self.level, [self.described[target] for target in self.signs])

    @property
    def to_insert(self) -> tuple[tuple[SignRow, ...], ...]:
        """For each group, the detections that are inserted into other images."""
        by_target = dict(zip(self.signs, self.choice.candidates, strict=True))
        return tuple(tuple(row for row, _ in by_target.get(group.target, ())) for group in self.groups)

    def judge(self, effects: dict[int, EffectRow]) -> Quantification:
        """Make the verdicts, given rows of the table `effects` by target."""
        choice, level = self.choice, self.level
        paths, outputs = self.store.texts("corpus", "path"), self.store.array("logits").shape[1]
        tried = [effects.get(row["target"], NO_EFFECT) for row in choice.rows]
        significance, largest = choice.significance, choice.significance.largest
        artifactual, specific = significance.artifactual(level).tolist(), significance.class_specific(level).tolist()
        p_use = p_values_of_use(tried, artifactual, outputs, level)
        found = []
        for i, (row, effect) in enumerate(zip(choice.rows, tried, strict=True)):
            one, use = self.described[row["target"]], UseResult.of(effect, p_use[i])
            shown = use.p_use <= level and use.matters and use.recognisable
            used = bool(shown and choice.p_of(i, effect["sign"]) <= level)
            carried = next((c for c, _ in choice.candidates[i] if used and c["sign"] == effect["sign"]), row)
            detection = DetectionResult(
                sign=carried["sign"], score=carried["score"], level=float(largest.score[i]),
                p_rank=float(largest.extended[i]), q=float(largest.q[i]), p_own=float(significance.p_own[i]),
            )  # fmt: skip
            is_artifact = artifactual[i] and used and not use.is_content
            verdict = Verdict(
                name=one["class"], target=row["target"], n=one["n"], repeats=len(one["repeats"]), detection=detection,
                rows=tuple(carried["rows"]), members=tuple(paths[row] for row in carried["rows"]), use=use,
                artifactual=artifactual[i], poisoned=is_artifact, shared=specific[i], used=used,
            )  # fmt: skip
            found.append(verdict)
        verdicts, run = order_verdicts(found), self.store
        return Quantification(verdicts, largest.floor, level, self.skipped, str(run.path), has_cleaning(run))
