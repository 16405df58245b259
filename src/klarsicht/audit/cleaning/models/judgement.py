"""Judge a correction of one artifact, or of several together, by images on which none was fitted or chosen.

A correction is *harmful* where a loss on clean images, or on those of a class, is shown to be beyond its bound. It
does *not help* where the artifact is not shown to be used, where more than LEAVES of its effect remain, or
where it takes from images with the artifact inserted what it does not take from those that carry it
(outcomes.reaches_members). Else the model is *cleaned*. Words are in audit.results.words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, LEAVES, Bounds, Harm, Loss
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Outcome, reaches_members
from klarsicht.audit.cleaning.corrections.samples import Case
from klarsicht.audit.cleaning.corrections.selection import SettingOutcome
from klarsicht.audit.cleaning.models.training_images import UNKNOWN, ImageOrigin
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.results.correction_words import ON_OTHER_IMAGES, CleaningKind
from klarsicht.audit.results.logit_effect import FLIPPED, describe_floor, is_raised, matters
from klarsicht.audit.results.words import describe_insertion
from klarsicht.ground.errors import EffectRemains, HarmExceeded, naming_arguments
from klarsicht.ground.pictures import notebook
from klarsicht.numerics.statistics.intervals import Interval

if TYPE_CHECKING:
    from klarsicht.audit.cleaning.models.group_accuracy import GroupComparison


BETWEEN_IMAGES: Final = "the score difference between images with the artifact and clean ones"  # without insertion


class CorrectionVerdict(ABC):
    """Verdict on a correction, from the answer to harm and the reason why it does not help, if it does not."""

    @property
    @abstractmethod
    def harm(self) -> Harm:
        """Answer to harm, with its losses."""

    @property
    @abstractmethod
    def no_help(self) -> tuple[CleaningKind, str] | None:
        """Kind and reason of a correction that does not help; else None."""

    @property
    @abstractmethod
    def effect_left(self) -> str:
        """Remaining effect of a correction that helps, in words."""

    @property
    def on_members_alone(self) -> bool:
        """Whether the artifact was inserted into no other images: whether the model uses it was then not tested."""
        return False

    @property
    def kind(self) -> CleaningKind:
        """Kind of the verdict; harm comes first."""
        if self.harm.answer == HARMFUL:
            return CleaningKind.HARMFUL
        if self.no_help:
            return self.no_help[0]
        if self.on_members_alone:
            return CleaningKind.UNTESTED
        return CleaningKind.CLEAN if self.harm.answer == HARMLESS else CleaningKind.UNPROVEN

    @property
    def reason(self) -> str:
        """The figures that decide, in words."""
        if self.kind != CleaningKind.HARMFUL and self.no_help:
            return self.no_help[1]
        left = [self.effect_left] if self.clean else []
        return "; ".join([*left, self.harm.reasons] if self.harm.reasons else left)

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return f"{self.kind.label}: {self.reason}"

    @property
    def advice(self) -> str:
        """The next step."""
        return self.kind.advice

    @property
    def clean(self) -> bool:
        """Whether the corrected model may be called clean, as far as was tested."""
        return self.kind in (CleaningKind.CLEAN, CleaningKind.UNPROVEN, CleaningKind.UNTESTED)

    def words_json(self) -> dict[str, Any]:
        """Return verdict, kind, next step and answer to harm as JSON values."""
        words = {"verdict": self.verdict, "kind": self.kind, "next": self.advice}
        return words | {"clean": self.clean, "harm answer": self.harm.to_json()}

    @naming_arguments()
    def check(self) -> None:
        """Check that the corrected model may be called clean.

        Raises:
            HarmExceeded: a loss is shown to be beyond its bound.
            EffectRemains: an artifact is not shown to be used, or more than half of its effect remains.
        """
        if not self.clean:
            error = HarmExceeded if self.kind == CleaningKind.HARMFUL else EffectRemains
            raise error(self.kind.claim, got=self.reason, remedy=self.advice)


@dataclass(frozen=True)
class ShownClasses:
    """Number of classes of which there are clean images, and of the model's outputs: of other classes no loss can be
    measured."""

    classes: int
    outputs: int

    @classmethod
    def of(cls, test: CorrectionTest, case: Case) -> ShownClasses:
        """Count both, of a case and of a test on its images."""
        known = case.labels[case.clean]
        return cls(len(np.unique(known[known >= 0])), test.plain.shape[1])

    @property
    def lacking(self) -> str:
        """State in words of which classes losses are not known; empty where there are images of all classes."""
        if self.classes >= self.outputs:
            return ""
        of = f"clean images are of {self.classes:,} of the model's {self.outputs:,} classes"
        return f"{of}: what is lost of others is not known"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)


UNCOUNTED: Final = ShownClasses(0, 0)


@dataclass(frozen=True)
class Judgement(CorrectionVerdict):
    """Verdict on a correction of one artifact.

    Attributes:
        before, after: outcomes of the unchanged and of the corrected model on the same images.
        origin: whether the model was trained on these images.
        least: least effect that is worth a correction, as a factor of what matters; see `logit_effect.matters`.
        refused: judgement of the best correction, where that was not made and `after` is the unchanged model.
        shown: number of images.
        groups: of the class and its surroundings, where the artifact is a part of every image: the worst group must
            gain, too; None of other artifacts, and where the model is not shown to follow surroundings.
        measured_use: what `audit quantify` measured of the artifact, or None.
        new_draws: `before` and `after` with the artifact as images have it that nothing was fitted on, or None.
    """

    before: Outcome
    after: Outcome
    bounds: Bounds
    origin: ImageOrigin = UNKNOWN
    least: float = 1.0
    refused: Judgement | None = None
    shown: int = 0
    shown_classes: ShownClasses = UNCOUNTED
    groups: GroupComparison | None = None
    measured_use: UseResult | None = None
    new_draws: tuple[Outcome, Outcome] | None = None

    def __repr__(self) -> str:
        return f"Judgement({self.verdict!r})"

    def _repr_html_(self) -> str:
        looks = (("before", self.before), ("after", self.after))
        rows = (
            (name, *map(_percent, (look.flips, look.accuracy, look.affected)), str(look.rise)) for name, look in looks
        )
        header = ("", "turned into the class", "accuracy", "of the class", "score change (logits, 95 %)")
        return notebook.table(header, rows) + notebook.facts([("verdict", self.verdict), ("next", self.advice)])

    @property
    def remaining(self) -> float:
        """Remaining share of the artifact's effect: |rise after| / |rise before|."""
        return abs(self.after.rise.value) / max(abs(self.before.rise.value), 1e-9)

    @property
    def is_used(self) -> bool:
        """Whether the artifact is shown to raise the class before the correction: by the whole 95 % interval."""
        return is_raised(self.before.effect)

    @property
    def is_below_least(self) -> bool:
        """Whether the artifact is used, but shown to do less than is worth a correction, and not measured to do more by
        `audit quantify`; never where it was inserted into no other images."""
        return self.is_used and not self.does_enough and not is_worth(self.measured_use, self.least)

    @property
    def does_enough(self) -> bool:
        """Whether the artifact may do what is worth a correction, on these images."""
        return matters(self.before.effect, "high", self.least)

    @property
    def disagreement(self) -> str:
        """The effects on these images and by `audit quantify`, in words, where only the latter is worth a correction;
        else empty."""
        use = self.measured_use
        if use is None or not is_worth(use, self.least) or (self.is_used and self.does_enough):
            return ""
        return (
            f"`audit quantify` measured {use.shift:+z.2f} logits and {100 * (use.flips - use.flips_control):z.1f} % of "
            f"other images turned into the class by {describe_insertion(use.how, None)}; here, "
            f"{describe_change(self.before)}"
        )

    @property
    def on_new_draws(self) -> str:
        """The effect left of new draws of the artifact beside that of the draws that it was fitted on, in words; empty
        where either is not known."""
        if self.new_draws is None or not self.new_draws[0].flips.n or not self.before.flips.n:
            return ""
        own, new = (
            f"{100 * before.flips.value:.1f} % before and {100 * after.flips.value:.1f} % after"
            for before, after in ((self.before, self.after), self.new_draws)
        )
        return (
            f"as images have the artifact that nothing was fitted on, it turns {new} of other images into the class; "
            f"as the images have it that the correction was fitted on, {own}"
        )

    @cached_property
    def harm(self) -> Harm:
        return self.after.harm_answer(self.bounds, self.origin.trained_on)

    @property
    def helps(self) -> bool:
        """Whether the artifact is used, at most LEAVES of its effect remain, and the correction reaches members and new
        draws of the artifact."""
        return self.is_used and self.remaining <= LEAVES and self.reaches_members and not self.misses_new_draws

    @property
    def share_missed(self) -> float:
        """Share of the effect of new draws of the artifact that remains, where it is shown to be more than LEAVES, in
        logits or in images turned; else 0."""
        if self.new_draws is None or not is_raised(self.new_draws[0].effect):
            return 0.0
        before, after = self.new_draws
        sides = [(before.rise, after.rise)]
        if before.turned.n and before.turned.low > 0 and before.turned.value >= FLIPPED:
            sides.append((before.turned, after.turned))
        shares = [now.value / was.value for was, now in sides if now.low > LEAVES * was.value]
        return max(shares, default=0.0)

    @property
    def misses_new_draws(self) -> bool:
        """Whether new draws of the artifact raise the class, and more than LEAVES of that remains by the whole 95 %
        interval: in logits, or in images turned into the class, where these are so many that they matter."""
        return self.share_missed > 0

    @property
    def reaches_members(self) -> bool:
        """Whether it takes from members what it takes from other images, see outcomes.reaches_members."""
        return reaches_members(self.before.rise, self.after)

    @property
    def on_members_alone(self) -> bool:
        """Whether the artifact was inserted into no other images: what is left of its effect there is not known."""
        return self.before.flips.n == 0

    @property
    def no_help(self) -> tuple[CleaningKind, str] | None:
        if not self.is_used:
            none = "there are no images to measure its effect on"
            change = self.disagreement or describe_change(self.before)
            return CleaningKind.UNUSED, change if self.before.rise.n else none
        if self.helps:
            lacking = "" if self.groups is None else self.groups.no_help
            return (CleaningKind.REMAINS, f"it {self.describe_effect_left()}; {lacking}") if lacking else None
        if self.is_below_least:
            floor = f"corrections begin at {describe_floor(self.least)}"
            return CleaningKind.SMALL, f"{describe_change(self.before)}; {floor}"
        if self.refused:
            return CleaningKind.REFUSED, f"the best one {self.refused.describe_effect_left()}"
        return CleaningKind.REMAINS, f"it {self.describe_effect_left()}"

    @property
    def effect_left(self) -> str:
        share = f"{100 * self.remaining:.0f} %"
        if not self.on_members_alone:
            return f"{share} of the artifact's effect is left"
        return f"{share} of {BETWEEN_IMAGES} is left; the artifact could be inserted into no others"

    def describe_effect_left(self) -> str:
        """Say in words how much of the artifact's effect a correction leaves."""
        if self.misses_new_draws:
            return (
                f"leaves {100 * self.share_missed:.0f} % of the artifact's effect as images have it that nothing was "
                f"fitted on, and {100 * self.remaining:.0f} % as those have it that it was fitted on"
            )
        if self.remaining > LEAVES or self.reaches_members:
            effect = BETWEEN_IMAGES if self.on_members_alone else "the artifact's effect"
            return f"leaves {100 * self.remaining:.0f} % of {effect}"
        taken, fall = self.before.rise.value - self.after.rise.value, self.after.member_fall
        return (
            f"takes {taken:.2f} logits from images with the artifact inserted, but {fall.value:z.2f} "
            f"({fall.low:z.2f} to {fall.high:z.2f}) from the images that carry it"
        )

    def to_json(self) -> dict[str, Any]:
        """Return verdict and reasons as JSON values."""
        return {
            **self.words_json(), "remaining": self.remaining, "reaches members": self.reaches_members,
            "artifact used": self.is_used, "below the least effect": self.is_below_least,
            "members alone": self.on_members_alone, "images": self.origin.to_json(),
            "disagreement": self.disagreement, "on new draws": self.on_new_draws,
            "recalls": [one.to_json() for one in self.after.recalls.table()],
            "new draws": self.new_draws and [one.to_json() for one in self.new_draws],
            "refused": self.refused.to_json() | {"after": self.refused.after.to_json()} if self.refused else None,
        }  # fmt: skip


@dataclass(frozen=True)
class ClassJudgement:
    """Judgements on the correction of one class, by itself (`alone`) and among those of others (`together`), on the
    same images; its setting is given in words."""

    name: str
    target: int
    setting: str
    alone: Judgement
    together: Judgement

    def to_json(self) -> dict[str, Any]:
        """Return both judgements with their outcomes as JSON values; the interference is the share of the artifact's
        effect that the other corrections add to what is left, or take from it."""
        looks = {"alone": self.alone, "together": self.together}
        return {
            "class": self.name,
            "target": self.target,
            "setting": self.setting,
            "shown on": self.alone.shown,
            "interference": self.together.remaining - self.alone.remaining,
            "before": self.alone.before.to_json(),
            **{name: look.to_json() | {"outcome": look.after.to_json()} for name, look in looks.items()},
        }


@dataclass(frozen=True)
class OrderOutcome:
    """Outcome of corrections in one order of the classes, for each class in that order, on images to choose on; and
    losses on many clean images, where they were measured."""

    names: tuple[str, ...]
    by_class: tuple[SettingOutcome, ...]
    losses: CleanLosses | None = None

    @property
    def gained(self) -> float:
        """Lower end of the share of the effect that is taken away of the class of which least is."""
        return min(one.gained.low for one in self.by_class)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        told = {
            name: {"remaining": one.remaining, "gained at least": one.gained.low, "harm": one.outcome.harm.value}
            for name, one in zip(self.names, self.by_class, strict=True)
        }
        losses = {"losses": self.losses.to_json()} if self.losses else {}
        return {"order": list(self.names), "gained at least": self.gained, "classes": told} | losses


@dataclass(frozen=True)
class JointJudgement(CorrectionVerdict):
    """Verdict on corrections of several classes together.

    Attributes:
        lost: loss on clean images of all classes' draws together, each image once.
        left_out: (class, reason) of those for which no correction could be fitted.
        orders: outcomes of the orders that were tried; empty where the order does not matter.
        recalls: answers to the images of `lost` by class.
    """

    classes: tuple[ClassJudgement, ...]
    lost: Loss
    left_out: tuple[tuple[str, str], ...] = ()
    orders: tuple[OrderOutcome, ...] = ()
    recalls: ClassRecalls = field(default=ClassRecalls(), compare=False, repr=False)

    @property
    def shown_classes(self) -> ShownClasses:
        """Number of classes of which there are clean images, which carry the artifact of none."""
        return self.classes[-1].together.shown_classes

    @cached_property
    def harm(self) -> Harm:
        own = ((f"clean images of {one.name}", one.together.harm.losses[1]) for one in self.classes)
        of_classes = (replace(loss, kind=kind, trained_on=self.lost.trained_on) for kind, loss in own)
        bound = self.classes[0].together.bounds.affected
        return Harm((self.lost, *of_classes, *self.recalls.harm(bound, self.lost.trained_on)))

    @property
    def no_help(self) -> tuple[CleaningKind, str] | None:
        reasons = [f"{one.name}: {why[0].label}, {why[1]}" for one in self.classes if (why := one.together.no_help)]
        reasons += [f"{name}: not corrected, {why}" for name, why in self.left_out]
        return (CleaningKind.REMAINS, "; ".join(reasons)) if reasons else None

    @property
    def advice(self) -> str:
        if self.kind == CleaningKind.UNPROVEN:
            return f"Use the corrected model, or measure the loss of one class's correction alone: {ON_OTHER_IMAGES}."
        return super().advice

    @property
    def effect_left(self) -> str:
        most = max(100 * one.together.remaining for one in self.classes)
        return f"at most {most:.0f} % of each artifact's effect is left"

    def to_json(self) -> dict[str, Any]:
        """Return verdict, answer to harm, classes and orders as JSON values."""
        return {
            **self.words_json(),
            "clean images": self.shown_classes.to_json(),
            "left out": [list(one) for one in self.left_out],
            "classes": [one.to_json() for one in self.classes],
            "orders": [one.to_json() for one in self.orders],
            "recalls": [one.to_json() for one in self.recalls.table()],
        }


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})" if share.n else ""


def is_worth(use: UseResult | None, least: float) -> bool:
    """Test whether the effect that `audit quantify` measured, if it did, is shown to be worth a correction."""
    return use is not None and matters(use.effect, "low", least)


def describe_change(before: Outcome) -> str:
    """Say in words what was measured of an artifact on the unchanged model, with 95 % intervals: its effect on images
    into which it was inserted, or else the difference between images with it and without, which may have other reasons.
    """
    rise, turned = before.rise, before.turned
    ends = f"({rise.low:z.2f} to {rise.high:z.2f})"
    if not before.flips.n:
        size = f"{abs(rise.value):.2f} logits {'less' if rise.value < 0 else 'more'}"
        return (
            f"it could be inserted into no other images, and images with it score {size} than clean images {ends}, "
            "which may have other reasons"
        )
    change = f"inserted into other images, it changes the class score by {rise.value:z.2f} logits {ends}"
    if not turned.n:
        return change
    ends = f"{100 * turned.value:z.1f} % ({100 * turned.low:z.1f} to {100 * turned.high:z.1f})"
    return f"{change} and turns {ends} of them into the class"
