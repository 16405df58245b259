"""Verdict on a correction by the groups of images that a shortcut divides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from klarsicht.audit.cleaning.corrections.harm import HARMFUL, Bounds, Harm, Loss
from klarsicht.audit.cleaning.models.group_accuracy import GroupComparison
from klarsicht.audit.cleaning.models.judgement import CorrectionVerdict
from klarsicht.audit.results.correction_words import CleaningKind


@dataclass(frozen=True)
class GroupJudgement(CorrectionVerdict):
    """Verdict on a correction by groups of images.

    Attributes:
        comparisons: of groups; the last decides, and others may object.
        bounds: on what may be lost.
    """

    comparisons: tuple[GroupComparison, ...]
    bounds: Bounds

    @property
    def decisive(self) -> GroupComparison:
        return self.comparisons[-1]

    @cached_property
    def harm(self) -> Harm:
        decisive = Loss(self.decisive.kind, self.decisive.loss, self.bounds.overall)
        return Harm((decisive, *(loss for _, loss in self._objections)))

    @property
    def no_help(self) -> tuple[CleaningKind, str] | None:
        return (self.decisive.failure, self.decisive.no_help) if self.decisive.no_help else None

    @property
    def effect_left(self) -> str:
        return self.decisive.effect_left

    @property
    def _objections(self) -> list[tuple[GroupComparison, Loss]]:
        """Comparisons before the last that show a loss which a shortcut does not explain, with this loss. Of few images
        no other answer counts."""
        others = [one for one in self.comparisons[:-1] if one.may_object]
        losses = [(one, Loss(one.kind, one.loss, self.bounds.overall)) for one in others]
        return [(one, loss) for one, loss in losses if loss.answer == HARMFUL]

    @property
    def advice(self) -> str:
        if self._objections:
            return self._objections[0][0].advice
        if self.kind in (CleaningKind.REMAINS, CleaningKind.UNSHOWN, CleaningKind.HARMFUL):
            return self.decisive.advice
        return self.kind.advice

    def to_json(self) -> dict[str, Any]:
        """Return verdict and comparisons as JSON values."""
        return self.words_json() | {"groups": [asdict(one) for one in self.comparisons]}
