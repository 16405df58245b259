"""Compute every p of a verdict: of an artifact in the images of a class, and of its use by the model.

Two numbers decide what can be compared with what, and a strategy is chosen once for each: classes are compared with
each other, or where they are too few with themselves and with classes of photographs that come along; the rise of a
class is compared with those of the other outputs, or where these are too few with the rises by other windows or random
artifacts. The estimators are those of numerics.statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from klarsicht.audit.results.resolution import describe_least_p, describe_rank_limit
from klarsicht.audit.results.rows import SHARED_CONTENT, EffectRow, FewClassMeasures
from klarsicht.ground.arrays import Bools, Doubles, Floats, Rows
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.sequential import sequential_p
from klarsicht.numerics.statistics.split_half import combined_p, score_of_p

LEVEL = 0.05  # of p, for either claim of a verdict
MIN_CLASSES = 5  # classes: with fewer there is no null distribution, and a class is tested by itself
FEW_CLASSES = f"fewer than {MIN_CLASSES} classes"
MIN_OUTPUTS = 20  # outputs: with fewer, no rank among them reaches LEVEL
SHARING_OUTPUTS = 5  # outputs from which what carriers share is put on, whatever detector found them
OTHER_WINDOWS = 39  # other windows or random artifacts that one is compared with, where outputs are too few
EQUAL_WINDOWS = 2  # of these with the artifact's rise, from which no more are drawn: of 39 a p of 0.05 allows one
PLACED, LEARNED = "tile", "embedding"  # change of an artifact with a place, detector by the learned embedding
WITH_OWN_NULL = "aligned"  # detector of windows of aligned images, which has a null of its own
CONTENT_FREE = ("border", "noise", "blur", "light", "blocks", SHARED_CONTENT)  # no content that the whole class shows
SAME = 0.5  # Jaccard index from which on two detections have the same members
WITHIN_SHARE = 0.2  # of the level, for windows and the learned embedding of few classes
STEP_SHARE = 0.5  # of the level, for a class by itself, once others have left the reference
REFERENCE_SHARE = 1 - WITHIN_SHARE  # of the level, for the comparison with reference classes: the two share it
QUIET_EXCESS = 0.5  # nats, least mean excess of a detector: those that are quiet in reference classes count by little
APART_P = 0.05  # p of a class that stands apart, and of what is left without the members, above which nothing is left
ALIGNED = 0.015  # median correlation of details: of 100 classes of photographs at most 0.007, of aligned ones from 0.03


@dataclass(frozen=True)
class Significance:
    """p-values of m detections in each of n classes.

    Attributes:
        largest: test of the largest level of each class; levels (n, m) are scores in units of the strategy.
        counts: bool (n, m), detections by which a class can be called artifactual.
        p_each: (n, m), p-value of each detection as the largest of its class.
        p_alone: (n, m), p-value of its score by itself, Bonferroni-corrected for the tests of a class.
        p_own: (n,), the same of the largest level.
        decisive: int (n,), the strongest detection that counts.
        p_decisive: (n,), its p-value: the class is artifactual where it is at most the level.
    """

    largest: conformal.Verdicts
    counts: Bools
    p_each: Doubles
    p_alone: Doubles
    p_own: Doubles
    decisive: Rows
    p_decisive: Doubles

    def artifactual(self, level: float) -> Bools:
        """Select the classes (n,) that exceed what is natural, and chance within the class."""
        return np.asarray(self.p_decisive <= level)

    def class_specific(self, level: float) -> Bools:
        """Select the other classes (n,) with windows that no other class shares, where classes are few."""
        return np.asarray((self.p_own <= level) & ~self.largest.null.any() & ~self.artifactual(level))

    def significant(self, level: float) -> Bools:
        """Select the detections (n, m) that are significant by themselves, and count."""
        return np.asarray(self.counts & (np.maximum(self.p_each, self.p_alone) <= level))

    def with_rows_of(self, other: Significance, rows: Bools) -> Significance:
        """Take some classes, bool (n,), from another test of the same classes, and its reference."""
        names = ("p_each", "p_alone", "p_own", "decisive", "p_decisive")
        pairs = {name: (getattr(other, name), getattr(self, name)) for name in names}
        merge = {
            name: np.where(rows if own.ndim == 1 else rows[:, None], new, own) for name, (new, own) in pairs.items()
        }
        return replace(self, largest=self.largest.with_rows_of(other.largest, rows), **merge)

    def name_called(self, members: Sequence[Sequence[Sequence[int]]], level: float) -> Significance:
        """Name each class that is called by the strongest detection that counts, or a stronger one of the same members:
        others may be the nature of the class. `members` are those of each class and detection."""
        if self.counts.all():
            return self
        called, named = self.artifactual(level), np.ones(self.counts.shape, bool)
        for i in np.flatnonzero(called).tolist():
            own = {*members[i][self.decisive[i]]}
            named[i] = self.counts[i] | [len(own & {*one}) >= SAME * len(own | {*one}) for one in members[i]]
        levels, p = self.largest.levels, np.where(called, self.p_decisive, self.p_own)
        top = np.where(called, levels[np.arange(len(levels)), self.decisive], self.largest.score)
        return replace(self, largest=make_within_test(np.where(named, levels, 0.0), top, p), p_own=p)


@dataclass(frozen=True)
class ManyClasses:
    """Strategy that compares classes with each other, which tell what is natural.

    Artifacts among the reference hide each other. So what was called leaves the reference, and the others are tested
    again, until nothing changes (step-down). The strongest of equal classes would be called one after another, so with
    a smaller reference the p of a class by itself is divided by STEP_SHARE; and where chance does not explain most
    classes by themselves, as of aligned images, none leaves.
    """

    compares_classes = True

    def test_detections(
        self, scores: Doubles, names: Sequence[str], change_of: Callable[[str], str],
        measures: Sequence[FewClassMeasures] = (),
    ) -> Significance:  # fmt: skip
        """Test scores (n, m) in nats of n classes under m detections of those names: the largest of each class among
        those of clean classes, and by itself.

        Args:
            change_of: function from the name of a detection to the kind of its artifact.
            measures: of each class; only asked where classes are not compared.
        """
        p_alone, outside = combined_p(scores, scores.shape[1]), np.zeros(len(scores), bool)
        result = self._compare(scores, p_alone, outside)
        if np.quantile(result.p_own, conformal.CLEAN) <= LEVEL:
            return result
        stricter = np.minimum(p_alone / STEP_SHARE, 1)
        while (result.artifactual(LEVEL) & ~outside).any():
            outside = result.artifactual(LEVEL)
            again = self._compare(scores, stricter, outside)
            result = result.with_rows_of(again, ~outside & (again.p_decisive < result.p_decisive))
        return result

    def _compare(self, scores: Doubles, p_alone: Doubles, outside: Bools) -> Significance:
        """Test the largest score of each class among those of the reference, which some classes (n,) are outside of,
        and by itself."""
        test = conformal.maximum_over_detectors(scores, outside=outside)
        p_each = test.p_of(test.levels.ravel()).reshape(scores.shape)
        p_own = p_alone[np.arange(len(scores)), test.best]
        every = np.ones(scores.shape, bool)
        return Significance(test, every, p_each, p_alone, p_own, test.best, np.maximum(test.extended, p_own))

    def p_of_largest(self, scores: Doubles) -> Doubles:
        """Compute the p-value (n,) of the largest of m scores (n, m) of each class among classes."""
        return conformal.maximum_over_detectors(scores).extended

    def p_of_each(self, scores: Doubles) -> Doubles:
        """Compute the p-value of each score (n, m) among the largest of the other classes."""
        top = scores.max(1)
        null = conformal.select_reference(top)
        p = np.ones(scores.shape)
        for i, j in np.ndindex(*scores.shape):
            others = np.where(np.arange(len(top)) == i, scores[i, j], top)
            p[i, j] = conformal.tail_p_values(others, null)[i]
        return p

    def describe_limits(self, floor: float, level: float) -> str:
        """Say how small p can be, and whether it can reach the level."""
        if limit := describe_rank_limit(floor, level):
            return f"{limit} `klarsicht audit power` measures what could have been found."
        return f"A p below {floor:.3f} is extrapolated by a power law through the largest scores of clean classes."


@dataclass(frozen=True)
class FewClasses:
    """Strategy that tests each class by itself, and beside reference classes.

    Tested are windows, and the learned embedding: in it natural groups lie together, so what it sets apart is an
    artifact. Windows may be the nature of a class unless images are not aligned and those that are left share none.
    Noise, borders, blur and other descriptions differ between classes by nature; they are compared with reference
    classes alone, and count with the score that a window of the same p has. Where images are aligned, windows beyond
    what all of them share count instead, beside random classes of the run.
    """

    compares_classes = False

    def test_detections(
        self, scores: Doubles, names: Sequence[str], change_of: Callable[[str], str],
        measures: Sequence[FewClassMeasures] = (),
    ) -> Significance:  # fmt: skip
        """Test the largest score of each class by itself; see `ManyClasses`."""
        windows = np.array([change_of(name) == PLACED and not has_own_null(name) for name in names], bool)
        embedding = np.array([name.split()[0] == LEARNED for name in names], bool)
        tests = round(int((windows | embedding).sum()) / WITHIN_SHARE)
        beside = p_beside_reference(names, measures, scores.shape)
        apart = np.isfinite(beside)
        levels = np.where(windows | embedding, scores, 0.0)
        if apart.any():
            levels = np.where(apart, score_of_p(np.where(apart, beside, 1.0), tests), levels)
        counts = apart | (windows | embedding if are_distinct(measures) else embedding)
        p = combined_p(levels, tests)
        decisive = np.where(counts, levels, -np.inf).argmax(1)
        rows = np.arange(len(levels))
        p_decisive = np.where(counts[rows, decisive], p[rows, decisive], 1.0)
        p_own = combined_p(levels.max(1), tests)
        return Significance(make_within_test(levels, levels.max(1), p_own), counts, p, p, p_own, decisive, p_decisive)

    def p_of_largest(self, scores: Doubles) -> Doubles:
        return np.ones(len(scores))

    def p_of_each(self, scores: Doubles) -> None:
        return None

    def describe_limits(self, floor: float, level: float) -> str:
        limit = describe_least_p(
            1 / (OTHER_WINDOWS + 1), level, f"no use is shown of fewer than {MIN_OUTPUTS} outputs",
            "Raise --level to that.",
        )  # fmt: skip
        return (
            f"With {FEW_CLASSES} most findings are shown and cannot be tested: add classes, or have at least 1,000 "
            f"images. {limit}"
        ).strip()


def class_strategy(classes: int) -> ManyClasses | FewClasses:
    """Choose the strategy for so many classes."""
    return ManyClasses() if classes >= MIN_CLASSES else FewClasses()


def make_within_test(levels: Doubles, top: Doubles, p: Doubles) -> conformal.Verdicts:
    """Make the test of levels (n, m) by themselves, decided by those of `top` (n,), with their p-values (n,)."""
    nobody = np.zeros(len(levels), bool)
    return conformal.Verdicts(levels, levels.argmax(1), top, nobody, p, p, conformal.false_discovery_rates(p))


def are_distinct(measures: Sequence[FewClassMeasures]) -> bool:
    """Say whether no class shares windows by nature, as far as was measured."""
    return bool(measures) and not any(row["natural"] for row in measures)


def p_beside_reference(names: Sequence[str], measures: Sequence[FewClassMeasures], shape: tuple[int, ...]) -> Doubles:
    """Collect the p-values (n, m) of the detections by which classes stand apart from reference classes; NaN where
    something is left of a class without the members, and where pictures of any class of the run are aligned: those of
    the reference classes are not, and only random classes of the run itself count."""
    p, photographs = np.full(shape, np.nan), all(row["correlation"] < ALIGNED for row in measures)
    for i, row in enumerate(measures):
        counts = row["apart"] in names and (photographs or has_own_null(row["apart"]))
        if counts and row["apart_left"] > APART_P:
            p[i, names.index(row["apart"])] = row["apart_p"]
    return p


def has_own_null(name: str) -> bool:
    """Say whether a detection is compared with random classes of the run itself, by its name."""
    return name.split()[0] == WITH_OWN_NULL


def compare_with_reference(scores: Doubles, reference: Floats, share: float) -> tuple[int, float]:
    """Return which of the scores (m,) of a class stands out most among reference classes (r, m), and its p-value.

    The p-value is the larger of the rank among reference classes, continued by a power law, and of chance within the
    class; divided by REFERENCE_SHARE, for windows are tested as well. Only a `share` of the score counts among
    reference classes, less of larger classes, for surprisal grows with the number of images.
    """
    found = conformal.maximum_over_detectors(np.vstack([scores * share, reference]), QUIET_EXCESS)
    best = int(found.best[0])
    p = max(float(found.extended[0]), float(combined_p(scores[best], len(scores))))
    return best, min(1.0, p / REFERENCE_SHARE)


@dataclass(frozen=True)
class ManyOutputs:
    """Strategy that compares the rise of a class with those of the other outputs."""

    count: int

    other_windows = 0  # or random artifacts, that an artifact is compared with
    shares = True  # whether what carriers share is put on, beside what a detector saw

    def p_beside(self, effects: Sequence[EffectRow]) -> Doubles:
        """Compute the p-value (n,) of each effect, whose output `rank` others exceed: (rank + 1) / outputs. For the
        first output, the p-value of its z among the others by Student's t is used if smaller."""
        rank, z = (np.array([effect[name] for effect in effects]) for name in ("rank", "z"))
        ranked = rank_among_outputs(rank, self.count)
        tail = stdtr(max(self.count - 2, 1), -np.nan_to_num(z))
        return np.where(rank == 0, np.minimum(ranked, tail), ranked)


@dataclass(frozen=True)
class FewOutputs:
    """Strategy that compares the rise of the class that rises most, or that most images are predicted as, with those by
    other windows, or by random artifacts of the same strength, on the same images: so a large rise counts, however few
    outputs there are. From five outputs on its z among them counts, too."""

    count: int

    other_windows = OTHER_WINDOWS

    @property
    def shares(self) -> bool:
        """Whether what carriers share is put on, beside what a detector saw."""
        return self.count >= SHARING_OUTPUTS

    def p_beside(self, effects: Sequence[EffectRow]) -> Doubles:
        p = np.array([effect["p_tiles"] for effect in effects])
        return np.minimum(p, ManyOutputs(self.count).p_beside(effects)) if self.shares else p


def output_strategy(outputs: int) -> ManyOutputs | FewOutputs:
    """Choose the strategy for a model of so many outputs."""
    return ManyOutputs(outputs) if outputs >= MIN_OUTPUTS else FewOutputs(outputs)


def p_values_of_use(
    effects: Sequence[EffectRow], artifactual: Sequence[bool], outputs: int, level: float
) -> list[float]:
    """Compute the p-value of each effect's z among those of the classes without an artifact; 1 where nothing was
    inserted.

    A tile shows content of its class, which raises the class by itself, and only tiles of other classes show by how
    much. A blur shows no content, nor does what carriers share beyond others of their class: without use of it, the
    class would be exchangeable with any other output. So these are compared beside (`output_strategy`), and where clean
    classes are so few that no rank among them reaches the level, tiles as well.
    """
    values = np.array([effect["z"] for effect in effects], float)
    known = np.isfinite(values)
    null = known & ~np.array(artifactual, bool)
    p = np.ones(len(values))
    p[known] = conformal.tail_p_values(values[known], null[known]) if null.any() else 1.0
    few = null.sum() + 1 < 1 / level
    beside = known & (np.isin([effect["change"] for effect in effects], CONTENT_FREE) | few)
    p_beside = output_strategy(outputs).p_beside(effects)
    return [float(v) for v in np.where(beside, np.minimum(p, p_beside), p)]


def p_among_draws(reached: Iterable[bool], count: int) -> float:
    """Compute the p-value of a rank among those by other windows or random artifacts, from whether each reaches it: (1
    + number that reach it) / (count + 1), or EQUAL_WINDOWS over the number that was drawn when so many have reached
    it."""
    return sequential_p(reached, count, EQUAL_WINDOWS)


def rank_among_outputs(rank: Rows | int, outputs: int) -> Doubles:
    """Compute the p-value of an output that `rank` others exceed."""
    return np.asarray((rank + 1) / outputs)
