"""How far does each class stand out from the others, and which of its signs are worth a trial?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.split_half import combined

FEWEST = 5  # classes: of fewer no distribution can be drawn, and a class is judged by itself
PLACED = "tile"  # how what has a place is put on other images
TRIED = 3  # signs of a class that are put on other images, at most one for each kind of change
NEAR = 0.25  # of the largest level: signs far below it are not tried

Line = dict[str, Any]


@dataclass(frozen=True)
class WithinClassTest(conformal.Verdicts):
    """Classes that are too few to be compared, each by itself.

    Attributes:
        placed: bool (m,), signs of windows. Only these are looked at: a class is noisier than another one by nature,
            and its borders, blur and light are its own.
    """

    placed: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.float64], placed: NDArray[np.bool_]) -> WithinClassTest:
        """From scores (n, m) in nats."""
        levels = np.where(placed, scores, 0.0)
        top = levels.max(1)
        p = combined(top, int(placed.sum()))
        nobody = np.zeros(len(scores), bool)
        return cls(levels, levels.argmax(1), top, nobody, p, p, conformal.false_discovery(p), placed)

    @property
    def tests(self) -> int:
        return int(self.placed.sum())

    def p_of(self, level: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        return combined(level, self.tests)


def compared(scores: NDArray[np.float64], placed: NDArray[np.bool_]) -> conformal.Verdicts:
    """Of classes with scores (n, m) in nats: the maximum over signs, among clean classes or by itself."""
    return conformal.maximum(scores) if len(scores) >= FEWEST else WithinClassTest.of(scores, placed)


@dataclass(frozen=True)
class SelectedDetections:
    """For every examined class the sign that stands out most, and those that are worth a trial.

    Attributes:
        lines: lines of the table `signs`.
        candidates: for each class the lines that are tried, the first one foremost; each with its level.
        found: the maximum over signs.
        p_own: float (n,), of the score of each line by itself.
    """

    lines: tuple[Line, ...]
    candidates: tuple[tuple[tuple[Line, float], ...], ...]
    found: conformal.Verdicts
    p_own: NDArray[np.float64]

    def artifactual(self, level: float) -> NDArray[np.bool_]:
        """Classes (n,) that stand out from clean ones, by more than chance does within the class."""
        return (self.found.extended <= level) & (self.p_own <= level) & self.found.null.any()

    def shared(self, level: float) -> NDArray[np.bool_]:
        """Classes (n,) with windows that no other class shares, where classes are too few to say what is natural."""
        return (self.p_own <= level) & ~self.found.null.any()

    def p_of(self, number: int, sign: str) -> float:
        """p of one of the signs that were tried in a class."""
        level = next((level for line, level in self.candidates[number] if line["sign"] == sign), -np.inf)
        return float(self.found.p_of(np.array([level]))[0])


def chosen(signs: Sequence[Sequence[Line]], change_of: Callable[[str], str]) -> SelectedDetections:
    """From the signs of each class, in one order for all."""
    placed = np.array([change_of(line["sign"]) == PLACED for line in signs[0]])
    found = compared(np.array([[line["score"] for line in of_class] for of_class in signs], float), placed)
    lines = tuple(of_class[i] for of_class, i in zip(signs, found.best, strict=True))
    candidates = tuple(worth_trying(*pair, change_of) for pair in zip(signs, found.levels, strict=True))
    return SelectedDetections(lines, candidates, found, combined([line["score"] for line in lines], found.tests))


def worth_trying(
    lines: Sequence[Line], levels: NDArray[np.floating[Any]], change_of: Callable[[str], str]
) -> tuple[tuple[Line, float], ...]:
    """The strongest sign of each kind of change, those near the strongest of all, strongest first."""
    best: dict[str, tuple[Line, float]] = {}
    least = min(NEAR * levels.max(), levels.max())  # levels may be negative
    for i in np.argsort(-levels, kind="stable"):
        if len(lines[i]["rows"]) and levels[i] >= least:
            best.setdefault(change_of(lines[i]["sign"]), (lines[i], float(levels[i])))
    return tuple(best.values())[:TRIED]
