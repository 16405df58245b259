"""Make the verdicts on all classes from the detections that were selected and the effects of their artifacts."""

from __future__ import annotations

from collections.abc import Sequence

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.rows import NO_EFFECT, ClassRow, EffectRow, SignRow
from klarsicht.audit.results.significance import p_values_of_use
from klarsicht.audit.results.verdicts import DetectionResult, Quantification, UseResult, Verdict
from klarsicht.audit.verdicts.quantification.selected_detections import SelectedDetections
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.run_folder.store import RunStore


def classes_by_target(work: DetectionUnits) -> dict[int, ClassRow]:
    """Return the row of the table `classes` of each class."""
    found: list[ClassRow] = work.store.table("classes", work.step).to_pylist()
    return {row["target"]: row for row in found}


def signs_by_target(work: DetectionUnits) -> dict[int, list[SignRow]]:
    """Return the rows of the table `signs` for each class that was examined."""
    found: list[SignRow] = work.store.table("signs", work.step).to_pylist()
    signs: dict[int, list[SignRow]] = {}
    for row in found:
        signs.setdefault(row["target"], []).append(row)
    return signs


def signs_to_insert(
    signs: dict[int, list[SignRow]], choice: SelectedDetections, groups: Sequence[Group]
) -> tuple[tuple[SignRow, ...], ...]:
    """Return for each class the rows of the table `signs` that are inserted into other images."""
    by_target = dict(zip(signs, choice.candidates, strict=True))
    return tuple(tuple(row for row, _ in by_target.get(group.target, ())) for group in groups)


def skipped_classes(described: dict[int, ClassRow]) -> tuple[tuple[str, str], ...]:
    """Return (class, reason) of the classes that could not be examined."""
    return tuple((line["class"], line["skipped"]) for line in described.values() if line["skipped"])


def make_quantification(
    store: RunStore, choice: SelectedDetections, described: dict[int, ClassRow], effects: dict[int, EffectRow],
    level: float,
) -> Quantification:  # fmt: skip
    """Make the verdicts from selected detections, their effects and rows of the table `classes`, by target."""
    paths, outputs = store.texts("corpus", "path"), store.array("logits").shape[1]
    tried = [effects.get(row["target"], NO_EFFECT) for row in choice.rows]
    significance, largest = choice.significance, choice.significance.largest
    artifactual, specific = significance.artifactual(level).tolist(), significance.class_specific(level).tolist()
    p_use = p_values_of_use(tried, artifactual, outputs, level)
    found = []
    for i, (row, effect) in enumerate(zip(choice.rows, tried, strict=True)):
        one, use = described[row["target"]], UseResult.of(effect, p_use[i])
        used = bool(use.p_use <= level and use.matters and choice.p_of(i, effect["sign"]) <= level)
        carried = next((c for c, _ in choice.candidates[i] if used and c["sign"] == effect["sign"]), row)
        detection = DetectionResult(
            sign=carried["sign"], score=carried["score"], level=float(largest.score[i]), p=float(largest.p[i]),
            extended=float(largest.extended[i]), q=float(largest.q[i]), p_own=float(significance.p_own[i]),
        )  # fmt: skip
        verdict = Verdict(
            name=one["class"], target=row["target"], n=one["n"], repeats=len(one["repeats"]), detection=detection,
            rows=tuple(carried["rows"]), members=tuple(paths[row] for row in carried["rows"]), use=use,
            artifactual=artifactual[i], poisoned=artifactual[i] and used, shared=specific[i], used=used,
        )  # fmt: skip
        found.append(verdict)
    return Quantification(verdicts.order_verdicts(found), largest.floor, level, skipped_classes(described))
