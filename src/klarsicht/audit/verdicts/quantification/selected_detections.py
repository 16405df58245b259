"""Select the strongest detection of each class, and the detections that are inserted into other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klarsicht.audit.results.rows import FewClassMeasures, SignRow
from klarsicht.audit.results.significance import Significance, class_strategy
from klarsicht.audit.verdicts.detectors.bank import change_of
from klarsicht.ground.arrays import Doubles

TRIED = 3  # detections of a class that are inserted, at most one for each kind of change
NEAR = 0.25  # share of the largest level; detections below it are not inserted


@dataclass(frozen=True)
class SelectedDetections:
    """Strongest detection of every examined class, and those to insert, the strongest first, each with its p-value."""

    rows: tuple[SignRow, ...]
    candidates: tuple[tuple[tuple[SignRow, float], ...], ...]
    significance: Significance

    def p_of(self, number: int, sign: str) -> float:
        """Return the p-value of one of the inserted detections of a class; 1 of any other."""
        return next((p for row, p in self.candidates[number] if row["sign"] == sign), 1.0)


def select_detections(
    signs: Sequence[Sequence[SignRow]], level: float, measures: Sequence[FewClassMeasures] = ()
) -> SelectedDetections:
    """Select detections from the rows of each class, in the same order of settings for all.

    Where classes are too few to be compared, which `measures` of each decide, a class that is called is named by the
    detection that counts, or by a stronger one of the same members; no other is inserted.
    """
    scores = np.array([[row["score"] for row in of_class] for of_class in signs], float)
    names = [row["sign"] for row in signs[0]]
    significance = class_strategy(len(scores)).test_detections(scores, names, change_of, measures)
    significance = significance.name_called([[row["rows"] for row in of_class] for of_class in signs], level)
    rows = tuple(of_class[i] for of_class, i in zip(signs, significance.largest.best, strict=True))
    each = zip(signs, significance.largest.levels, significance.p_each, strict=True)
    return SelectedDetections(rows, tuple(select_candidates(*one) for one in each), significance)


def select_candidates(rows: Sequence[SignRow], levels: Doubles, p: Doubles) -> tuple[tuple[SignRow, float], ...]:
    """Select the strongest detection of each kind of change near the strongest of all, in order, with p-values."""
    best: dict[str, tuple[SignRow, float]] = {}
    least = min(NEAR * levels.max(), levels.max())  # levels may be negative
    for i in np.argsort(-levels, kind="stable"):
        if len(rows[i]["rows"]) and levels[i] >= least:
            best.setdefault(change_of(rows[i]["sign"]), (rows[i], float(p[i])))
    return tuple(best.values())[:TRIED]
