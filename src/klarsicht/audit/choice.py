"""Which layer, how many directions, how strong? Swept on the part `choose`, under a bound on harm.

Of the settings whose losses on clean images stay within the bounds, the one that leaves least of the artifact's effect;
where two leave as much to a twentieth and lose as much to half a point, the one with fewer directions. Where none stays
within, the least harmful: the evaluation then refuses to call the model clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from klarsicht.audit.activations import Correction
from klarsicht.audit.remedies import Bench, Remedy, Setting
from klarsicht.audit.trials import Bounds, Effect, Trial
from klarsicht.ground.errors import InputError
from klarsicht.ground.progress import track

ALIKE: Final = 0.05  # of the effect before: settings that leave as much are alike
POINTS: Final = 0.005  # of clean images: settings that lose as much are alike


@dataclass(frozen=True)
class Grid:
    """What is tried; the first of each is where the sweep of the others begins.

    Attributes:
        layers: empty: those that the bench finds worth it.
    """

    layers: tuple[str, ...] = ()
    directions: tuple[int, ...] = (1, 2, 4, 8)
    strengths: tuple[float, ...] = (1.0, 0.75, 0.5)


@dataclass(frozen=True)
class Tried:
    """One setting on the part `choose`.

    Attributes:
        remaining: of the artifact's effect, |rise after| / |rise before|.
        lost: points over the bound, the larger of overall and class; negative within it.
    """

    setting: Setting
    remaining: float
    lost: float
    effect: Effect

    @property
    def order(self) -> tuple[float, ...]:
        if self.lost > 1e-12:
            return (1, self.lost)
        alike = round(self.remaining / ALIKE), round(self.lost / POINTS)
        return (0, *alike, self.setting.directions, self.lost, self.remaining)

    def to_json(self) -> dict[str, Any]:
        figures = {"remaining": self.remaining, "within the bounds": self.lost <= 1e-12}
        return self.setting.to_json() | figures | {"harm": self.effect.harm.value, "flips": self.effect.flips.value}


@dataclass(frozen=True)
class Choice:
    """The chosen correction, and what else was tried."""

    correction: Correction
    chosen: Tried
    tried: tuple[Tried, ...]

    def to_json(self) -> dict[str, Any]:
        return {"chosen": self.chosen.setting.to_json(), "tried": [one.to_json() for one in self.tried]}


def choose(remedy: Remedy, bench: Bench, trial: Trial, bounds: Bounds, grid: Grid | None = None) -> Choice:
    """Sweeps layer, then number of directions, then strength, each at the best of what came before.

    Raises:
        InputError: no layer knows the artifact.
    """
    grid = grid or Grid()
    found: dict[Setting, tuple[Tried, Correction]] = {}

    def look(settings: Sequence[Setting], what: str) -> Setting:
        for setting in track(settings, len(settings), what):
            try:
                correction = remedy.make(bench, setting)
                found[setting] = (judged(trial, setting, correction, bounds), correction)
            except InputError as error:  # at this layer members do not differ, or directions run out
                refusals.append(error)
        if not found:
            raise refusals[-1]
        return best()

    def best() -> Setting:
        return min(found, key=lambda setting: found[setting][0].order)

    refusals: list[InputError] = []
    start = Setting("", grid.directions[0], grid.strengths[0])
    layers = (grid.layers or bench.layers) if "layer" in remedy.sweeps else ("",)
    at = look([replace(start, layer=layer) for layer in layers], "layers")
    if "directions" in remedy.sweeps and grid.directions[1:]:
        at = look([replace(at, directions=k) for k in grid.directions[1:]], "directions")
    if "strength" in remedy.sweeps and grid.strengths[1:]:
        look([replace(at, strength=s) for s in grid.strengths[1:]], "strengths")
    chosen, correction = found[best()]
    return Choice(correction, chosen, tuple(tried for tried, _ in found.values()))


def judged(trial: Trial, setting: Setting, correction: Correction, bounds: Bounds) -> Tried:
    """What a setting leaves of the artifact and costs."""
    effect = trial.effect(correction)
    before = abs(trial.effect(None).rise.value)
    over = [
        found.value - bound
        for found, bound in ((effect.harm, bounds.overall), (effect.harm_affected, bounds.affected))
        if found.n
    ]
    return Tried(setting, abs(effect.rise.value) / max(before, 1e-9), max(over, default=0.0), effect)
