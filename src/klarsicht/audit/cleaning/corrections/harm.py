"""Test whether a correction harms a model, by the intervals of its losses on clean images.

*Proven harmless*: the whole interval of every loss is within its bound. *Harmful*: that of a loss is wholly beyond it.
*Not proven*: neither. The loss of every other class is bounded too, see class_recalls, and none must be proven
harmless. A loss that one class other than the artifact's own bears alone is not *harmful*, unless it is handed to that
one: its images may carry an artifact of their own. Images that a network was trained on prove no correction harmless,
and it is harmful there only where the loss is beyond MEMORISED times the bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from klarsicht.audit.results.correction_words import describe_lost
from klarsicht.audit.results.words import join_words
from klarsicht.numerics.statistics.paired_loss import MOST, NO_LOSS, PairedLoss, items_to_settle

HARMLESS: Final = "proven harmless"
HARMFUL: Final = "harmful"
NOT_PROVEN: Final = "not proven harmless"
LEAVES: Final = 0.5  # remaining share of the artifact's effect above which a correction is no help
REACHED: Final = 10  # times the images at hand: more of them, nobody has
WIDE: Final = 0.5  # of an interval in shares of images, from which on images are too few to tell of a loss
MEMORISED: Final = 8.0  # times the bound: losses on images trained on, above which other images lost too


@dataclass(frozen=True)
class Bounds:
    """Largest permitted loss of accuracy by a correction, in shares of images. overall: on clean images. affected: on
    clean images of the affected class."""

    overall: float = 0.005
    affected: float = 0.02


@dataclass(frozen=True)
class Loss:
    """Loss of accuracy on images of one kind, against its bound. trained_on: whether the network was trained on the
    images. elsewhere: the loss without the other class that loses most, or of the loss of that class what is handed to
    the corrected one; NO_LOSS: there is none, or it is not asked. most_lost: that class, in words. receiver: the
    corrected one, of a loss of one class; else empty."""

    kind: str
    measured: PairedLoss
    bound: float
    trained_on: bool = False
    elsewhere: PairedLoss = NO_LOSS
    most_lost: str = ""
    receiver: str = ""

    @property
    def answer(self) -> str:
        """HARMLESS, HARMFUL or NOT_PROVEN."""
        if not self.measured.n:
            return NOT_PROVEN
        if self.is_beyond:
            return NOT_PROVEN if self.is_of_one_class else HARMFUL
        return HARMLESS if self.measured.high <= self.bound and not self.trained_on else NOT_PROVEN

    @property
    def is_beyond(self) -> bool:
        """Whether the whole interval is beyond the bound, of images trained on beyond MEMORISED times the bound."""
        return self.measured.low > self.bound * (MEMORISED if self.trained_on else 1.0)

    @property
    def is_of_one_class(self) -> bool:
        """Whether the loss is shown to be beyond the bound, but not without the class that loses most, or not by what
        it hands to the corrected one."""
        return self.is_beyond and self.elsewhere.n > 0 and not self.elsewhere.low > self.bound

    @property
    def settled_by(self) -> int:
        """Number of other images that would settle a loss that is not proven, with a chance of four in five; 0 without
        images to predict it from."""
        settles = self.measured.n and not self.is_of_one_class
        return items_to_settle(self.measured, self.bound) if settles else 0

    @property
    def is_out_of_reach(self) -> bool:
        """Whether nobody has the number of images that would settle a loss that is not proven, though some would."""
        is_open = self.answer == NOT_PROVEN and not self.is_of_one_class
        narrow = self.measured.high - self.measured.low < WIDE
        return is_open and narrow and REACHED * self.measured.n < self.settled_by < MOST

    @property
    def amount(self) -> str:
        """The loss with its interval, and the kind of images, as a clause without its subject."""
        return f"{describe_lost(self.measured.value, self.measured.low, self.measured.high)} on {self.kind}"

    def __str__(self) -> str:
        if not self.measured.n:
            return f"no {self.kind} to measure a loss on"
        one, lost = self.measured, f"the model {self.amount}"
        if self.answer == HARMLESS:
            return f"{lost}, within the {100 * self.bound:.2f} allowed"
        if self.answer == HARMFUL:
            return f"{lost}, more than the {100 * self.bound:.2f} allowed"
        if self.is_of_one_class:
            value, low, high = (100 * end for end in (self.elsewhere.value, self.elsewhere.low, self.elsewhere.high))
            aside = f"to {self.receiver}" if self.receiver else f"without {self.most_lost}"
            without = f"{value:z.2f} ({low:z.2f} to {high:z.2f}) {aside}"
            return f"{lost}, but only {without}: do its images carry an artifact of their own?"
        if one.high - one.low >= WIDE:
            return f"too few {self.kind} to measure a loss on ({one.n:,})"
        if self.settled_by >= MOST:
            return f"{lost}, as much as the {100 * self.bound:.2f} allowed: more images do not settle it"
        training = "the model was trained on these images" if self.trained_on else ""
        exclusion = f"exclude more than the {100 * self.bound:.2f} allowed"
        if self.is_out_of_reach:
            reason = (
                f"{training}, and ten times as many others" if training else f"even ten times these {one.n:,} images"
            )
            question = f"decide whether a loss of {100 * one.high:.2f} points is acceptable"
            return f"{lost}, but {reason} would hardly {exclusion}: {question}"
        if training:
            return f"{lost}, but {training}; about {self.settled_by:,} others settle it"
        return f"{lost}; {one.n:,} images cannot {exclusion} (about {self.settled_by:,} can)"


@dataclass(frozen=True)
class Harm:
    """Answer to whether a correction harms, from the losses on clean images and on those of the class."""

    losses: tuple[Loss, ...]

    @property
    def answer(self) -> str:
        """HARMFUL where any loss is, HARMLESS where all are, else NOT_PROVEN."""
        answers = {loss.answer for loss in self.losses}
        return HARMFUL if HARMFUL in answers else NOT_PROVEN if NOT_PROVEN in answers else HARMLESS

    @property
    def reasons(self) -> str:
        """The losses from which the answer follows, in words; empty where it is HARMLESS. The model is named once, and
        so is a reason that all have in common."""
        losses = [*self._deciding_losses()]
        if len(losses) > 1 and all(loss.is_out_of_reach for loss in losses):
            return _describe_out_of_reach(losses)
        first, *others = [str(loss) for loss in losses] or [""]
        return "; ".join([first, *(re.sub("^the model ", "it also ", other) for other in others)])

    @property
    def settled_by(self) -> int:
        """Number of images of each kind that would settle what is not proven; 0 where the answer is another."""
        return max((loss.settled_by for loss in self._deciding_losses()), default=0) if self.answer == NOT_PROVEN else 0

    def _deciding_losses(self) -> Iterator[Loss]:
        return (loss for loss in self.losses if loss.answer == self.answer and self.answer != HARMLESS)

    def to_json(self) -> dict[str, Any]:
        """Return answer, reasons and each loss as JSON values."""
        told = [
            {"images": one.kind, "answer": one.answer, "bound": one.bound, "trained on": one.trained_on}
            | {"lost": asdict(one.measured) if one.measured.n else None}
            | {"elsewhere": asdict(one.elsewhere) if one.elsewhere.n else None, "most lost": one.most_lost}
            for one in self.losses
        ]
        return {"answer": self.answer, "reasons": self.reasons, "settled by": self.settled_by, "losses": told}


def _describe_out_of_reach(losses: Sequence[Loss]) -> str:
    """Say that no number of images at hand excludes several losses, each of which is named with its interval."""
    bounds = join_words([*dict.fromkeys(f"{100 * loss.bound:.2f}" for loss in losses)])
    others = (
        "it was trained on these images, and ten times as many others"
        if losses[0].trained_on
        else "even ten times as many images"
    )
    return (
        f"the model {join_words([loss.amount for loss in losses])}; {others} would hardly exclude more than the "
        f"{bounds} allowed: decide whether such losses are acceptable"
    )
