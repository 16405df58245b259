"""Judge corrections of several classes together, by figures of images on which none was fitted or chosen.

*Harmful*, where a loss on clean images, or on those of one of the classes, is beyond its bound for sure; *no help*,
where one of the artifacts is not shown to be used, or more than half of its effect remains; else *clean*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, Harm, Loss
from klarsicht.audit.cleaning.corrections.setting_outcomes import SettingOutcome
from klarsicht.audit.cleaning.models.judgement import Judgement, describe_verdict
from klarsicht.audit.cleaning.models.shown_classes import UNCOUNTED, ShownClasses
from klarsicht.ground.errors import EffectRemains, HarmExceeded
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss


@dataclass(frozen=True)
class ClassJudgement:
    """Judgements on one class, on the same images.

    Attributes:
        name, target: the class and its output.
        setting: method, layer, number of directions and strength of the correction of the class, in words.
        alone: judgement on its correction alone.
        together: judgement on the corrections of all classes together.
        shown: number of images.
    """

    name: str
    target: int
    setting: str
    alone: Judgement
    together: Judgement
    shown: int

    @property
    def interference(self) -> float:
        """Share of the artifact's effect that the other corrections add to what is left, or take from it."""
        return self.together.remaining - self.alone.remaining

    def to_json(self) -> dict[str, Any]:
        """Return both judgements with their outcomes as JSON values."""
        looks = {"alone": self.alone, "together": self.together}
        return {
            "class": self.name,
            "target": self.target,
            "setting": self.setting,
            "shown on": self.shown,
            "interference": self.interference,
            "before": self.alone.before.to_json(),
            **{name: look.to_json() | {"outcome": look.after.to_json()} for name, look in looks.items()},
        }


@dataclass(frozen=True)
class OrderOutcome:
    """Outcome of corrections in one order, on images to choose on.

    Attributes:
        names: the classes, in the order in which their corrections are applied.
        gained: of the class of which least is taken away for sure: lower end of the share of the effect.
        by_class: outcome for each class, in the order of `names`.
        losses: what is lost on many clean images, where that was measured.
    """

    names: tuple[str, ...]
    gained: float
    by_class: tuple[SettingOutcome, ...]
    losses: CleanLosses | None = None

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
    """Verdict on the corrections of several classes together.

    Attributes:
        classes: one judgement for each corrected class.
        lost: loss on clean images of all classes' draws together, each image once.
        left_out: (class, reason) of those for which no correction could be fitted.
        orders: outcomes of the orders that were tried; empty where the order does not matter.
        shown_classes: number of classes of which there are clean images, beside that of the model's outputs.
        lost_elsewhere: `lost` without that class, other than the corrected ones, that loses most; NO_LOSS where none
            loses, or two others are not shown.
        most_lost: that class, in words.
    """

    classes: tuple[ClassJudgement, ...]
    lost: PairedLoss
    left_out: tuple[tuple[str, str], ...] = ()
    orders: tuple[OrderOutcome, ...] = ()
    shown_classes: ShownClasses = UNCOUNTED
    lost_elsewhere: PairedLoss = NO_LOSS
    most_lost: str = ""

    @cached_property
    def harm(self) -> Harm:
        """The answer to harm: on clean images, and on those of each class."""
        first = self.classes[0].together
        trained = any(one.together.origin.trained_on for one in self.classes)
        bound = first.bounds.overall
        overall = Loss("clean images", self.lost, bound, trained, self.lost_elsewhere, self.most_lost)
        own = (
            Loss(f"clean images of {one.name}", one.together.after.harm_affected, first.bounds.affected, trained)
            for one in self.classes
        )
        return Harm((overall, *own))

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
            HarmExceeded: a loss is beyond its bound for sure.
            EffectRemains: an artifact is not shown to be used, or more than half of its effect remains.
        """
        if self.harm.answer == HARMFUL:
            raise HarmExceeded(
                "the corrections together harm more than a bound allows", got=self.harm.reasons,
                rule="such a model is not called clean",
                remedy="Name the classes whose corrections do not harm, each by --class.",
            )  # fmt: skip
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
