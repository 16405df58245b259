"""Record settings of a correction, and the outcome of each on the part `choose`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters, JointCorrection
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Gain, Logits, Outcome, reaches_members
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Z95, Interval


@dataclass(frozen=True)
class Grid:
    """Grid of settings: every layer (empty: those of `FittingData.layers`) with every number of directions and every
    strength."""

    layers: tuple[str, ...] = ()
    directions: tuple[int, ...] = (1, 2, 4, 8)
    strengths: tuple[float, ...] = (1.0, 0.75, 0.5)

    @property
    def coarse(self) -> Grid:
        """Every second number of directions and strength, the first included."""
        return Grid(self.layers, self.directions[::2], self.strengths[::2])

    def settings_at(self, layer: str, sweeps: Collection[str]) -> list[CorrectionParameters]:
        """List the settings at a layer for a method that sweeps these parameters; the others keep their first value."""
        directions = self.directions if "directions" in sweeps else self.directions[:1]
        strengths = self.strengths if "strength" in sweeps else self.strengths[:1]
        return [CorrectionParameters(layer, k, s) for k, s in product(directions, strengths)]


@dataclass(frozen=True)
class SettingOutcome:
    """Tried setting: its correction, and gain and loss of that on the part `choose`.

    Attributes:
        method: name of the correction.
        gained: share of the artifact's effect that is taken away, see outcomes.Gain.
        lost: largest loss of accuracy beyond its bound, in shares of images; a gain of accuracy counts as no loss.
        outcome: all figures.
        beside: settings at other layers, on which this one was fitted and with which it is applied.
        fall: mean fall of the right label's probability on clean images.
        gain: the same gain image by image, by which two settings are compared; None: by `gained` alone.
        losses: what is lost on many clean images, where that was measured.
        beyond: whether that is shown to be above a bound.
        reaches_members: see outcomes.reaches_members.
    """

    method: str
    setting: CorrectionParameters
    gained: Interval
    lost: float
    outcome: Outcome
    beside: tuple[SettingOutcome, ...] = ()
    fall: Interval = NO_INTERVAL
    gain: Gain | None = field(default=None, compare=False, repr=False)
    losses: CleanLosses | None = None
    beyond: bool = False
    reaches_members: bool = True
    correction: Correction = field(default=JointCorrection(), compare=False, repr=False)

    @property
    def parts(self) -> tuple[SettingOutcome, ...]:
        """The settings that are applied together, in the order in which they were fitted."""
        return (*self.beside, replace(self, beside=()))

    @property
    def directions(self) -> int:
        """Number of directions that are erased, at all layers together."""
        return sum(one.setting.directions for one in self.parts)

    @property
    def remaining(self) -> float:
        """Share of the artifact's effect that is left."""
        return 1 - self.gained.value

    @property
    def error(self) -> float:
        """Standard error of the gain."""
        return (self.gained.high - self.gained.low) / (2 * Z95)

    @property
    def within_bounds(self) -> bool:
        """Whether both losses are within their bounds."""
        return self.lost <= 1e-12

    def __str__(self) -> str:
        if self.beside:
            return " and ".join(map(str, self.parts))
        at = f" at {self.setting.layer}" if self.setting.layer else ""
        several = "" if self.setting.directions == 1 else "s"
        return f"{self.method}{at}, {self.setting.directions} direction{several}, strength {self.setting.strength:g}"

    def to_json(self) -> dict[str, Any]:
        gained = {"gained": self.gained.value, "gained at least": self.gained.low}
        figures = {"remaining": self.remaining, **gained, "within the bounds": self.within_bounds}
        figures |= {"reaches members": self.reaches_members}
        known = {"harm": self.outcome.harm.value, "flips": self.outcome.flips.value}
        told = {"method": self.method} | asdict(self.setting) | figures | known
        told |= {"losses": self.losses.to_json()} if self.losses else {}
        return told | ({"beside": settings_json(self.beside)} if self.beside else {})


def settings_json(some: Sequence[SettingOutcome]) -> list[dict[str, Any]]:
    """Return method and parameters of each setting as JSON values."""
    return [{"method": one.method} | asdict(one.setting) for one in some]


def evaluate_setting(
    test: CorrectionTest, method: str, setting: CorrectionParameters, correction: Correction, found: Logits,
    bounds: Bounds,
) -> SettingOutcome:  # fmt: skip
    """Evaluate gain and loss of a correction from its logits."""
    effect = test.evaluate_logits(found)
    losses = ((effect.harm, bounds.overall), (effect.harm_affected, bounds.affected))
    over = [max(lost.value, 0.0) - bound for lost, bound in losses if lost.n]
    gain, reaches = test.gain(found), reaches_members(test.rise(test.before), effect)
    return SettingOutcome(
        method, setting, gain.share, max(over, default=0.0), effect, fall=test.fall(found), gain=gain,
        reaches_members=reaches, correction=correction,
    )  # fmt: skip
