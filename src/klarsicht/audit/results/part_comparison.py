"""Significance of parts of images: among the other classes of a run, or where these are few, among natural classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.results.logit_effect import FLOOR, LogitEffect, matters
from klarsicht.audit.results.significance import class_strategy
from klarsicht.ground.arrays import Doubles
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.intervals import Interval

CHANCE = 0.5  # area under the ROC curve without any information
RANKED_CLASSES = 20  # with fewer no rank among them reaches 0.05, and classes of natural sets are the reference
LEAST_EXCESS = 0.25  # of scores of a part in natural classes, in units of `score_parts`
SURE_RANK = 0.05  # p-value of a rank among natural classes from which on the tail says how far out a class is
SHARE_UNIT = 0.1  # of the images that change sides, as half a logit is of a rise
STAND_INS = {"inside": "background", "outside": "background", "fine texture": "spectrum"}
"""For parts that natural pairs were not asked for, the part of theirs that they are compared with: of a region half of
the picture, as it is; of the fine texture all frequencies, which differ more."""


@dataclass(frozen=True)
class NaturalParts:
    """Evidence on the parts of natural pairs of classes, beside which parts of few classes are judged.

    Attributes:
        parts: names, m of them.
        offer, rise, turned: float (r, m), of each pair the lower ends of the area (CHANCE of framings), of the rise
            and of the share that changes sides, for the class that the part moves more.
    """

    parts: tuple[str, ...]
    offer: Doubles
    rise: Doubles
    turned: Doubles

    def select(self, names: Sequence[str]) -> tuple[Doubles, Doubles, Doubles]:
        """Return the columns of these parts; of a region, which natural pairs have not, those of STAND_INS."""
        columns = _columns_of(names, self.parts)
        return self.offer[:, columns], self.rise[:, columns], self.turned[:, columns]

    def p_values(self, names: Sequence[str], offer: Doubles, rise: Doubles, turned: Doubles) -> Doubles:
        """Compute the p-value of each part (n, m) of n classes among the largest scores of the natural pairs.

        The score is the sum of -log(1 - offer), of the rise over FLOOR and of the share in tenths, each in units of its
        upper tail among the pairs (conformal.standardise).
        """
        natural = self.select(names)
        p = np.empty(offer.shape)
        for i in range(len(offer)):
            stacked = (np.vstack([own[i], others]) for own, others in zip((offer, rise, turned), natural, strict=True))
            offers, rises, shares = stacked
            columns = (-np.log(1 - offers), rises / FLOOR, shares / SHARE_UNIT)
            scores = np.sum([conformal.standardise(column) for column in columns], 0)
            largest = scores[1:].max(1)
            null = np.arange(len(largest) + len(names)) < len(largest)
            p[i] = conformal.tail_p_values(np.concatenate([largest, scores[0]]), null)[len(largest) :]
        return p


@dataclass(frozen=True)
class NaturalSets:
    """Scores of the parts of classes in natural sets of ten, beside which parts of 5 to 19 classes are judged.

    Attributes:
        parts: names, m of them.
        scores: float (r, m), of `score_parts` within the set of each class.
    """

    parts: tuple[str, ...]
    scores: Doubles

    def p_values(self, names: Sequence[str], scores: Doubles) -> Doubles:
        """Compute the p-value of each score (n, m) among the largest of each natural class under the same parts.

        Each part has the units of its own upper tail among natural classes, at least LEAST_EXCESS: so a part by which
        these hardly differ counts from a smaller score on. The rank decides down to SURE_RANK.
        """
        stacked = np.vstack([self.scores[:, _columns_of(names, self.parts)], scores])
        natural = np.arange(len(stacked)) < len(self.scores)
        levels = conformal.standardise(stacked, LEAST_EXCESS, ~natural)
        largest, own = levels[natural].max(1), levels[~natural]
        null = np.arange(len(largest) + own.size) < len(largest)
        p = conformal.tail_p_values(np.concatenate([largest, own.ravel()]), null, SURE_RANK)[len(largest) :]
        return np.asarray(p.reshape(scores.shape))


def _columns_of(names: Sequence[str], parts: Sequence[str]) -> list[int]:
    """Number the columns of parts; of those that were not asked for, the columns of their STAND_INS."""
    return [parts.index(name if name in parts else STAND_INS[name]) for name in names]


def score_parts(areas: Sequence[Sequence[Interval | None]], effects: Sequence[Sequence[LogitEffect]]) -> Doubles:
    """Score n classes under m parts and framings, (n, m), by their areas (None of a framing) and effects, n lists of m.

    The score is the sum of -log(1 - lower end of the area) and of the lower end of the rise over FLOOR, each in units
    of its upper tail among the classes (conformal.standardise).
    """
    low = _lower_areas(areas)
    rise = np.array([[effect.rise.low for effect in line] for line in effects])
    return np.asarray(conformal.standardise(-np.log(1 - low)) + conformal.standardise(rise / FLOOR))


def _lower_areas(areas: Sequence[Sequence[Interval | None]]) -> Doubles:
    return np.array([[CHANCE if area is None else area.low for area in line] for line in areas])


def compare_parts(
    names: Sequence[str], areas: Sequence[Sequence[Interval | None]], effects: Sequence[Sequence[LogitEffect]],
    level: float, pairs: NaturalParts, sets: NaturalSets,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:  # fmt: skip
    """Compare n classes under m parts and framings, by their areas (None of a framing) and effects, n lists of m.

    p is that of the score (`score_parts`) among the maxima of the other classes; of fewer than RANKED_CLASSES among
    those of classes in natural sets; with too few classes to be compared, of natural pairs.

    Returns:
        p-value of each class and part (n, m); and which parts are noted, bool (n, m).
    """
    offered = np.array([[area is None or area.low > CHANCE for area in line] for line in areas])
    sure = offered & np.array([[matters(effect) for effect in line] for line in effects])
    scores = score_parts(areas, effects)
    p = class_strategy(len(areas)).p_of_each(scores)
    if p is None:
        rise, share = (
            np.array([[getattr(effect, name).low for effect in line] for line in effects])
            for name in ("rise", "turned")
        )
        p = pairs.p_values(names, _lower_areas(areas), rise, share)
    elif len(areas) < RANKED_CLASSES:
        p = sets.p_values(names, scores)
    return p, (p <= level) & sure
