"""Judge a correction by figures of images on which it was neither fitted nor chosen.

*Harmful*, where a loss on clean images is beyond its bound for sure; *no help*, where the artifact is not shown to be
used, or more than half of its effect remains, or what is taken from images with the artifact put on is not taken from
those that carry it (outcomes.reaches_members), with a note where the effect was below what matters before; else
*clean*, with a note where the losses are not proven to be within their bounds, and one where the artifact could be put
on no other images than its carriers. See audit.cleaning.corrections.harm for the three answers to harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, Bounds, Harm
from klarsicht.audit.cleaning.corrections.outcomes import Outcome, reaches_members
from klarsicht.audit.cleaning.models.training_images import UNKNOWN, ImageOrigin
from klarsicht.audit.results.logit_effect import describe_floor, is_raised, matters
from klarsicht.ground.errors import EffectRemains, HarmExceeded

BELOW: Final = "used, but by less than matters"
LEAVES: Final = 0.5  # remaining share of the artifact's effect above which a correction is no help


@dataclass(frozen=True)
class Judgement:
    """Verdict on a correction.

    Attributes:
        before, after: outcomes of the unchanged and of the corrected model on the same images.
        bounds: largest permitted losses.
        origin: whether the model was trained on these images.
        least: least effect that is worth a correction, as a factor of what matters; see `logit_effect.matters`.
        refused: judgement of the best correction, where that was not made and `after` is the unchanged model.
    """

    before: Outcome
    after: Outcome
    bounds: Bounds
    origin: ImageOrigin = UNKNOWN
    least: float = 1.0
    refused: Judgement | None = None

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
        """Whether the artifact is used, but shown to do less than is worth a correction. Never where it was put on no
        other images: what it turns there is not known, and carriers may be full of evidence."""
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
        """Whether the artifact was put on no other images: what is left of its effect there is not known."""
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
            HarmExceeded: a loss is beyond its bound for sure.
            EffectRemains: the artifact is not shown to be used, or more than half of its effect remains.
        """
        if self.harm.answer == HARMFUL:
            raise HarmExceeded(
                "the correction harms more than its bound allows", got=self.harm.reasons,
                rule="such a model is not called clean",
                remedy="Choose another method or layer, or a smaller --strength.",
            )  # fmt: skip
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
