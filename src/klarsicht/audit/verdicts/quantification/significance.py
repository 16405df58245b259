"""Compute the significance of the detections of each class, and select those that are inserted into other images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.results.resolution import MIN_CLASSES
from klarsicht.audit.results.rows import ClassRow, SignRow
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.split_half import combined_p, score_of_p

PLACED = "tile"  # change of an artifact with a place
LEARNED = "embedding"  # detector by the learned embedding
TRIED = 3  # detections of a class that are inserted, at most one for each kind of change
SAME = 0.5  # Jaccard index from which on two detections have the same members
NEAR = 0.25  # share of the largest level; detections below it are not inserted
WITHIN_SHARE = 0.2  # of the level, for windows and the learned embedding of few classes; the rest is for the reference


@dataclass(frozen=True)
class WithinClassTest(conformal.Verdicts):
    """Test of each class by itself, where classes are too few to be compared.

    Attributes:
        learned: bool (m,), detections by the learned embedding. In it, natural groups lie together, so what it sets
            apart is an artifact.
        placed: bool (m,), detections of windows, which may be the nature of a class; where images are not aligned, and
            those that are left share none, they are not. Noise, borders, blur, brightness
            and other descriptions are not tested: they differ between classes by nature.
        apart: bool (n, m), detections by which a class stands apart from reference classes; their levels are the scores
            that a window of the same p has.
    """

    learned: NDArray[np.bool_]
    placed: NDArray[np.bool_]
    apart: NDArray[np.bool_]

    @classmethod
    def of(
        cls, scores: NDArray[np.float64], placed: NDArray[np.bool_], learned: NDArray[np.bool_],
        apart_p: NDArray[np.float64] | None = None,
    ) -> WithinClassTest:  # fmt: skip
        """Test scores (n, m) in nats.

        Args:
            apart_p: (n, m), p-values of the detections by which classes stand apart from reference classes; NaN of all
                others.
        """
        tested = placed | learned
        tests = count_tests(placed, learned)
        apart = np.zeros(scores.shape, bool) if apart_p is None else np.isfinite(apart_p)
        levels = np.where(tested, scores, 0.0)
        if apart_p is not None:
            levels = np.where(apart, score_of_p(np.where(apart, apart_p, 1.0), tests), levels)
        return cls._of_levels(levels, levels.max(1), learned, placed, apart)

    @classmethod
    def _of_levels(
        cls, levels: NDArray[np.float64], top: NDArray[np.float64], learned: NDArray[np.bool_],
        placed: NDArray[np.bool_], apart: NDArray[np.bool_],
    ) -> WithinClassTest:  # fmt: skip
        """Make the test of levels (n, m) of which `top` (n,) decides."""
        p = combined_p(top, count_tests(placed, learned))
        nobody = np.zeros(len(levels), bool)
        q = conformal.benjamini_hochberg(p)
        return cls(levels, levels.argmax(1), top, nobody, p, p, q, learned, placed, apart)

    @property
    def tests(self) -> int:
        """Number of detections that are tested, see `count_tests`."""
        return count_tests(self.placed, self.learned)

    def p_of(self, level: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the p-value of levels."""
        return combined_p(level, self.tests)

    def counted(self, by_windows: bool) -> NDArray[np.bool_]:
        """Select the detections (n, m) that are verdicts: by the learned embedding and beside reference classes, or by
        windows as well."""
        return np.asarray(self.apart | (self.learned | self.placed if by_windows else self.learned))

    def set_apart(self, level: float, by_windows: bool = False) -> NDArray[np.bool_]:
        """Select the classes (n,) with a detection that counts, by windows as well or without them."""
        highest = np.where(self.counted(by_windows), self.levels, 0.0).max(1)
        return np.asarray(self.p_of(highest) <= level)

    def named_by(self, counted: NDArray[np.bool_], named: NDArray[np.bool_]) -> WithinClassTest:
        """Return the test in which classes have the levels of the detections `named` (n, m) alone, and those of
        `counted` (n, m) decide."""
        levels, deciding = (np.where(some, self.levels, 0.0) for some in (named, counted))
        return self._of_levels(levels, deciding.max(1), self.learned, self.placed, self.apart)


def count_tests(placed: NDArray[np.bool_], learned: NDArray[np.bool_]) -> int:
    """Count the detections (m,) that are tested within a class, each as often as their share goes into the level."""
    return round(int((placed | learned).sum()) / WITHIN_SHARE)


def compare_classes(
    scores: NDArray[np.float64], placed: NDArray[np.bool_], learned: NDArray[np.bool_],
    apart_p: NDArray[np.float64] | None = None,
) -> conformal.Verdicts:  # fmt: skip
    """Test the maximum over detections, of scores (n, m) in nats: among clean classes, or each class by itself."""
    if len(scores) >= MIN_CLASSES:
        return conformal.maximum_over_detectors(scores)
    return WithinClassTest.of(scores, placed, learned, apart_p)


def judge_detections(
    scores: NDArray[np.float64], signs: Sequence[str], change_of: Callable[[str], str],
    apart: Sequence[tuple[str, float]] = (),
) -> conformal.Verdicts:  # fmt: skip
    """Test scores (n, m) of n classes under m detections of those names.

    Args:
        apart: see `select_detections`, or of no class.
    """
    apart_p = np.full(scores.shape, np.nan)
    for i, (sign, p) in enumerate(apart):
        if sign in signs:
            apart_p[i, list(signs).index(sign)] = p
    placed = np.array([change_of(sign) == PLACED for sign in signs])
    learned = np.array([sign.split()[0] == LEARNED for sign in signs])
    return compare_classes(scores, placed, learned, apart_p)


@dataclass(frozen=True)
class SelectedDetections:
    """Strongest detection of every examined class, and the detections to insert.

    Attributes:
        rows: rows of the table `signs`, the strongest of each class.
        candidates: for each class the rows to insert, the strongest first; each with its level.
        found: test of the maximum over detections.
        p_own: float (n,), p-value of the score of each row by itself.
        distinct: whether no class shares windows by nature, as far as can be seen; see `detectors.natural_windows`.
    """

    rows: tuple[SignRow, ...]
    candidates: tuple[tuple[tuple[SignRow, float], ...], ...]
    found: conformal.Verdicts
    p_own: NDArray[np.float64]
    distinct: bool = False

    def artifactual(self, level: float) -> NDArray[np.bool_]:
        """Select the classes (n,) that exceed clean ones, and chance within the class; where classes are too few to be
        compared, those of which the learned embedding sets a group apart, or windows where no class shares any by
        nature."""
        if isinstance(self.found, WithinClassTest):
            return self.found.set_apart(level, by_windows=self.distinct)
        return (self.found.extended <= level) & (self.p_own <= level) & self.found.null.any()

    def shared(self, level: float) -> NDArray[np.bool_]:
        """Select the other classes (n,) with windows that no other class shares, where classes are too few to know what
        is natural."""
        return (self.p_own <= level) & ~self.found.null.any() & ~self.artifactual(level)

    def p_of(self, number: int, sign: str) -> float:
        """Return the p-value of one of the inserted detections of a class."""
        level = next((level for row, level in self.candidates[number] if row["sign"] == sign), -np.inf)
        return float(self.found.p_of(np.array([level]))[0])


def common_detections(signs: Mapping[int, Sequence[SignRow]]) -> dict[int, list[SignRow]]:
    """Select the detections that every class has, in one order: of classes that two versions of klarsicht examined
    those of one version alone are left out, since scores are compared between classes.

    Args:
        signs: rows of the table `signs` for each class that was examined.
    """
    by_name = {target: {row["sign"]: row for row in rows} for target, rows in signs.items()}
    first: Mapping[str, SignRow] = next(iter(by_name.values()), {})
    names = [name for name in first if all(name in known for known in by_name.values())]
    return {target: [known[name] for name in names] for target, known in by_name.items()}


def select_detections(
    signs: Sequence[Sequence[SignRow]], change_of: Callable[[str], str], level: float, distinct: bool = False,
    apart: Sequence[tuple[str, float]] = (),
) -> SelectedDetections:  # fmt: skip
    """Select detections from the rows of each class, in the same order of settings for all.

    Where classes are too few to be compared, a class that is called is named by the detection that counts, or by a
    stronger one of the same members; no other is inserted, whatever the windows of the class score.

    Args:
        level: p-value from which down a class is called.
        distinct: see `SelectedDetections`.
        apart: of each class the detection by which it stands apart from reference classes, with its p; an empty name
            where it does not. Only asked where classes are too few to be compared.
    """
    scores = np.array([[line["score"] for line in of_class] for of_class in signs], float)
    found = judge_detections(scores, [line["sign"] for line in signs[0]], change_of, apart)
    if isinstance(found, WithinClassTest):
        found = name_called_classes(found, signs, level, distinct)
    rows = tuple(of_class[i] for of_class, i in zip(signs, found.best, strict=True))
    candidates = tuple(select_candidates(*pair, change_of) for pair in zip(signs, found.levels, strict=True))
    within = isinstance(found, WithinClassTest)
    p_own = combined_p(found.score if within else [row["score"] for row in rows], found.tests)
    return SelectedDetections(rows, candidates, found, p_own, distinct)


def name_called_classes(
    found: WithinClassTest, signs: Sequence[Sequence[SignRow]], level: float, distinct: bool
) -> WithinClassTest:
    """Name each class that is called by the strongest detection that counts, and by those of the same members: others
    may be the nature of the class."""
    counted, called = found.counted(distinct), found.set_apart(level, distinct)
    deciding, named = (np.ones(counted.shape, bool) for _ in range(2))
    for i in np.flatnonzero(called).tolist():
        members = set(signs[i][int(np.where(counted[i], found.levels[i], 0.0).argmax())]["rows"])
        alike = [len(members & set(row["rows"])) >= SAME * len(members | set(row["rows"])) for row in signs[i]]
        deciding[i], named[i] = counted[i], counted[i] | alike
    return found.named_by(deciding, named)


def are_distinct(described: Iterable[ClassRow]) -> bool:
    """Say whether no examined class shares windows by nature; of runs of earlier versions that is not known."""
    return not any(row.get("natural") is not False for row in described if not row["skipped"])


def select_candidates(
    rows: Sequence[SignRow], levels: NDArray[np.floating[Any]], change_of: Callable[[str], str]
) -> tuple[tuple[SignRow, float], ...]:
    """Select the strongest detection of each kind of change, of those near the strongest of all, strongest first."""
    best: dict[str, tuple[SignRow, float]] = {}
    least = min(NEAR * levels.max(), levels.max())  # levels may be negative
    for i in np.argsort(-levels, kind="stable"):
        if len(rows[i]["rows"]) and levels[i] >= least:
            best.setdefault(change_of(rows[i]["sign"]), (rows[i], float(levels[i])))
    return tuple(best.values())[:TRIED]
