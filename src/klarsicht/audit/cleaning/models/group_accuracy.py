"""Accuracy of the groups of images that a shortcut divides, before and after a correction.

A group is a class and a side, that is the class whose surroundings an image shows, or a class and a group that a person
names. Images that taught the correction nothing are shown as they are; where sides are named, so are composites of
them, of which there are as many on every side as wanted: few exceptions prove little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.harm import LEAVES
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation.data.splits import NAMES, TEST, TRAIN, VALIDATION, split_by_source
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.results.surroundings import PLACES_TABLE, SURROUNDINGS_STEP, unpack_places
from klarsicht.audit.results.words import format_count
from klarsicht.audit.verdicts.own_places.composites import RIM, Pairs, lay_on_others, usable_places
from klarsicht.audit.verdicts.own_places.own_places import enlarge
from klarsicht.ground.arrays import Bools, Doubles, Ints, Pixels, Rows
from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import Interval, average_shares, share_interval
from klarsicht.numerics.statistics.paired_loss import PairedLoss, paired_loss

SHOWN_COMPOSITES: Final = 100  # of each group, at most, by default
ANY_SIDE: Final = "any"  # name of the one side of images that have no sides
FEW_IN_GROUP: Final = 20  # of a group, below which it proves little
HELD_OUT_PICTURES, HELD_OUT_COMPOSITES = "held-out images", "composites of held-out images"


@dataclass(frozen=True)
class GroupAccuracy:
    """Share that is right of the images of a class on a side, with its 95 % interval."""

    label: str
    side: str
    right: Interval


@dataclass(frozen=True)
class GroupTable:
    """Shares that are right of all groups of a class and a side."""

    groups: tuple[GroupAccuracy, ...]

    @property
    def average(self) -> Interval:
        """Mean over groups."""
        return average_shares([one.right for one in self.groups])

    @property
    def worst(self) -> GroupAccuracy:
        """The group of which the smallest share is right."""
        return min(self.groups, key=lambda one: one.right.value)

    @property
    def difference(self) -> float:
        """Largest difference, over classes, between the best and the worst group of a class."""
        shares: dict[str, list[float]] = {}
        for one in self.groups:
            shares.setdefault(one.label, []).append(one.right.value)
        return max(max(some) - min(some) for some in shares.values())


@dataclass(frozen=True)
class GroupComparison:
    """Shares that are right before and after a correction, of the same images.

    Attributes:
        kind: of the images, in words.
        loss: of all images together.
    """

    kind: str
    before: GroupTable
    after: GroupTable
    loss: PairedLoss

    @property
    def may_object(self) -> bool:
        """Whether a loss of such images is harm though others decide; not where the shortcut helps."""
        return False

    @property
    def gains(self) -> bool:
        """Whether more of the worst group is right, by the ends of both intervals."""
        return self.after.worst.right.low > self.before.worst.right.high

    @property
    def share_left(self) -> float:
        """Remaining share of the difference between groups of a class."""
        return self.after.difference / max(self.before.difference, 1e-9)

    @property
    def fewest(self) -> GroupAccuracy:
        """The group of which fewest images were shown."""
        return min(self.before.groups, key=lambda one: one.right.n)

    @property
    def few(self) -> str:
        """The group of which too few images were shown to prove anything, in words; empty where there is none."""
        one = self.fewest
        if one.right.n >= FEW_IN_GROUP:
            return ""
        shown = format_count(one.right.n, "image")
        name = one.label if one.side == ANY_SIDE else f"{one.label} and {one.side}"
        return f"{self.kind}: the smallest group, {name}, has {shown}, which prove little"

    @property
    def no_help(self) -> str:
        """The figures by which a correction does not help the worst group, in words; empty where it does."""
        if not self.gains:
            return f"no gain of the worst group was shown: {self.describe_worst()}"
        if self.share_left > LEAVES:
            return f"it leaves {100 * self.share_left:.0f} % of the difference between groups: {self.describe_worst()}"
        return ""

    @property
    def failure(self) -> CleaningKind:
        """The kind of verdict where it does not help."""
        return CleaningKind.REMAINS

    @property
    def effect_left(self) -> str:
        """Remaining effect of a shortcut that a correction helps against, in words."""
        left = f"{100 * self.share_left:.0f} % of the difference between groups is left"
        return f"{left}; worst group {self.describe_worst()}"

    @property
    def advice(self) -> str:
        """The next step after a correction that harms, or does not help."""
        return "Look at the exceptions in `klarsicht audit explore`; then try another --steps or --rate."

    def describe_average(self) -> str:
        """Say how much of a group is right on average, before and after."""
        return f"{_percent(self.before.average)} % before, {_percent(self.after.average)} % after"

    def describe_worst(self) -> str:
        """Say how much of the worst group is right, before and after."""
        return f"{_percent(self.before.worst.right)} % before, {_percent(self.after.worst.right)} % after"

    def describe(self) -> str:
        """Say in one line what average and worst group are, before and after."""
        return f"{self.kind}: average of groups {self.describe_average()}; worst group {self.describe_worst()}"


@dataclass(frozen=True)
class Sides:
    """Number of the side of images, and the name of each number.

    Attributes:
        numbers: int (n,); -1 where it is not known.
    """

    numbers: Ints
    names: Mapping[int, str]


@dataclass(frozen=True)
class OwnImages:
    """Images with their own places.

    Attributes:
        levels: uint8 (n, H, W, C), at the size of the model's input.
        own: bool (n, H, W).
        labels: int (n,), outputs of the model.
        sides: int (n,), outputs of the model, or numbers of the groups that a person names.
        part: int (n,), TRAIN of images that teach, VALIDATION of those that bound a loss, TEST of those that are shown;
            of no source twice.
        images: the map between levels and inputs.
    """

    levels: Pixels
    own: Bools
    labels: Ints
    sides: Ints
    part: Ints
    images: InputImages

    @classmethod
    def of(
        cls, run: AuditedRun, seed: int, sides: Sides | None = None, held_out: Bools | None = None,
        only_held_out: bool = False, with_bound: bool = False,
    ) -> OwnImages:  # fmt: skip
        """Read the images that were examined, and deal them by source.

        Args:
            sides: of all images of the run, in place of those that were found; images on none are left out.
            held_out: bool (N,), images of the run that taught nothing, in place of dealing them.
            only_held_out: no others are read.
            with_bound: images of the part VALIDATION bound a loss; otherwise they teach as well.
        """
        places = run.store.table(PLACES_TABLE, SURROUNDINGS_STEP).to_pylist()
        rows = np.array([row["row"] for row in places])
        labels, side = (np.array([row[name] for row in places]) for name in ("target", "side"))
        if held_out is None:
            part = deal_places(run, rows, labels != side, seed)
        else:
            part = np.where(held_out[rows], TEST, TRAIN)
        if not with_bound:
            part = np.where(part == VALIDATION, TRAIN, part)
        on = side if sides is None else sides.numbers[rows]
        kept = np.flatnonzero((on >= 0) & ((part == TEST) | (not only_held_out)))
        images = InputImages.of(run.audit.corpus, run.audit.classifier)
        levels = images(rows[kept])
        own = enlarge(np.stack([unpack_places(places[i]) for i in kept]), levels.shape[1:3], 0)
        return cls(levels, own, labels[kept], on[kept], part[kept], images)

    @property
    def teaches(self) -> Bools:
        return np.asarray(self.part == TRAIN)

    @property
    def bounds(self) -> Bools:
        return np.asarray(self.part == VALIDATION)

    @property
    def held_out(self) -> Bools:
        """Images that taught and bounded nothing."""
        return np.asarray(self.part == TEST)

    @cached_property
    def exceptional(self) -> Bools:
        """Images on another side than most of their class."""
        common = {label: np.bincount(self.sides[self.labels == label]).argmax() for label in np.unique(self.labels)}
        return np.array([side != common[label] for label, side in zip(self.labels, self.sides, strict=True)])

    @cached_property
    def usable(self) -> Bools:
        """Images whose own places can be laid on others."""
        return usable_places(self.own, self.exceptional)

    @cached_property
    def chances(self) -> Doubles:
        """Chance of each image to be drawn as it is, float (n,): of images that teach, every class is as often drawn as
        any other, and in it every side."""
        chances = np.zeros(len(self.labels))
        for label in np.unique(self.labels):
            rows = np.flatnonzero(self.teaches & (self.labels == label))
            _, group, counts = np.unique(self.sides[rows], return_inverse=True, return_counts=True)
            chances[rows] = 1 / (counts[group] * len(counts))
        return np.asarray(chances / chances.sum())

    def show(self, rows: Rows) -> Iterator[Tensor]:
        """Yield images as they are, as model inputs (m, C, H, W), batch after batch."""
        return (self.images.pixel_scale.inputs(self.levels[rows[some]]) for some in _chunks(len(rows)))

    def compose(self, pairs: Pairs, rng: np.random.Generator) -> Tensor:
        """Lay own places of sources on donors, as model inputs (m, C, H, W)."""
        return self.images.pixel_scale.inputs(lay_on_others(self.levels, self.own, pairs, rng, RIM))


def deal_places(run: AuditedRun, rows: Rows, exceptional: Bools, seed: int) -> Ints:
    """Deal images (n,) to parts by their source, exceptions first where they are enough for each part."""
    sources = run.audit.corpus.source_numbers[rows]
    if len(np.unique(sources[exceptional])) < len(NAMES):
        exceptional = np.zeros((0, len(rows)), bool)
    return np.asarray(split_by_source(sources, exceptional, generator(seed, "surroundings")))


def compare_groups(
    classifier: Classifier, correction: Correction, own_images: OwnImages, sides: Mapping[int, str],
    names: Mapping[int, str], seed: int, about: int | None = None, most: int | None = None,
) -> tuple[GroupComparison, ...]:  # fmt: skip
    """Compare groups of held-out pictures as they are, and of composites of them, where their own places can be laid.

    Args:
        sides, names: names of sides and of outputs.
        about: output of a class; only its groups and those on its side are compared.
        most: images of a group, at most; by default all pictures, and SHOWN_COMPOSITES.

    Raises:
        UsageError: there are none.
    """
    one, held_out = own_images, np.flatnonzero(own_images.held_out)
    rows = held_out[limit_groups(one.labels[held_out], one.sides[held_out], most, seed)]
    pairs = draw_groups(one, generator(seed, "shown composites"), SHOWN_COMPOSITES if most is None else most)
    classes = np.unique(one.labels)
    comparisons = []
    for kind, labels, on, of_pairs in (
        (HELD_OUT_PICTURES, one.labels[rows], one.sides[rows], False),
        (HELD_OUT_COMPOSITES, one.labels[pairs.sources], one.sides[pairs.donors], True),
    ):
        about_it = np.ones(len(labels), bool) if about is None else (labels == about) | (on == about)
        if not about_it.any():
            continue
        answers = []
        for one_correction in (None, correction):
            rng = generator(seed, "rims")
            inputs = (
                (one.compose(Pairs(pairs.sources[some], pairs.donors[some]), rng) for some in _chunks(len(labels)))
                if of_pairs
                else one.show(rows)
            )
            answers.append(predict_classes(classifier, one_correction, inputs, classes))
        comparisons.append(compare(kind, answers, labels, Sides(on, sides), names, about_it))
    if not comparisons:
        raise UsageError("no image to compare groups on", got="0 held-out images", rule="images that taught nothing")
    return tuple(comparisons)


def compare(
    kind: str, answers: list[Ints], labels: Ints, sides: Sides, names: Mapping[int, str], subset: Bools
) -> GroupComparison:
    """Compare the classes (n,) that a model gives a subset (n,) of images, before and after, with labels and sides."""
    before, after = (one[subset] for one in answers)
    shown = labels[subset], replace(sides, numbers=sides.numbers[subset])
    was, now = (tabulate(one, *shown, names) for one in (before, after))
    return GroupComparison(kind, was, now, paired_loss(before == shown[0], after == shown[0]))


def predict_classes(
    classifier: Classifier, correction: Correction | None, inputs: Iterator[Tensor], classes: Ints
) -> Ints:
    """Predict the likeliest of some classes for inputs (m, C, H, W), batch after batch: outputs (n,)."""

    def predict() -> Ints:
        found = (classifier.logits(x.to(classifier.device)).float().cpu().numpy() for x in inputs)
        return np.concatenate([classes[logits[:, classes].argmax(1)] for logits in found])

    with evaluation_mode(classifier.module) as module, torch.no_grad():
        if correction is None:
            return predict()
        with correction.applied(module):
            return predict()


def limit_groups(labels: Ints, sides: Ints, most: int | None, seed: int) -> Rows:
    """Draw at most so many images (n,) of each label and side, or all, in their order: numbers of images."""
    if most is None:
        return np.arange(len(labels))
    order = generator(seed, "images of groups").permutation(len(labels))
    groups = [
        order[(labels[order] == label) & (sides[order] == side)][:most]
        for label, side in {*zip(labels.tolist(), sides.tolist(), strict=True)}
    ]
    return np.sort(np.concatenate([np.zeros(0, int), *groups]))


def draw_groups(own_images: OwnImages, rng: np.random.Generator, most: int) -> Pairs:
    """Draw at most so many pairs of held-out usable images for each class and side; no source twice in a group, so
    that shares of it are of independent images."""
    able, sources, donors = own_images.usable & own_images.held_out, [np.zeros(0, int)], [np.zeros(0, int)]
    for label in np.unique(own_images.labels):
        for side in np.unique(own_images.sides):
            own, other = (
                rng.permutation(np.flatnonzero(able & which))
                for which in (own_images.labels == label, own_images.sides == side)
            )
            if len(own) and len(other):
                sources.append(own[:most])
                donors.append(np.resize(other, len(sources[-1])))
    return Pairs(np.concatenate(sources), np.concatenate(donors))


def tabulate(predicted: Ints, labels: Ints, sides: Sides, names: Mapping[int, str]) -> GroupTable:
    """Compute the share that is right of every class and side that occurs."""
    return GroupTable(
        tuple(
            GroupAccuracy(names[int(label)], sides.names[int(side)], share_interval(predicted[some] == label))
            for label in np.unique(labels)
            for side in np.unique(sides.numbers)
            if (some := (labels == label) & (sides.numbers == side)).any()
        )
    )


def _chunks(count: int, size: int = 64) -> Iterator[slice]:
    return (slice(a, a + size) for a in range(0, count, size))


def _percent(share: Interval) -> str:
    return f"{100 * share.value:z.1f} ({100 * share.low:z.1f} to {100 * share.high:z.1f})"
