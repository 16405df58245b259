"""A model under a correction: what the artifact still does, and what the correction costs.

Pasted images are clean images of other classes with the artifact put on. *Flips*: of those that are not taken for the
class without it, the share that is with it. *Rise*: how much the artifact raises the class's centred logit; where it
cannot be put on any, how much higher the logit is in members than in clean images of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from scipy import special
from torch import Tensor

from klarsicht.audit.corrections.activations import Correction, logits, logits_abreast
from klarsicht.audit.corrections.clarc import Erasure
from klarsicht.audit.corrections.samples import Sample
from klarsicht.audit.interventions.overlay import Insertion
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.numerics.statistics.intervals import NOTHING, Z95, Interval, loss, mean, share

GROUP: Final = 10  # images that a group must have before its accuracy is a figure


def centred(y: Floats, target: int) -> Floats:
    """Logit of the target less the mean of all: (n, K) -> (n,)."""
    return np.asarray(y[:, target] - y.mean(1))


def log_odds(y: Floats, target: int) -> Floats:
    """log P(target) / P(any other), which falls with what lifts the others: (n, K) -> (n,)."""
    return np.asarray(y[:, target] - special.logsumexp(np.delete(y, target, 1), axis=1))


@dataclass(frozen=True)
class Bounds:
    """What a correction may cost, in shares of images: of clean images overall, and of the affected class."""

    overall: float = 0.005
    affected: float = 0.02


@dataclass(frozen=True)
class Logits:
    """Logits of a sample under one correction.

    Attributes:
        plain: (n, K). pasted: (m, K), of the images `CorrectionTest.others` with the artifact on, or none.
    """

    plain: Floats
    pasted: Floats


@dataclass(frozen=True)
class Outcome:
    """What a model does under one correction.

    Attributes:
        accuracy: on the fair draw of clean images. affected: on clean images of the class.
        worst: least accuracy of a group: a label, with the artifact or without.
        under: accuracy of other classes under the artifact.
        flips, rise: see above.
        harm, harm_affected: what `accuracy` and `affected` lost, image by image.
    """

    accuracy: Interval
    affected: Interval
    worst: Interval
    under: Interval
    flips: Interval
    rise: Interval
    harm: Interval
    harm_affected: Interval

    def exceeded(self, bounds: Bounds) -> str:
        """Which bound the losses break; empty where none."""
        broken = [
            f"{name}: {100 * found.value:.2f} points lost, bound {100 * bound:.2f}"
            for name, found, bound in self._bounded(bounds)
            if found.n and found.value > bound + 1e-12
        ]
        return "; ".join(broken)

    def unproven(self, bounds: Bounds) -> str:
        """Which bound the images shown cannot vouch for; empty where none."""
        wide = [
            f"{name}: up to {100 * found.high:.2f} points on {found.n} images, bound {100 * bound:.2f}"
            if found.n
            else f"{name}: none"
            for name, found, bound in self._bounded(bounds)
            if not found.high <= bound
        ]
        return "; ".join(wide)

    def _bounded(self, bounds: Bounds) -> tuple[tuple[str, Interval, float], ...]:
        return (
            ("clean images", self.harm, bounds.overall),
            ("clean images of the class", self.harm_affected, bounds.affected),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: value if value["n"] else None for name, value in asdict(self).items()}


@dataclass(frozen=True)
class CorrectionTest:
    """A sample on which corrections of one class are compared.

    Attributes:
        target: the class's output.
        putting: puts the artifact on images, or None.
        seed: of what is pasted where.
    """

    classifier: Classifier
    sample: Sample
    target: int
    putting: Insertion | None
    seed: int = 0

    @cached_property
    def others(self) -> Ints:
        """Clean images of other classes, by position (m,)."""
        return np.flatnonzero(self.sample.drawn & (self.truth != self.target))

    @cached_property
    def pasted(self) -> Sequence[Tensor]:
        """Those, with the artifact on; empty where it cannot be put on any."""
        if self.putting is None or not all(self.putting.fits(self.sample.images[i]) for i in self.others):
            return []
        rng = np.random.default_rng(self.seed)
        return [self.putting.paste(self.sample.images[i], rng) for i in self.others]

    @cached_property
    def before(self) -> Logits:
        """Of the model as it is."""
        return self.answers(None)

    @cached_property
    def plain(self) -> Floats:
        return logits(self.classifier, self.sample.images)

    @cached_property
    def truth(self) -> Ints:
        """The labels (n,); where unknown what the model as it is takes the image for: a change is then a loss."""
        return np.where(self.sample.labels >= 0, self.sample.labels, self.plain.argmax(1))

    def answers(self, correction: Correction | None) -> Logits:
        plain = self.plain if correction is None else logits(self.classifier, self.sample.images, correction)
        pasted = logits(self.classifier, self.pasted, correction) if self.pasted else plain[:0]
        return Logits(plain, pasted)

    def abreast(self, corrections: Sequence[Correction]) -> list[Logits]:
        """Of each; erasures at one layer share what comes before it."""
        erasures = [one for one in corrections if isinstance(one, Erasure)]
        if len(erasures) < max(2, len(corrections)) or len({one.layer for one in erasures}) > 1:
            return [self.answers(one) for one in corrections]
        plain = logits_abreast(self.classifier, self.sample.images, erasures)
        if not self.pasted:
            return [Logits(y, y[:0]) for y in plain]
        return [
            Logits(*both) for both in zip(plain, logits_abreast(self.classifier, self.pasted, erasures), strict=True)
        ]

    def effect(self, correction: Correction | None) -> Outcome:
        """The model under a correction; None: as it is."""
        return self.judged(self.before if correction is None else self.answers(correction))

    def judged(self, found: Logits) -> Outcome:
        right, was = (answers.plain.argmax(1) == self.truth for answers in (found, self.before))
        fair, own = self.sample.drawn, ~self.sample.member & (self.sample.labels == self.target)
        under = found.pasted.argmax(1) == self.truth[self.others] if len(found.pasted) else np.zeros(0, bool)
        return Outcome(
            accuracy=share(right[fair]),
            affected=share(right[own]),
            worst=self._worst(right, under),
            under=share(under),
            flips=self.flips(found),
            rise=self.rise(found),
            harm=loss(was[fair], right[fair]),
            harm_affected=loss(was[own], right[own]),
        )

    def flips(self, found: Logits) -> Interval:
        if not len(found.pasted):
            return NOTHING
        eligible = found.plain[self.others].argmax(1) != self.target
        return share(found.pasted.argmax(1)[eligible] == self.target)

    def left(self, found: Logits) -> tuple[float, float]:
        """Of what the artifact does to the class's log-odds: |rise| / |rise of the model as it is|, and its standard
        error, that of the rise. Of a single image neither is known: all may be left, or nothing."""
        after, before = (self.rise(answers, log_odds) for answers in (found, self.before))
        if not after.n or not before.n:
            return 1.0, 1.0
        whole = max(abs(before.value), 1e-9)
        return abs(after.value) / whole, (after.high - after.low) / (2 * Z95) / whole

    def rise(self, found: Logits, level: Callable[[Floats, int], Floats] = centred) -> Interval:
        """Of the class's level, a function (logits (n, K), class) -> (n,)."""
        plain, member = level(found.plain, self.target), self.sample.member
        if len(found.pasted):
            return mean(level(found.pasted, self.target) - plain[self.others])
        own = ~member & (self.sample.labels == self.target)
        clean = own if own.any() else ~member
        return mean(plain[member] - plain[clean].mean()) if clean.any() else NOTHING

    def _worst(self, right: Bools, under: Bools) -> Interval:
        groups = [right[self.sample.drawn & (self.truth == label)] for label in np.unique(self.truth)]
        groups += [under[self.truth[self.others] == label] for label in np.unique(self.truth)] if len(under) else []
        groups += [right[self.sample.member & (self.truth == label)] for label in np.unique(self.truth)]
        kept = [share(group) for group in groups if len(group) >= GROUP]
        return min(kept, key=lambda found: found.value, default=NOTHING)
