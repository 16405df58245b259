"""Measure a model under a correction: the remaining effect of the artifact, and the cost of the correction.

*Flips*: share of clean images of other classes, not predicted as the class, that are with the artifact inserted.
*Rise*: the increase of the class's centred logit by the artifact; where it cannot be inserted, the difference of the
logit between members and clean images of the class. *Fall of members*: the mean fall of that logit on members by the
correction, less that on clean images of the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from scipy import special
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits, compute_logits_jointly
from klarsicht.audit.cleaning.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
from klarsicht.audit.cleaning.corrections.harm import Bounds, Harm, Loss
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.corrections.thresholds import fit_bias
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.results.logit_effect import ANY_SHARE, LogitEffect
from klarsicht.audit.verdicts.interventions.experiment import Experiment, Score, flips, logit_excess
from klarsicht.audit.verdicts.interventions.insertion import Insertion, put_on
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints
from klarsicht.numerics.statistics.intervals import (
    NO_INTERVAL,
    Z95,
    Interval,
    difference_interval,
    mean_interval,
    share_interval,
)
from klarsicht.numerics.statistics.logits import centred_logit
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss, paired_loss

LOG_ODDS, PROBABILITY = "log-odds", "probability"  # scales on which a gain counts
GROUP: Final = 10  # images that a group must have before its accuracy is a figure
LEAST_MEMBER_SHARE: Final = 0.5  # of the fall of the rise: least fall of members; half of an effect may remain


def log_odds(y: Floats, target: int) -> Floats:
    """Compute log P(target) / P(any other): (n, K) -> (n,). It falls with every rise of another logit."""
    return np.asarray(y[:, target] - special.logsumexp(np.delete(y, target, 1), axis=1))


def probability(y: Floats, target: int) -> Floats:
    """Compute P(target): (n, K) -> (n,)."""
    return np.asarray(special.softmax(y.astype(np.float64), axis=1)[:, target])


def erasure_of(correction: Correction) -> Erasure | None:
    """Return the erasure of a correction by one, else None."""
    erased = correction.erasure if isinstance(correction, WhenPredicted) else correction
    return erased if isinstance(erased, Erasure) else None


def loss_elsewhere(was: Bools, right: Bools, truth: Ints, targets: Sequence[int]) -> tuple[PairedLoss, int | None]:
    """Estimate the loss without the class, other than the targets, that loses most: NO_LOSS and None where no other
    class loses, or there are fewer than two. was, right: bool (n,), whether the answer is right before and after.
    truth: int (n,), labels."""
    others = np.setdiff1d(truth, targets)
    lost = [int((was & ~right & (truth == one)).sum()) - int((~was & right & (truth == one)).sum()) for one in others]
    if len(others) < 2 or max(lost) <= 0:
        return NO_LOSS, None
    most = int(others[int(np.argmax(lost))])
    kept = truth != most
    return paired_loss(was[kept], right[kept]), most


@dataclass(frozen=True)
class Logits:
    """Logits (n, K) of a sample under one correction, and (m, K) of the images `CorrectionTest.other_rows` with the
    artifact, or empty."""

    plain: Floats
    pasted: Floats


@dataclass(frozen=True)
class Gain:
    """Share of the artifact's effect that a correction takes away. share: the share, on the scale on which its lower
    end is lower. level: that scale, LOG_ODDS or PROBABILITY. left: share (n,) of the mean effect that each image keeps,
    on each scale that counts; its mean is 1 - share."""

    share: Interval
    level: str
    left: dict[str, Floats]

    def behind(self, other: Gain) -> Interval:
        """Compute the amount by which another gain on the same images is larger, with its 95 % interval, on the scale
        of this one."""
        return mean_interval(self.left[self.level] - other.left[self.level])


@dataclass(frozen=True)
class Outcome:
    """Accuracy, artifact effect and harm of a model under one correction.

    Attributes:
        accuracy, affected: on the representative draw of clean images, and on clean images of the class.
        worst: least accuracy of a group: a label, with the artifact or without.
        under: accuracy of other classes with the artifact.
        flips, rise, member_fall: see the module.
        harm, harm_affected: paired losses of `accuracy` and `affected` against the unchanged model.
        turned: share of other classes' images predicted as the class with the artifact, less that without it.
        harm_elsewhere, most_lost: `harm` without the other class that loses most, and that class in words; NO_LOSS
            where none loses, or two others are not there.
        recalls: answers to clean images by class, before and after.
    """

    accuracy: Interval
    affected: Interval
    worst: Interval
    under: Interval
    flips: Interval
    rise: Interval
    harm: PairedLoss
    harm_affected: PairedLoss
    turned: Interval = NO_INTERVAL
    harm_elsewhere: PairedLoss = NO_LOSS
    most_lost: str = ""
    member_fall: Interval = NO_INTERVAL
    recalls: ClassRecalls = field(default=ClassRecalls(), compare=False, repr=False)

    @property
    def effect(self) -> LogitEffect:
        """Effect of the artifact; ANY_SHARE where it was inserted into no other images."""
        return LogitEffect(self.rise, self.turned if self.turned.n else ANY_SHARE)

    def harm_answer(self, bounds: Bounds, trained_on: bool = False) -> Harm:
        """Answer whether the correction harms, under bounds; `trained_on`: the network was trained on these images."""
        overall = Loss("clean images", self.harm, bounds.overall, trained_on, self.harm_elsewhere, self.most_lost)
        affected = Loss("clean images of the class", self.harm_affected, bounds.affected, trained_on)
        return Harm((overall, affected, *self.recalls.harm(bounds.affected, trained_on)))

    def to_json(self) -> dict[str, Any]:
        """Return the intervals as JSON values; None without images."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("most_lost", "recalls")}
        return {name: asdict(value) if value.n else None for name, value in told.items()} | {
            "most_lost": self.most_lost
        }


def reaches_members(before: Interval, after: Outcome) -> bool:
    """Test whether a correction takes from members what it takes from images with the artifact inserted: their fall is
    not shown to be below LEAST_MEMBER_SHARE of the fall of the rise, and of GROUP members or more it is shown to be
    above 0. True where that cannot be seen: the artifact is inserted into no images, its rise does not fall, or there
    are fewer than two members."""
    fall, taken = after.member_fall, before.value - after.rise.value
    if not after.turned.n or not fall.n or not taken > 0:
        return True
    return (fall.low > 0 or fall.n < GROUP) and fall.high >= LEAST_MEMBER_SHARE * taken


@dataclass(frozen=True)
class CorrectionTest:
    """Sample on which corrections of one class are compared; `insertion` puts the artifact on images, or is None.
    class_weights: see class_recalls.weigh_classes."""

    classifier: Classifier
    sample: Sample
    target: int
    insertion: Insertion | None
    seed: int = 0
    names: Mapping[int, str] = field(default_factory=dict)
    class_weights: Mapping[int, float] = field(default_factory=dict)

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
        known: dict[int, Erasure] = {id(e): e for one in corrections if (e := erasure_of(one)) is not None}
        if len(known) < 2 or len({one.layer for one in known.values()}) > 1:
            return [self.compute_logits(one) for one in corrections]
        erasures = list(known.values())
        plain = compute_logits_jointly(self.classifier, self.sample.images, erasures)
        pasted = compute_logits_jointly(self.classifier, self.pasted_images, erasures) if self.pasted_images else plain
        both = zip(known, plain, pasted, strict=True)
        erased = {key: Logits(y, z if self.pasted_images else y[:0]) for key, y, z in both}
        return [self._under(one, erased) for one in corrections]

    def _under(self, correction: Correction, erased: dict[int, Logits]) -> Logits:
        """Return the logits under a correction from those under its erasure, if it has one."""
        if (known := erasure_of(correction)) is None:
            return self.compute_logits(correction)
        found = erased[id(known)]
        if not isinstance(correction, WhenPredicted):
            return found
        sides = ((found.plain, self.before.plain), (found.pasted, self.before.pasted))
        return Logits(*(np.where((y.argmax(1) == correction.target)[:, None], z, y) for z, y in sides))

    def evaluate(self, correction: Correction | None) -> Outcome:
        """Evaluate the model under a correction; None: the unchanged model."""
        return self.evaluate_logits(self.before if correction is None else self.compute_logits(correction))

    def evaluate_logits(self, found: Logits) -> Outcome:
        """Evaluate logits of the sample."""
        right, was = (answers.plain.argmax(1) == self.truth for answers in (found, self.before))
        fair, own = self.sample.fair_draw, ~self.sample.member & (self.sample.labels == self.target)
        under = found.pasted.argmax(1) == self.truth[self.other_rows] if len(found.pasted) else np.zeros(0, bool)
        elsewhere, most = loss_elsewhere(was[fair], right[fair], self.truth[fair], [self.target])
        most_lost = "" if most is None else self.names.get(most, f"class {most}")
        accuracies = share_interval(right[fair]), share_interval(right[own]), self._worst(right, under)
        losses = paired_loss(was[fair], right[fair]), paired_loss(was[own], right[own])
        effects = share_interval(under), self.flips(found), self.rise(found)
        turned, fall = self.turned_share(found), self.member_fall(found)
        return Outcome(*accuracies, *effects, *losses, turned, elsewhere, most_lost, fall, self.class_recalls(found))

    def class_recalls(self, logits: Logits) -> ClassRecalls:
        """Return the answers to clean images, before and under logits of a correction, by class."""
        clean = ~self.sample.member
        before, after = self.plain[clean].argmax(1), logits.plain[clean].argmax(1)
        return ClassRecalls(self.truth[clean], before, after, (self.target,), self.names)

    @cached_property
    def fair_weights(self) -> Doubles:
        """Weights of the representative draw of clean images with which a mean is one over classes."""
        labels = self.truth[self.sample.fair_draw].tolist()
        return np.array([self.class_weights.get(label, 1.0) for label in labels])

    def balanced_loss(self, logits: Logits) -> float | None:
        """Compute the loss of accuracy on the representative draw of clean images, in the mean over classes; None
        without any."""
        fair = self.sample.fair_draw
        was, right = ((y[fair].argmax(1) == self.truth[fair]).astype(int) for y in (self.plain, logits.plain))
        return float((self.fair_weights * (was - right)).sum() / len(was)) if len(was) else None

    def fit_bias(self, logits: Logits) -> float:
        """Fit the bias of the class that sets its threshold back, see thresholds."""
        clean = ~self.sample.member
        return fit_bias(self.plain[clean], logits.plain[clean], self.truth[clean], self.target)

    def add_bias(self, logits: Logits, bias: float) -> Logits:
        """Return logits with a bias of the class, against the mean of all."""
        K = self.plain.shape[1]
        added = (bias * (np.eye(K)[self.target] - 1 / K)).astype(logits.plain.dtype)
        return replace(logits, plain=logits.plain + added, pasted=logits.pasted + added)

    def flips(self, found: Logits) -> Interval:
        """Compute the share of flips, see the module; no interval without pasted images."""
        if not len(found.pasted):
            return NO_INTERVAL
        return share_interval(flips(found.plain[self.other_rows], found.pasted, self.target) > 0)

    def fall(self, found: Logits) -> Interval:
        """Compute the mean fall of the right label's probability on the representative draw of clean images, in the
        mean over classes."""
        fair = np.flatnonzero(self.sample.fair_draw)
        before, after = (
            special.softmax(y[fair].astype(np.float64), 1)[np.arange(len(fair)), self.truth[fair]]
            for y in (self.plain, found.plain)
        )
        return mean_interval(self.fair_weights * (before - after))

    def member_fall(self, found: Logits) -> Interval:
        """Compute the fall of members, see the module; no interval without two members and two clean images of the
        class."""
        member = self.sample.member
        own = ~member & (self.sample.labels == self.target)
        fall = centred_logit(self.plain, self.target) - centred_logit(found.plain, self.target)
        return difference_interval(fall[member], fall[own])

    def turned_share(self, found: Logits) -> Interval:
        """Compute the share of `other_rows` predicted as the class with the artifact, less that without it; no interval
        without pasted images."""
        if not len(found.pasted):
            return NO_INTERVAL
        return paired_loss(*self._experiment(found).taken)

    def _experiment(self, found: Logits) -> Experiment:
        return Experiment(found.pasted, found.plain[self.other_rows], self.target)

    def gain(self, found: Logits) -> Gain:
        """Compute the gain of a correction: 1 - |rise| / rise before, of the class's log-odds and of its probability;
        of the two the one with the lower lower end. The interval is that of a ratio of means over the same images
        (delta method). Probability counts where the artifact is shown to raise it before the correction; 0 with an
        interval of [-1, 1] where nothing is known."""
        shares = {LOG_ODDS: self._share_taken(found, log_odds)}
        if len(found.pasted) and self.rise(self.before, probability).low > 0:
            shares[PROBABILITY] = self._share_taken(found, probability)
        least = min(shares, key=lambda name: shares[name][0].low)
        return Gain(shares[least][0], least, {name: left for name, (_, left) in shares.items()})

    def _share_taken(self, found: Logits, score: Score) -> tuple[Interval, Floats]:
        """Compute the share that is taken away, and the share (n,) that each image keeps."""
        after, before = (self._rises(answers, score).astype(np.float64) for answers in (found, self.before))
        n = len(after)
        if n < 2:
            return Interval(0.0, -1.0, 1.0, n), np.zeros(n)
        whole = max(abs(float(before.mean())), 1e-9)
        signed = float(after.mean()) / whole
        half = Z95 * float(np.std(after - signed * np.sign(before.mean()) * before, ddof=1)) / np.sqrt(n) / whole
        share = Interval(1 - abs(signed), 1 - abs(signed) - half, 1 - abs(signed) + half, n)
        return share, np.sign(signed) * after / whole

    def rise(self, found: Logits, score: Score = centred_logit) -> Interval:
        """Compute the mean rise of the class's score by the artifact."""
        return mean_interval(self._rises(found, score))

    def _rises(self, found: Logits, score: Score) -> Floats:
        """Compute the rise of the class's score on each pasted image, or on each member; empty without clean images."""
        if len(found.pasted):
            return self._experiment(found).rises(score)
        member = self.sample.member
        own = ~member & (self.sample.labels == self.target)
        clean = own if own.any() else ~member
        if not clean.any():
            return np.zeros(0)
        return logit_excess(found.plain[member], found.plain[clean], self.target, score)

    def _worst(self, right: Bools, under: Bools) -> Interval:
        """Compute the least accuracy among groups of at least GROUP images."""
        groups = [right[self.sample.fair_draw & (self.truth == label)] for label in np.unique(self.truth)]
        groups += [under[self.truth[self.other_rows] == label] for label in np.unique(self.truth)] if len(under) else []
        groups += [right[self.sample.member & (self.truth == label)] for label in np.unique(self.truth)]
        kept = [group for group in groups if len(group) >= GROUP]
        return share_interval(min(kept, key=np.mean, default=np.zeros(0, bool)))
