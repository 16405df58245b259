"""Which layer, how many directions, how strong? Swept on the part `choose`, under a bound on harm.

Of the settings whose losses on clean images stay within the bounds, the one that leaves least of the artifact's effect;
where two leave as much to a twentieth and lose as much to half a point, the one with fewer directions. Where images are
few, a twentieth cannot be told: then to one standard error (the rule of Breiman et al. 1984 for pruning), or chance
would choose. Where none stays within, the least harmful: the evaluation then refuses to call the model clean.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from klarsicht.audit.corrections.activations import Correction
from klarsicht.audit.corrections.closed_form import CorrectionMethod, CorrectionParameters, FittingData
from klarsicht.audit.corrections.outcomes import Bounds, CorrectionTest, Logits, Outcome
from klarsicht.ground.errors import InputError
from klarsicht.ground.progress import track

ALIKE: Final = 0.05  # of the effect before: settings that leave as much are alike, however many the images
POINTS: Final = 0.005  # of clean images: settings that lose as much are alike


@dataclass(frozen=True)
class Grid:
    """What is tried: every layer with every number of directions and every strength.

    Attributes:
        layers: empty: those that the bench finds worth it.
    """

    layers: tuple[str, ...] = ()
    directions: tuple[int, ...] = (1, 2, 4, 8)
    strengths: tuple[float, ...] = (1.0, 0.75, 0.5)

    def at(self, layer: str, sweeps: Collection[str]) -> list[CorrectionParameters]:
        """The settings at a layer of a correction that sweeps these fields; the others stay at their first."""
        directions = self.directions if "directions" in sweeps else self.directions[:1]
        strengths = self.strengths if "strength" in sweeps else self.strengths[:1]
        return [CorrectionParameters(layer, k, s) for k, s in product(directions, strengths)]


@dataclass(frozen=True)
class Tried:
    """One setting on the part `choose`.

    Attributes:
        remaining: of the artifact's effect on the class's log-odds, see Trial.left; error: its standard error.
        lost: points over the bound, the larger of overall and class; negative within it.
    """

    setting: CorrectionParameters
    remaining: float
    error: float
    lost: float
    effect: Outcome

    @property
    def within(self) -> bool:
        """The bounds."""
        return self.lost <= 1e-12

    def order(self, alike: float) -> tuple[float, ...]:
        """Better ones first.

        Args:
            alike: of the effect before: settings that leave as much are alike.
        """
        if not self.within:
            return (1, self.lost)
        leaves, loses = round(self.remaining / alike), round(self.lost / POINTS)
        return (0, leaves, loses, self.setting.directions, self.lost, self.remaining)

    def to_json(self) -> dict[str, Any]:
        figures = {"remaining": self.remaining, "within the bounds": self.within}
        return self.setting.to_json() | figures | {"harm": self.effect.harm.value, "flips": self.effect.flips.value}


@dataclass(frozen=True)
class Choice:
    """The chosen correction, and what else was tried."""

    correction: Correction
    chosen: Tried
    tried: tuple[Tried, ...]

    @property
    def alike(self) -> float:
        """What the images can tell: of the setting that leaves least the standard error, at least ALIKE."""
        return told(self.tried)

    @property
    def best(self) -> tuple[Tried, ...]:
        """Of each layer and number of directions the best strength."""
        found: dict[tuple[str, int], Tried] = {}
        for one in sorted(self.tried, key=lambda one: one.order(self.alike), reverse=True):
            found[one.setting.layer, one.setting.directions] = one
        return tuple(one for one in self.tried if one in found.values())

    def to_json(self) -> dict[str, Any]:
        return {"chosen": self.chosen.setting.to_json(), "tried": [one.to_json() for one in self.tried]}


def choose(
    remedy: CorrectionMethod, bench: FittingData, trial: CorrectionTest, bounds: Bounds, grid: Grid | None = None
) -> Choice:
    """Tries every layer with every number of directions and every strength.

    Raises:
        InputError: no layer knows the artifact.
    """
    grid = grid or Grid()
    found: list[tuple[Tried, Correction]] = []
    refusals: list[InputError] = []
    layers = (grid.layers or bench.layers) if "layer" in remedy.sweeps else ("",)
    for layer in track(layers, len(layers), "layers"):
        made: dict[CorrectionParameters, Correction] = {}
        for setting in grid.at(layer, remedy.sweeps):
            try:
                made[setting] = remedy.make(bench, setting)
            except InputError as error:  # at this layer members do not differ, or directions run out
                refusals.append(error)
        answers = trial.abreast(list(made.values()))
        found += [
            (judged(trial, setting, answer, bounds), correction)
            for (setting, correction), answer in zip(made.items(), answers, strict=True)
        ]
    if not found:
        raise refusals[-1]
    tried = tuple(one for one, _ in found)
    chosen, correction = min(found, key=lambda one: one[0].order(told(tried)))
    return Choice(correction, chosen, tried)


def told(tried: Collection[Tried]) -> float:
    """See Choice.alike."""
    least = min((one for one in tried if one.within), key=lambda one: one.remaining, default=None)
    return ALIKE if least is None else max(ALIKE, least.error)


def judged(trial: CorrectionTest, setting: CorrectionParameters, found: Logits, bounds: Bounds) -> Tried:
    """What a setting leaves of the artifact and costs."""
    effect = trial.judged(found)
    over = [
        lost.value - bound
        for lost, bound in ((effect.harm, bounds.overall), (effect.harm_affected, bounds.affected))
        if lost.n
    ]
    return Tried(setting, *trial.left(found), max(over, default=0.0), effect)
