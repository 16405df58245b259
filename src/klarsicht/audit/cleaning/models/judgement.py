"""Judge a correction of one artifact, or of several together, by figures of images on which none was fitted or chosen.

*Harmful*, where a loss on clean images, or on those of a class that is corrected, is beyond its bound for sure; *no
help*, where an artifact is not shown to be used, or more than half of its effect remains, or what is taken from images
with the artifact put on is not taken from those that carry it (outcomes.reaches_members), with a note where the effect
was below what matters before; else *clean*, with a note where the losses are not proven to be within their bounds, and
one where the artifact could be put on no other images than its carriers. See audit.cleaning.corrections.harm for the
three answers to harm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, Bounds, Harm, Loss
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Outcome, reaches_members
from klarsicht.audit.cleaning.corrections.samples import Case
from klarsicht.audit.cleaning.corrections.setting_outcomes import SettingOutcome
from klarsicht.audit.cleaning.models.training_images import UNKNOWN, ImageOrigin
from klarsicht.audit.results.logit_effect import describe_floor, is_raised, matters
from klarsicht.ground.errors import EffectRemains, HarmExceeded

BELOW: Final = "used, but by less than matters"
LEAVES: Final = 0.5  # remaining share of the artifact's effect above which a correction is no help


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
class Judgement:
    """Verdict on a correction of one artifact.

    Attributes:
        before, after: outcomes of the unchanged and of the corrected model on the same images.
        origin: whether the model was trained on these images.
        least: least effect that is worth a correction, as a factor of what matters; see `logit_effect.matters`.
        refused: judgement of the best correction, where that was not made and `after` is the unchanged model.
        shown: number of images.
    """

    before: Outcome
    after: Outcome
    bounds: Bounds
    origin: ImageOrigin = UNKNOWN
    least: float = 1.0
    refused: Judgement | None = None
    shown: int = 0
    shown_classes: ShownClasses = UNCOUNTED

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
        """Whether the artifact is used, but shown to do less than is worth a correction; never where it was inserted
        into no other images."""
        return self.is_used and not matters(self.before.effect, "high", self.least)

    @cached_property
    def harm(self) -> Harm:
        """The answer to harm, with its losses."""
        return self.after.harm_answer(self.bounds, self.origin.trained_on)

    @property
    def helps(self) -> bool:
        """Whether the artifact is used, at most LEAVES of its effect remain, and the correction reaches members."""
        return self.is_used and self.remaining <= LEAVES and self.reaches_members

    @property
    def reaches_members(self) -> bool:
        """Whether it takes from members what it takes from other images, see outcomes.reaches_members."""
        return reaches_members(self.before.rise, self.after)

    @property
    def on_members_alone(self) -> bool:
        """Whether the artifact was inserted into no other images: what is left of its effect there is not known."""
        return self.before.flips.n == 0

    @property
    def clean(self) -> bool:
        """Whether the corrected model may be called clean: it is helped, and not harmed for sure."""
        return self.helps and self.harm.answer != HARMFUL

    @property
    def no_help(self) -> str:
        """Reason why the correction is no help, in words; empty where it is one."""
        if not self.is_used:
            rise = f"it raises the class by {self.before.rise} logits" if self.before.rise.n else "nothing to see it on"
            return f"the artifact is not shown to be used: {rise}"
        if self.helps:
            return ""
        if self.is_below_least:
            told = f"the artifact is {BELOW}: {describe_effect(self.before)}"
            return f"{told}; what matters is {describe_floor(self.least)}"
        if self.refused:
            return f"the best correction {self.refused.describe_effect_left()}, and none is made"
        left = f"{self.remaining:.0%} of the artifact's effect remains"
        return left if self.remaining > LEAVES else f"it {self.describe_effect_left()}"

    def describe_effect_left(self) -> str:
        """Say in words what a correction leaves of the artifact's effect."""
        if self.remaining > LEAVES or self.reaches_members:
            return f"leaves {self.remaining:.0%} of the artifact's effect"
        taken = self.before.rise.value - self.after.rise.value
        told = f"takes {taken:.2f} logits from images that the artifact was put on"
        return f"{told}, and {self.after.member_fall} from those that carry it"

    @property
    def verdict(self) -> str:
        """The verdict in words, see the module."""
        words = describe_verdict(self.harm, f"no help ({self.no_help})" if self.no_help else "")
        return f"{words}; shown on its carriers alone" if self.clean and self.on_members_alone else words

    def check(self) -> None:
        """Check that the corrected model may be called clean.

        Raises:
            HarmExceeded: a loss is shown to be beyond its bound.
            EffectRemains: the artifact is not shown to be used, or more than half of its effect remains.
        """
        remedy = "Choose another method or layer, or a smaller --strength."
        require_harmless(self.harm, "the correction harms more than its bound allows", remedy)
        if not self.is_used:
            raise EffectRemains(
                "nothing is shown that a correction could take away", got=self.no_help,
                rule="a correction is judged by the effect that it takes away",
                remedy="Run `klarsicht audit quantify`, or name other --members.",
            )  # fmt: skip
        if not self.helps and self.is_below_least:
            raise EffectRemains(
                f"the artifact is {BELOW}", got=describe_effect(self.before),
                rule=f"what is worth a correction is {describe_floor(self.least)}, by the upper ends of the intervals",
                remedy="Leave it; or give a smaller --least-effect: 0 corrects whatever is used.",
            )  # fmt: skip
        if self.refused:
            raise EffectRemains(
                "no correction helps, so the model is left as it is", got=self.no_help,
                rule=f"at most {LEAVES:.0%} of the effect may remain",
                remedy="Name a --method, which is saved whatever it does, or try --train.",
            )  # fmt: skip
        if not self.helps:
            raise EffectRemains(
                "the correction does not help", got=self.no_help, rule="such a model is not called clean",
                remedy="Choose another method or layer, or train again.",
            )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return verdict and reasons as JSON values."""
        return {
            "verdict": self.verdict,
            "clean": self.clean,
            "remaining": self.remaining,
            "reaches members": self.reaches_members,
            "artifact used": self.is_used,
            "below the least effect": self.is_below_least,
            "members alone": self.on_members_alone,
            "harm answer": self.harm.to_json(),
            "images": self.origin.to_json(),
            "refused": self.refused.to_json() | {"after": self.refused.after.to_json()} if self.refused else None,
        }


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
class JointJudgement:
    """Verdict on corrections of several classes together.

    Attributes:
        lost: loss on clean images of all classes' draws together, each image once.
        left_out: (class, reason) of those for which no correction could be fitted.
        orders: outcomes of the orders that were tried; empty where the order does not matter.
    """

    classes: tuple[ClassJudgement, ...]
    lost: Loss
    left_out: tuple[tuple[str, str], ...] = ()
    orders: tuple[OrderOutcome, ...] = ()

    @property
    def shown_classes(self) -> ShownClasses:
        """Number of classes of which there are clean images, which carry the artifact of none."""
        return self.classes[-1].together.shown_classes

    @cached_property
    def harm(self) -> Harm:
        """The answer to harm: on clean images, and on those of each class."""
        own = ((f"clean images of {one.name}", one.together.harm.losses[1]) for one in self.classes)
        return Harm((self.lost, *(replace(loss, kind=kind, trained_on=self.lost.trained_on) for kind, loss in own)))

    @property
    def no_help(self) -> str:
        """The classes that are not helped, and why, in words; empty where all are."""
        reasons = [(one.name, one.together.no_help) for one in self.classes if one.together.no_help]
        return "; ".join(f"{name}: {why}" for name, why in (*reasons, *self.left_out))

    @property
    def clean(self) -> bool:
        """Whether the corrected model may be called clean."""
        return self.harm.answer != HARMFUL and not self.no_help

    @property
    def verdict(self) -> str:
        """The verdict in words, see the module."""
        return describe_verdict(self.harm, f"no help for {self.no_help}" if self.no_help else "")

    def check(self) -> None:
        """Check that the corrected model may be called clean.

        Raises:
            HarmExceeded: a loss is shown to be beyond its bound.
            EffectRemains: an artifact is not shown to be used, or more than half of its effect remains.
        """
        remedy = "Name the classes whose corrections do not harm, each by --class."
        require_harmless(self.harm, "the corrections together harm more than a bound allows", remedy)
        if self.no_help:
            raise EffectRemains(
                "the corrections do not help all classes", got=self.no_help,
                rule="at most half of the effect of each artifact may remain",
                remedy="Name the others, each by --class; or clean these by another --method or --layer.",
            )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return verdict, answer to harm, classes and orders as JSON values."""
        return {
            "verdict": self.verdict,
            "clean": self.clean,
            "harm answer": self.harm.to_json(),
            "clean images": self.shown_classes.to_json(),
            "left out": [list(one) for one in self.left_out],
            "classes": [one.to_json() for one in self.classes],
            "orders": [one.to_json() for one in self.orders],
        }


def describe_effect(before: Outcome) -> str:
    """Say in words what an artifact does to an unchanged model, with 95 % intervals."""
    told, turned = f"it raises the class by {before.rise} logits", before.turned
    if not turned.n:
        return told
    ends = f"{100 * turned.value:z.1f} % ({100 * turned.low:z.1f} to {100 * turned.high:z.1f})"
    return f"{told} and turns {ends} of other images into it"


def describe_verdict(harm: Harm, no_help: str) -> str:
    """Say in words what a correction, or several together, may be called.

    Args:
        harm: all losses; harm for sure comes first.
        no_help: why nothing, or not everything, is helped; empty where all is.
    """
    if harm.answer == HARMFUL:
        return f"{HARMFUL} ({harm.reasons})"
    if no_help:
        return no_help
    return "clean" if harm.answer == HARMLESS else f"clean, but {harm.answer} ({harm.reasons})"


def require_harmless(harm: Harm, what: str, remedy: str) -> None:
    """Raise HarmExceeded where a loss is shown to be beyond its bound; `what` says in words what harms."""
    if harm.answer == HARMFUL:
        raise HarmExceeded(what, got=harm.reasons, rule="such a model is not called clean", remedy=remedy)
