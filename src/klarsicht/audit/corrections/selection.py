"""Choose layer, number of directions and strength of a correction on the part `choose`, under a bound on harm.

Among the settings whose losses on clean images are within the bounds, the one with the least remaining effect of the
artifact is chosen. Where two agree in the remaining effect to one twentieth and in the loss to half a point, the one
with fewer directions is chosen. With few images one twentieth is below the sampling error; the tolerance is then one
standard error (the rule of Breiman et al. 1984 for pruning), since otherwise chance would choose. Where no setting is
within the bounds, the least harmful one is chosen: the evaluation then does not call the model clean.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from klarsicht.audit.corrections.activations import Correction
from klarsicht.audit.corrections.closed_form import CorrectionMethod, CorrectionParameters, FittingData
from klarsicht.audit.corrections.harm import Bounds
from klarsicht.audit.corrections.outcomes import CorrectionTest, Logits, Outcome
from klarsicht.ground.errors import InputError
from klarsicht.ground.progress import track

ALIKE: Final = 0.05  # share of the effect before: least difference between settings, however many the images
MIN_LOSS_DIFFERENCE: Final = 0.005  # share of clean images: least difference of losses between settings


@dataclass(frozen=True)
class Grid:
    """Grid of settings: every layer with every number of directions and every strength.

    Attributes:
        layers: names of layers; empty: those of `FittingData.layers`.
        directions: numbers of directions.
        strengths: strengths.
    """

    layers: tuple[str, ...] = ()
    directions: tuple[int, ...] = (1, 2, 4, 8)
    strengths: tuple[float, ...] = (1.0, 0.75, 0.5)

    def settings_at(self, layer: str, sweeps: Collection[str]) -> list[CorrectionParameters]:
        """List the settings at a layer for a method that sweeps these parameters; the others keep their first value."""
        directions = self.directions if "directions" in sweeps else self.directions[:1]
        strengths = self.strengths if "strength" in sweeps else self.strengths[:1]
        return [CorrectionParameters(layer, k, s) for k, s in product(directions, strengths)]


@dataclass(frozen=True)
class SettingOutcome:
    """Outcome of one setting on the part `choose`.

    Attributes:
        setting: the parameters.
        remaining: share of the artifact's effect on the class's log-odds, see CorrectionTest.remaining_effect.
        error: its standard error.
        lost: loss beyond the bound, a share, the larger of overall and class; negative within the bounds.
        outcome: all figures.
    """

    setting: CorrectionParameters
    remaining: float
    error: float
    lost: float
    outcome: Outcome

    @property
    def within_bounds(self) -> bool:
        """Whether both losses are within their bounds."""
        return self.lost <= 1e-12

    def sort_key(self, alike: float) -> tuple[float, ...]:
        """Return the key by which settings are sorted, better ones first.

        Args:
            alike: difference of the remaining share up to which settings count as equal.
        """
        if not self.within_bounds:
            return (1, self.lost)
        leaves, loses = round(self.remaining / alike), round(self.lost / MIN_LOSS_DIFFERENCE)
        return (0, leaves, loses, self.setting.directions, self.lost, self.remaining)

    def to_json(self) -> dict[str, Any]:
        figures = {"remaining": self.remaining, "within the bounds": self.within_bounds}
        return self.setting.to_json() | figures | {"harm": self.outcome.harm.value, "flips": self.outcome.flips.value}


@dataclass(frozen=True)
class Choice:
    """Chosen correction, its outcome, and the outcomes of all tried settings."""

    correction: Correction
    chosen: SettingOutcome
    tried: tuple[SettingOutcome, ...]

    @property
    def tolerance(self) -> float:
        """Difference of the remaining share up to which settings count as equal.

        It is the standard error of the setting with the least remaining effect, and at least ALIKE.
        """
        return effect_tolerance(self.tried)

    @property
    def best_settings(self) -> tuple[SettingOutcome, ...]:
        """Best strength for each layer and number of directions."""
        found: dict[tuple[str, int], SettingOutcome] = {}
        for one in sorted(self.tried, key=lambda one: one.sort_key(self.tolerance), reverse=True):
            found[one.setting.layer, one.setting.directions] = one
        return tuple(one for one in self.tried if one in found.values())

    def to_json(self) -> dict[str, Any]:
        return {"chosen": self.chosen.setting.to_json(), "tried": [one.to_json() for one in self.tried]}


def choose(
    method: CorrectionMethod, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid | None = None
) -> Choice:
    """Try every layer with every number of directions and every strength, and choose one.

    Args:
        method: the correction method.
        data: what it is fitted on.
        test: what it is chosen on.
        bounds: largest permitted losses.
        grid: settings to try; by default the whole grid.

    Raises:
        InputError: the artifact cannot be found at any layer.
    """
    grid = grid or Grid()
    found: list[tuple[SettingOutcome, Correction]] = []
    refusals: list[InputError] = []
    layers = (grid.layers or data.layers) if "layer" in method.sweeps else ("",)
    for layer in track(layers, len(layers), "layers"):
        made: dict[CorrectionParameters, Correction] = {}
        for setting in grid.settings_at(layer, method.sweeps):
            try:
                made[setting] = method.make(data, setting)
            except InputError as error:  # at this layer members do not differ, or directions run out
                refusals.append(error)
        answers = test.compute_logits_jointly(list(made.values()))
        found += [
            (evaluate_setting(test, setting, answer, bounds), correction)
            for (setting, correction), answer in zip(made.items(), answers, strict=True)
        ]
    if not found:
        raise refusals[-1]
    tried = tuple(one for one, _ in found)
    chosen, correction = min(found, key=lambda one: one[0].sort_key(effect_tolerance(tried)))
    return Choice(correction, chosen, tried)


def effect_tolerance(tried: Collection[SettingOutcome]) -> float:
    """Compute the tolerance, see Choice.tolerance."""
    least = min((one for one in tried if one.within_bounds), key=lambda one: one.remaining, default=None)
    return ALIKE if least is None else max(ALIKE, least.error)


def evaluate_setting(
    test: CorrectionTest, setting: CorrectionParameters, found: Logits, bounds: Bounds
) -> SettingOutcome:
    """Evaluate remaining effect and loss of a setting from its logits."""
    effect = test.evaluate_logits(found)
    over = [
        lost.value - bound
        for lost, bound in ((effect.harm, bounds.overall), (effect.harm_affected, bounds.affected))
        if lost.n
    ]
    return SettingOutcome(setting, *test.remaining_effect(found), max(over, default=0.0), effect)
