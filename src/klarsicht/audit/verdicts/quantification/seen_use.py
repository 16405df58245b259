"""Measure, of runs with few classes, whether the model uses what groups of images share that no verdict names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_detections
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.seen_groups import SeenGroup, load_seen_groups
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import format_count
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.interventions.group_use import (
    FEWEST_OF_GROUP,
    UNMEASURED,
    GroupUse,
    PasteTrial,
    SeenWindows,
    describe_use,
    measure_group_use,
    measure_windows_use,
)
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Rows
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator

MOST_OF_GROUP: Final = 40  # images of a group
MOST_OTHERS_SHOWN: Final = 300  # other images of the class, and images of other classes
MOST_SHARE: Final = 0.5  # of the class, beyond which a group has too few others to be held against


def measure_seen_use(work: DetectionUnits, groups: Sequence[SeenGroup]) -> tuple[SeenGroup, ...]:
    """Return the groups of a quantified run, each with what it does to its class on images of other classes; as they
    are where classes are enough to be compared, and of groups that are measured already."""
    if class_strategy(len(work.groups)).compares_classes or len(work.groups) < 2 or not groups:
        return tuple(groups)
    earlier = {(one.target, one.sign, one.rows): one for one in load_seen_groups(work.store) if one.use}
    asks = [one for one in groups if (one.target, one.sign, one.rows) not in earlier]
    with predictor(work) as predict:
        new = dict(measure_each(work, asks, predict))
    return tuple(new.get(one) or earlier.get((one.target, one.sign, one.rows), one) for one in groups)


def measure_each(
    work: DetectionUnits, groups: Sequence[SeenGroup], predict: Predict
) -> Iterator[tuple[SeenGroup, SeenGroup]]:
    """Yield each group, and the group with its use."""
    for group in track(groups, len(groups), "use of groups that were seen"):
        number = next(i for i, one in enumerate(work.groups) if one.target == group.target)
        rng = generator(work.settings.seed, f"seen by {group.sign}", group.target)
        trial = GroupTrial.of(work, number, group.rows, predict, rng)
        use = trial.measure(rng) if trial else UNMEASURED
        words = trial.describe(use) if trial else ""
        yield group, replace(group, use=words, is_used=use.is_used)


def measure_untested_use(work: DetectionUnits, found: Quantification) -> Quantification:
    """Return the verdicts of a run with few classes, each artifact whose use could not be tested with what it does to
    its class where it is cut out of its images, by the windows of its detection or else by what sets them apart."""
    if class_strategy(len(work.groups)).compares_classes or len(work.groups) < 2:
        return found
    asks = [one for of in found for one in of.artifacts if (one.artifactual or one.shared) and not one.tested]
    if not asks:
        return found
    detections, sentences = read_detections(work.store, found), dict[tuple[int, int], str]()
    with predictor(work) as predict:
        for line in found.lines:
            if line.verdict in asks:
                which = line.verdict.target, line.number
                sentences[which] = describe_cut_out(work, line.verdict, detections.get(which, ()), predict)
    return replace(found, verdicts=tuple(_tell(one, sentences) for one in found))


def describe_cut_out(work: DetectionUnits, verdict: Verdict, signs: Sequence[SignRow], predict: Predict) -> str:
    """Say what an artifact does that is cut out of its images; empty where no use is shown."""
    sign = next((one for one in signs if one["sign"] == verdict.detection.sign), None)
    number = next(i for i, one in enumerate(work.groups) if one.target == verdict.target)
    rng = generator(work.settings.seed, f"cut out by {verdict.detection.sign}", verdict.target)
    trial = GroupTrial.of(work, number, verdict.rows, predict, rng)
    if trial is None or sign is None:
        return ""
    use = trial.measure(rng, sign if sign["places"] else None)
    return trial.describe(use) if use.is_used else ""


def _tell(verdict: Verdict, sentences: Mapping[tuple[int, int], str]) -> Verdict:
    """Return a verdict, and those on further artifacts, with what they do that are cut out."""
    own, *further = (
        replace(one, cut_out=sentences.get((verdict.target, i), "")) for i, one in enumerate(verdict.artifacts, 1)
    )
    return replace(own, further=tuple(further))


@dataclass(frozen=True)
class GroupTrial:
    """Trial of a group. rows: those of its images, which come first in the trial, before others of the class `name`.
    onto: class of the images that regions are pasted into, in words."""

    trial: PasteTrial
    rows: Rows
    name: str
    onto: str

    @classmethod
    def of(
        cls, work: DetectionUnits, number: int, rows: Sequence[int], predict: Predict, rng: np.random.Generator
    ) -> GroupTrial | None:
        """Draw the images of a trial of rows of a class; None of too few of them, or too many."""
        images, of_class, target = work.input_images, work.groups[number].rows, work.groups[number].target
        inside = of_class[np.isin(of_class, rows)]
        if not FEWEST_OF_GROUP <= len(inside) <= MOST_SHARE * len(of_class):
            return None
        some = (inside, np.setdiff1d(of_class, inside), work.other_rows(number))
        inside, outside, others = (
            rng.permutation(kind)[:most]
            for kind, most in zip(some, (MOST_OF_GROUP, *[MOST_OTHERS_SHOWN] * 2), strict=True)
        )
        own = images(np.concatenate([inside, outside]))
        names = {one.name for i, one in enumerate(work.groups) if i != number}
        onto = names.pop() if len(names) == 1 else "other classes"
        trial = PasteTrial(predict, images.pixel_scale, own, images(others), target, work.scale)
        return cls(trial, inside, work.groups[number].name, onto)

    def measure(self, rng: np.random.Generator, sign: SignRow | None = None) -> GroupUse:
        """Measure what the group does; in the windows of a detection, if one is given."""
        member = np.arange(len(self.trial.own)) < len(self.rows)
        if sign is None:
            return measure_group_use(self.trial, member, rng)
        corner_of = dict(zip(sign["rows"], np.reshape(sign["places"], (-1, 2)), strict=True))
        corners = np.full((len(member), 2), np.nan)
        for corner, row in zip(corners, self.rows, strict=False):
            corner[:] = corner_of.get(int(row), np.nan)
        windows = SeenWindows(corners, (sign["height"], sign["width"]))
        return measure_windows_use(self.trial, member, windows, rng)

    def describe(self, use: GroupUse) -> str:
        """Say what the group does; empty where nothing was measured."""
        onto = f"{format_count(use.onto, 'image')} of {self.onto}"
        return describe_use(use, self.name, onto)
