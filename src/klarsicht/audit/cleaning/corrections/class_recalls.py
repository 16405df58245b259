"""Compare the recall of every class before and after a correction: the share of its clean images that is right.

Plain accuracy hides a shifted threshold where classes are unequal: the large class gains what a small one loses. A
class is *harmed* where its loss of recall is shown to be beyond the bound, by intervals that hold for all classes
together (Bonferroni), so that a class of few images needs a large loss. The loss is *handed* to the corrected class
where as much more of its images are called that class; else they may carry an artifact of their own. A correction
*shifts* the threshold where one class is harmed, and another shown to gain.

A model may have classes of which there are no images. Their loss cannot be counted, but where they are predicted
less often for the images at hand, they are for their own images as well (`predicted_less`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from klarsicht.audit.cleaning.corrections.harm import Loss
from klarsicht.ground.arrays import Ints
from klarsicht.numerics.statistics.intervals import Interval, average_shares, share_interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss, paired_loss

FEWEST_OF_CLASS: Final = 10  # images: classes of fewer weigh as if they had so many, and none is shown to be harmed
WITHOUT_IMAGES: Final = "classes that have no images here"
LISTED: Final = 10  # classes whose recalls are shown; of more, those that lose most


def weigh_classes(labels: Ints) -> dict[int, float]:
    """Compute the weights of images, by their label, with which a mean over images is one over classes: inverse to the
    number of images of the class, and 1 in the mean. Empty where all classes are of one size: labels int (n,), -1 where
    unknown."""
    classes, sizes = np.unique(labels[labels >= 0], return_counts=True)
    if len(np.unique(sizes)) < 2:
        return {}
    inverse = 1 / np.maximum(sizes, FEWEST_OF_CLASS)
    weights = inverse * sizes.sum() / (inverse * sizes).sum()
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


@dataclass(frozen=True)
class PredictedLess(Loss):
    """Share of images by which fewer are predicted as classes of which there are no images, against its bound."""

    @property
    def amount(self) -> str:
        value, low, high = (100 * end for end in (self.measured.value, self.measured.low, self.measured.high))
        return f"predicts {value:.2f} points ({low:.2f} to {high:.2f}) fewer images as {self.kind}"


@dataclass(frozen=True)
class Recall:
    """Recall of one class before and after, of n clean images. loss: with an interval that holds for all
    classes together. transfer: the share more that is called the corrected class, likewise; NO_LOSS of that class."""

    name: str
    before: Interval
    after: Interval
    loss: PairedLoss
    transfer: PairedLoss

    def to_json(self) -> dict[str, Any]:
        """Return the intervals as JSON values."""
        told = asdict(self) | {"transfer": asdict(self.transfer) if self.transfer.n else None}
        return {"class": told.pop("name")} | told


@dataclass(frozen=True)
class ClassRecalls:
    """Answers to n clean images before and after a correction. truth, before, after: int (n,), the right output and the
    predicted ones. targets: outputs of the corrected classes."""

    truth: Ints = field(default_factory=lambda: np.empty(0, np.intp))
    before: Ints = field(default_factory=lambda: np.empty(0, np.intp))
    after: Ints = field(default_factory=lambda: np.empty(0, np.intp))
    targets: tuple[int, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def classes(self) -> Ints:
        """Outputs of the classes that have images, ascending: (K,)."""
        return np.unique(self.truth)

    @cached_property
    def losses(self) -> dict[int, float]:
        """Loss of recall of each class."""
        change = (self.before == self.truth).astype(np.int64) - (self.after == self.truth)
        where = np.searchsorted(self.classes, self.truth)
        lost = np.bincount(where, change, len(self.classes)) / np.bincount(where, minlength=len(self.classes))
        return dict(zip(self.classes.tolist(), lost.tolist(), strict=True))

    def name(self, label: int) -> str:
        """Return the name of a class."""
        return self.names.get(label, f"class {label}")

    def of_class(self, label: int) -> Recall:
        """Compute the recall of a class before and after."""
        own = self.truth == label
        was, right = self.before[own] == label, self.after[own] == label
        called, calls = (np.isin(answers[own], self.targets) for answers in (self.before, self.after))
        transfer = NO_LOSS if label in self.targets else paired_loss(~called, ~calls, self._z)
        loss = paired_loss(was, right, self._z)
        return Recall(self.name(label), share_interval(was), share_interval(right), loss, transfer)

    def classes_with_harm(self, bound: float) -> Iterator[Recall]:
        """Yield the classes of FEWEST_OF_CLASS images that are shown to lose more than the bound."""
        for label, lost in self.losses.items():
            if lost > bound and (self.truth == label).sum() >= FEWEST_OF_CLASS:
                one = self.of_class(label)
                if one.loss.low > bound:
                    yield one

    def largest_harm(self, bound: float) -> Recall | None:
        """Find the harmed class, other than the corrected ones, that hands most to these for sure, or loses most."""
        others = [one for one in self.classes_with_harm(bound) if one.transfer.n]
        return max(others, key=lambda one: (one.transfer.low > bound, one.loss.low), default=None)

    def is_shift(self, bound: float) -> bool:
        """Test whether a class is harmed and another is shown to gain."""
        gaining = (self.of_class(label).loss.high < 0 for label, lost in self.losses.items() if lost < 0)
        return any(True for _ in self.classes_with_harm(bound)) and any(gaining)

    @cached_property
    def predicted_less(self) -> PairedLoss:
        """Share of images by which fewer are predicted as classes that have no images."""
        before, after = (~np.isin(answers, self.classes) for answers in (self.before, self.after))
        return paired_loss(before, after)

    def harm(self, bound: float, trained_on: bool = False) -> tuple[Loss, ...]:
        """Return the losses that are shown to be beyond the bound: that of the class of `largest_harm`, and that of
        classes without images; `trained_on`: see harm.Loss."""
        less = PredictedLess(WITHOUT_IMAGES, self.predicted_less, bound, trained_on)
        return (*self._harm_of_class(bound, trained_on), *([less] if less.is_beyond else []))

    def _harm_of_class(self, bound: float, trained_on: bool) -> tuple[Loss, ...]:
        if (one := self.largest_harm(bound)) is None:
            return ()
        transfer = one.transfer if len(self.classes) > 2 else NO_LOSS
        to = " or ".join(self.name(target) for target in self.targets)
        return (Loss(f"clean images of {one.name}", one.loss, bound, trained_on, transfer, one.name, to),)

    def table(self) -> list[Recall]:
        """List the recalls of at most LISTED classes: the corrected ones, and those that lose most."""
        first = [label for label in self.classes.tolist() if label in self.targets]
        others = sorted((label for label in self.losses if label not in self.targets), key=lambda x: -self.losses[x])
        return [self.of_class(label) for label in [*first, *others][:LISTED]]

    def mean(self) -> tuple[Interval, Interval]:
        """Compute the mean over classes before and after, which is the balanced accuracy."""
        shares = [
            average_shares([share_interval(answers[self.truth == label] == label) for label in self.classes.tolist()])
            for answers in (self.before, self.after)
        ]
        return shares[0], shares[1]

    @cached_property
    def _z(self) -> float:
        return float(-ndtri(0.025 / max(1, len(self.classes))))
