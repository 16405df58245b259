"""Measure a model under a correction: the remaining effect of the artifact, and the cost of the correction.

Pasted images are clean images of other classes with the artifact put on. *Flips*: of those not predicted as the class
without it, the share predicted as the class with it. *Rise*: the increase of the class's centred logit by the artifact;
where the artifact cannot be put on images, the difference of the logit between members and clean images of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from scipy import special
from torch import Tensor

from klarsicht.audit.corrections.activations import Correction, compute_logits, compute_logits_jointly
from klarsicht.audit.corrections.clarc import Erasure
from klarsicht.audit.corrections.harm import Bounds, Harm, Loss
from klarsicht.audit.corrections.samples import Sample
from klarsicht.audit.interventions.effect import Level, flips, logit_excess, logit_rise
from klarsicht.audit.interventions.insertion import Insertion, put_on
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.numerics.statistics.intervals import (
    NO_INTERVAL,
    Z95,
    Interval,
    mean_interval,
    share_interval,
)
from klarsicht.numerics.statistics.logits import centred_logit
from klarsicht.numerics.statistics.paired_loss import PairedLoss, paired_loss

GROUP: Final = 10  # images that a group must have before its accuracy is a figure


def log_odds(y: Floats, target: int) -> Floats:
    """Compute log P(target) / P(any other): (n, K) -> (n,). It falls with every rise of another logit."""
    return np.asarray(y[:, target] - special.logsumexp(np.delete(y, target, 1), axis=1))


def expected_loss(before: Floats, after: Floats) -> Floats:
    """Compute the loss of each image by the model's own probabilities: that of its answer before, minus that of its
    answer after, both by the logits before; (n, K), (n, K) -> (n,), in [0, 1]."""
    p, rows = special.softmax(before.astype(np.float64), 1), np.arange(len(before))
    return np.asarray(p[rows, before.argmax(1)] - p[rows, after.argmax(1)])


@dataclass(frozen=True)
class Logits:
    """Logits of a sample under one correction.

    Attributes:
        plain: (n, K).
        pasted: (m, K), of the images `CorrectionTest.other_rows` with the artifact, or empty.
    """

    plain: Floats
    pasted: Floats


@dataclass(frozen=True)
class Outcome:
    """Accuracy, artifact effect and harm of a model under one correction.

    Attributes:
        accuracy: on the representative draw of clean images.
        affected: accuracy on clean images of the class.
        worst: least accuracy of a group: a label, with the artifact or without.
        under: accuracy of other classes with the artifact.
        flips, rise: see the module.
        harm, harm_affected: paired losses of `accuracy` and `affected` against the unchanged model.
        expected, expected_affected: the same losses, by the unchanged model's probabilities in place of the labels.
    """

    accuracy: Interval
    affected: Interval
    worst: Interval
    under: Interval
    flips: Interval
    rise: Interval
    harm: PairedLoss
    harm_affected: PairedLoss
    expected: Interval = NO_INTERVAL
    expected_affected: Interval = NO_INTERVAL

    def harm_answer(self, bounds: Bounds, trained_on: bool = False) -> Harm:
        """Answer whether the correction harms.

        Args:
            bounds: largest permitted losses.
            trained_on: whether the network was trained on these images.
        """
        return Harm(
            (
                Loss("clean images", self.harm, self.expected, bounds.overall, trained_on),
                Loss(
                    "clean images of the class", self.harm_affected, self.expected_affected, bounds.affected, trained_on
                ),
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the intervals as JSON values; None without images."""
        return {name: value if value["n"] else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class CorrectionTest:
    """Sample on which corrections of one class are compared.

    Attributes:
        classifier: the model.
        sample: the images.
        target: output of the class.
        insertion: puts the artifact on images, or None.
        seed: seed of the insertion.
    """

    classifier: Classifier
    sample: Sample
    target: int
    insertion: Insertion | None
    seed: int = 0

    @cached_property
    def other_rows(self) -> Ints:
        """Positions (m,) of clean images of other classes."""
        return np.flatnonzero(self.sample.fair_draw & (self.truth != self.target))

    @cached_property
    def pasted_images(self) -> Sequence[Tensor]:
        """Images of `other_rows` with the artifact; empty where it cannot be put on all of them."""
        if self.insertion is None or not all(self.insertion.fits(self.sample.images[i]) for i in self.other_rows):
            return []
        rng = np.random.default_rng(self.seed)
        return [put_on(self.sample.images[i], self.insertion, rng) for i in self.other_rows]

    @cached_property
    def before(self) -> Logits:
        """Logits of the unchanged model."""
        return self.compute_logits(None)

    @cached_property
    def plain(self) -> Floats:
        """Logits (n, K) of the sample under the unchanged model."""
        return compute_logits(self.classifier, self.sample.images)

    @cached_property
    def truth(self) -> Ints:
        """Labels (n,); where unknown, the prediction of the unchanged model, so that a change counts as a loss."""
        return np.where(self.sample.labels >= 0, self.sample.labels, self.plain.argmax(1))

    def compute_logits(self, correction: Correction | None) -> Logits:
        """Compute the logits under a correction; None: the unchanged model."""
        plain = self.plain if correction is None else compute_logits(self.classifier, self.sample.images, correction)
        pasted = compute_logits(self.classifier, self.pasted_images, correction) if self.pasted_images else plain[:0]
        return Logits(plain, pasted)

    def compute_logits_jointly(self, corrections: Sequence[Correction]) -> list[Logits]:
        """Compute the logits under each correction; erasures at one layer share the computation up to it."""
        erasures = [one for one in corrections if isinstance(one, Erasure)]
        if len(erasures) < max(2, len(corrections)) or len({one.layer for one in erasures}) > 1:
            return [self.compute_logits(one) for one in corrections]
        plain = compute_logits_jointly(self.classifier, self.sample.images, erasures)
        if not self.pasted_images:
            return [Logits(y, y[:0]) for y in plain]
        return [
            Logits(*both)
            for both in zip(plain, compute_logits_jointly(self.classifier, self.pasted_images, erasures), strict=True)
        ]

    def evaluate(self, correction: Correction | None) -> Outcome:
        """Evaluate the model under a correction; None: the unchanged model."""
        return self.evaluate_logits(self.before if correction is None else self.compute_logits(correction))

    def evaluate_logits(self, found: Logits) -> Outcome:
        """Evaluate logits of the sample."""
        right, was = (answers.plain.argmax(1) == self.truth for answers in (found, self.before))
        fair, own = self.sample.fair_draw, ~self.sample.member & (self.sample.labels == self.target)
        expected = expected_loss(self.before.plain, found.plain)
        under = found.pasted.argmax(1) == self.truth[self.other_rows] if len(found.pasted) else np.zeros(0, bool)
        return Outcome(
            accuracy=share_interval(right[fair]),
            affected=share_interval(right[own]),
            worst=self._worst(right, under),
            under=share_interval(under),
            flips=self.flips(found),
            rise=self.rise(found),
            harm=paired_loss(was[fair], right[fair]),
            harm_affected=paired_loss(was[own], right[own]),
            expected=mean_interval(expected[fair]),
            expected_affected=mean_interval(expected[own]),
        )

    def flips(self, found: Logits) -> Interval:
        """Compute the share of flips, see the module; no interval without pasted images."""
        if not len(found.pasted):
            return NO_INTERVAL
        return share_interval(flips(found.plain[self.other_rows], found.pasted, self.target) > 0)

    def remaining_effect(self, found: Logits) -> tuple[float, float]:
        """Compute |rise| / |rise of the unchanged model| of the class's log-odds, and its standard error, from that of
        the rise.

        With a single image neither is known; both are then 1.
        """
        after, before = (self.rise(answers, log_odds) for answers in (found, self.before))
        if not after.n or not before.n:
            return 1.0, 1.0
        whole = max(abs(before.value), 1e-9)
        return abs(after.value) / whole, (after.high - after.low) / (2 * Z95) / whole

    def rise(self, found: Logits, level: Level = centred_logit) -> Interval:
        """Compute the mean rise of the class's level by the artifact."""
        if len(found.pasted):
            return mean_interval(logit_rise(found.pasted, found.plain[self.other_rows], self.target, level))
        member = self.sample.member
        own = ~member & (self.sample.labels == self.target)
        clean = own if own.any() else ~member
        if not clean.any():
            return NO_INTERVAL
        return mean_interval(logit_excess(found.plain[member], found.plain[clean], self.target, level))

    def _worst(self, right: Bools, under: Bools) -> Interval:
        """Compute the least accuracy among groups of at least GROUP images."""
        groups = [right[self.sample.fair_draw & (self.truth == label)] for label in np.unique(self.truth)]
        groups += [under[self.truth[self.other_rows] == label] for label in np.unique(self.truth)] if len(under) else []
        groups += [right[self.sample.member & (self.truth == label)] for label in np.unique(self.truth)]
        kept = [share_interval(group) for group in groups if len(group) >= GROUP]
        return min(kept, key=lambda found: found.value, default=NO_INTERVAL)
