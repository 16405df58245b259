"""Measure the loss of corrections on many clean images, most exactly for those that lose least, by successive halving
(Karnin, Koren and Somekh 2013): all on a first part of the images, the better half on twice as many, and so on; the
last two on all images. Images are read in batches and none is kept; answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import binomtest

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.samples import Case, Sample
from klarsicht.ground.arrays import Bools, Floats, Ints
from klarsicht.ground.progress import progress
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval, mean_interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss, paired_loss

FREE_FALL: Final = 0.0025  # of the right label's probability: largest fall by a correction that costs nothing
FIRST_IMAGES: Final = 500  # on which all corrections are compared, before the better half is
CLASS_WEIGHT: Final = 0.25  # of a fall on the class beside one on all images: as one bound to the other
LAST: Final = 2  # corrections that are compared on all images
READ_BATCH: Final = 256  # images read at once


Batches = dict[int, tuple[NDArray[Any], ...]]  # of compare_answers, by the position of the first image


@dataclass(frozen=True)
class CleanLosses:
    """Losses by one correction on clean images. overall, affected: losses of accuracy on a representative draw of clean
    images, and on those of the class; of several classes, of the one that loses most by the lower end. fall,
    fall_affected: mean falls of the right label's probability on the same images, the first in the mean over classes.
    recalls: answers to all these images by class."""

    overall: PairedLoss
    affected: PairedLoss
    fall: Interval
    fall_affected: Interval
    recalls: ClassRecalls = field(default=ClassRecalls(), compare=False, repr=False)

    def is_beyond(self, bounds: Bounds) -> bool:
        """Whether a loss or a fall is shown to be above the bound of the loss, by the lower end of its interval; the
        losses of other classes too."""
        above = (one.low > bounds.overall for one in (self.overall, self.fall) if one.n)
        above_of_class = (one.low > bounds.affected for one in (self.affected, self.fall_affected) if one.n)
        return any(above) or any(above_of_class) or bool(self.recalls.harm(bounds.affected))

    def is_free(self, bounds: Bounds) -> bool:
        """Whether the correction is shown to cost nothing, by the upper ends of 95 % intervals: the share of images
        that are right on one side alone is within the bound, the fall within FREE_FALL, the fall on the class within
        the bound of the class."""
        if not (self.overall.n and self.fall_affected.n):
            return False
        changed = binomtest(self.overall.changed, self.overall.n).proportion_ci(method="wilson")
        small = changed.high <= bounds.overall and self.fall.high <= FREE_FALL
        return bool(small and self.fall_affected.high <= bounds.affected)

    @property
    def price(self) -> float:
        """Fall by which corrections are compared: the overall one, or a quarter of that of the class where this is
        shown to be more."""
        overall = self.fall.value if self.fall.n else 0.0
        affected = self.fall_affected.low if self.fall_affected.n else 0.0
        return max(overall, CLASS_WEIGHT * affected, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the losses as JSON values; None without images."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "recalls"}
        return {name: asdict(value) if value.n else None for name, value in told.items()}


@dataclass(frozen=True)
class CleanDraw:
    """Clean images on which losses are measured, in random order. rows: int (n,), rows of the corpus. fair: bool (n,),
    true for a representative draw of all clean images; the others are of the classes alone. targets: outputs of the
    classes whose images have losses of their own."""

    case: Case
    rows: Ints
    fair: Bools
    targets: tuple[int, ...]
    _answers: dict[int, tuple[Correction, Batches]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, case: Case, allowed: Bools, most: int, rng: np.random.Generator, targets: Sequence[int] = ()
    ) -> CleanDraw:
        """Draw at most `most` clean images of any class, and as many of each class that is cleaned (by default that of
        the case), among the images of the corpus that are allowed, bool (N,)."""
        classes = tuple(targets) or (case.target,)
        clean = case.prefer_held_out(allowed & case.clean)
        fair, *own = (
            rng.permutation(np.flatnonzero(which))[:most]
            for which in (clean, *(clean & (case.labels == target) for target in classes))
        )
        rows = rng.permutation(np.unique(np.concatenate([fair, *own])))
        return cls(case, rows, np.isin(rows, fair), classes)

    def __len__(self) -> int:
        return len(self.rows)

    def measure(self, correction: Correction) -> CleanLosses:
        """Measure what one correction loses on all images."""
        return self.compare([correction])[0]

    def compare(self, corrections: Sequence[Correction], last: int = LAST) -> list[CleanLosses]:
        """Measure the loss of corrections by successive halving, `last` of them on all images."""
        racing, seen, first = list(corrections), 0, FIRST_IMAGES
        with progress("clean images", len(self)) as advance:
            while seen < len(self):
                end = min(first, len(self))
                for start in range(seen, end, READ_BATCH):
                    at = np.arange(start, min(start + READ_BATCH, end))
                    self._measure_batch(at, [one for one in racing if start not in self._batches(one)])
                    advance(len(at))
                seen, first = end, 2 * first
                if len(racing) > last:
                    racing = sorted(racing, key=lambda one: self._losses(one, seen).price)
                    racing = racing[: max(last, (len(racing) + 1) // 2)]
        return [self._losses(one, len(self)) for one in corrections]

    def _batches(self, correction: Correction) -> Batches:
        return self._answers.setdefault(id(correction), (correction, {}))[1]

    def _measure_batch(self, at: Ints, missing: Sequence[Correction]) -> None:
        """Add the answers to the images at these positions of the draw under corrections that have not seen them."""
        if not missing:
            return
        sample = self.case.read(self.rows[at], self.fair[at])
        plain = compute_logits(self.case.classifier, sample.images) if len(sample) else None
        for one in missing:
            after = None if plain is None else compute_logits(self.case.classifier, sample.images, one)
            found = () if plain is None or after is None else compare_answers(sample, plain, after)
            self._batches(one)[int(at[0])] = found

    def _losses(self, correction: Correction, end: int) -> CleanLosses:
        """Compute the losses on the images before the position `end`."""
        parts = [part for start, part in sorted(self._batches(correction).items()) if part and start < end]
        if not parts:
            return CleanLosses(NO_LOSS, NO_LOSS, NO_INTERVAL, NO_INTERVAL)
        before, after, truth, fall, labels, fair = (np.concatenate(part) for part in zip(*parts, strict=True))
        was, right = before == truth, after == truth
        weights = np.array([self.case.class_weights.get(label, 1.0) for label in labels[fair].tolist()])
        own = [labels == target for target in self.targets if (labels == target).any()]
        return CleanLosses(
            paired_loss(was[fair], right[fair]),
            max((paired_loss(was[of], right[of]) for of in own), key=lambda one: one.low, default=NO_LOSS),
            mean_interval(weights * fall[fair]),
            max((mean_interval(fall[of]) for of in own), key=lambda one: one.low, default=NO_INTERVAL),
            ClassRecalls(truth, before, after, self.targets, self.case.names),
        )


def compare_answers(sample: Sample, plain: Floats, after: Floats) -> tuple[NDArray[Any], ...]:
    """Return from logits (n, K) before and after a correction the answers before and after, the right one, the fall of
    its probability, the label, and whether the image is of the representative draw. Where the label is unknown, the
    prediction before counts as right."""
    truth = np.where(sample.labels >= 0, sample.labels, plain.argmax(1))
    before, then = (special.softmax(y.astype(np.float64), 1)[np.arange(len(y)), truth] for y in (plain, after))
    return plain.argmax(1), after.argmax(1), truth, before - then, sample.labels, sample.fair_draw
