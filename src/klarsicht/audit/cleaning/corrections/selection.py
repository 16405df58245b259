"""Choose one of the tried settings of a correction, under a bound on harm.

Of the settings whose losses on clean images are within the bounds, the one of largest gain is chosen, by the lower end
of its 95 % interval. Losses are that in the mean over classes, that of the class, and any of another class that is
shown (class_recalls). Where a setting beyond a bound may shift the threshold, because classes are unequal or a shift is
shown, the threshold is set back first (thresholds). Among settings as high but for the standard error of the best one,
and at least for ALIKE, chance would choose (Breiman et al. 1984): there the one that loses less is taken, by whole
MIN_LOSS_DIFFERENCE, then that at fewer layers, with fewer directions, of the simpler method. Settings that do not
reach members (`outcomes.reaches_members`) come only where none does. Where none is within the bounds, the least harmful
one is chosen, which is not called clean.

With many clean images (`choose_least_loss`) at most FINALISTS of the settings whose gain is as good as that of the best
are compared on these, by the fall of the right label's probability. A setting gives way whose loss, or fall, is shown
to be above a bound; where all finalists are, settings that gain less are compared likewise, in at most FINAL_ROUNDS
rounds.

An artifact that does less than matters is worth only a correction that costs nothing (`choose_free`): of settings that
take away FREE_GAIN of the effect, and change hardly an answer on the part `choose`, those of largest gain are measured
on the many clean images, and one that costs nothing there (CleanLosses.is_free) is taken as above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clean_losses import FREE_FALL, LAST, CleanDraw, CleanLosses
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters, JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Gain, Logits, Outcome, reaches_members
from klarsicht.audit.cleaning.corrections.thresholds import add_bias
from klarsicht.audit.results.correction_words import describe_lost
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Z95, Interval

ALIKE: Final = 0.05  # share of the effect before: least difference between settings, however many the images
MIN_LOSS_DIFFERENCE: Final = 0.005  # share of clean images: least difference of losses between settings
MIN_FALL_DIFFERENCE: Final = 0.0025  # of the right label's probability: least difference on many images
FINALISTS: Final = 8  # settings that are compared on many clean images
FREE_GAIN: Final = 0.5  # of the effect, taken away for sure: least gain by a correction that is made because it is free
FINAL_ROUNDS: Final = 3  # of finalists, where all of one are shown to lose more than a bound
UNCHANGED: Final = "nothing"  # method that leaves the model unchanged


@dataclass(frozen=True)
class SettingOutcome:
    """Tried setting: its correction, and gain and loss of that on the part `choose`.

    Attributes:
        gained: share of the artifact's effect that is taken away, see outcomes.Gain.
        lost: largest loss of accuracy beyond its bound, in shares of images; a gain of accuracy counts as no loss.
        beside: settings at other layers, on which this one was fitted and with which it is applied.
        fall: mean fall of the right label's probability on clean images.
        gain: the same gain image by image, by which two settings are compared; None: by `gained` alone.
        losses, beyond: losses on many clean images, where measured, and whether one is shown to be above a bound.
        bias: added to the output of the class, to set its threshold back.
        with_bias: the setting with such a bias, where it shifts the threshold and loses less with it; else None.
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
    bias: float = 0.0
    with_bias: SettingOutcome | None = field(default=None, compare=False, repr=False)

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
        bias = f", its threshold set back by {self.bias:+.2f} logits" if self.bias else ""
        strength = f"strength {self.setting.strength:g}{bias}"
        return f"{self.method}{at}, {self.setting.directions} direction{several}, {strength}"

    def to_json(self) -> dict[str, Any]:
        gained = {"gained": self.gained.value, "gained at least": self.gained.low}
        figures = {"remaining": self.remaining, **gained, "within the bounds": self.within_bounds}
        figures |= {"reaches members": self.reaches_members}
        known = {"harm": self.outcome.harm.value, "flips": self.outcome.flips.value}
        told = {"method": self.method} | asdict(self.setting) | figures | known
        told |= {"losses": self.losses.to_json()} if self.losses else {}
        told |= {"bias": self.bias} if self.bias else {}
        return told | ({"beside": settings_json(self.beside)} if self.beside else {})


def settings_json(some: Sequence[SettingOutcome]) -> list[dict[str, Any]]:
    """Return method and parameters of each setting as JSON values."""
    return [{"method": one.method} | asdict(one.setting) for one in some]


def evaluate_setting(
    test: CorrectionTest, method: str, setting: CorrectionParameters, correction: Correction, found: Logits,
    bounds: Bounds,
) -> SettingOutcome:  # fmt: skip
    """Evaluate gain and loss of a correction from its logits, and with its threshold set back where it shifts that."""
    effect = test.evaluate_logits(found)
    affected = effect.harm_affected.value if effect.harm_affected.n else None
    losses = ((test.balanced_loss(found), bounds.overall), (affected, bounds.affected))
    over = [max(lost, 0.0) - bound for lost, bound in losses if lost is not None]
    over += [loss.measured.low - loss.bound for loss in effect.recalls.harm(bounds.affected)]
    gain, reaches = test.gain(found), reaches_members(test.rise(test.before), effect)
    one = SettingOutcome(
        method, setting, gain.share, max(over, default=0.0), effect, fall=test.fall(found), gain=gain,
        reaches_members=reaches, correction=correction,
    )  # fmt: skip
    is_layer = isinstance(correction, LayerCorrection | JointCorrection)
    may_shift = bool(test.class_weights) or effect.recalls.is_shift(bounds.affected)  # small classes hardly show one
    if one.within_bounds or not is_layer or not may_shift:
        return one
    return replace(one, with_bias=set_threshold_back(test, one, found, bounds))


def set_threshold_back(
    test: CorrectionTest, one: SettingOutcome, logits: Logits, bounds: Bounds
) -> SettingOutcome | None:
    """Set the threshold of a setting back by a bias of the class; None where that loses no less, or no layer can add
    it."""
    bias, before = test.fit_bias(logits), one.correction
    change = add_bias(test.classifier, test.target, test.plain.shape[1], bias) if bias else None
    if change is None:
        return None
    parts = before.parts if isinstance(before, JointCorrection) else (before,)
    correction = JointCorrection((*(part for part in parts if isinstance(part, LayerCorrection)), change))
    again = evaluate_setting(test, one.method, one.setting, correction, test.add_bias(logits, bias), bounds)
    return replace(again, bias=bias, beside=one.beside, with_bias=None) if again.lost < one.lost else None


@dataclass(frozen=True)
class Choice:
    """Chosen setting, and all that were tried; with the reason in words why nothing was tried (`untried`), or why the
    model is left as it is (`left`), else empty; `free`: it was chosen because it costs nothing."""

    chosen: SettingOutcome
    tried: tuple[SettingOutcome, ...]
    untried: str = ""
    left: str = ""
    free: bool = False

    @property
    def correction(self) -> Correction:
        """The chosen correction."""
        return self.chosen.correction

    @property
    def best_settings(self) -> tuple[SettingOutcome, ...]:
        """Best strength for each method, layer and number of directions."""
        return self._best_of(lambda one: (one.method, one.setting.layer, one.directions, len(one.parts)))

    @property
    def best_of_methods(self) -> tuple[SettingOutcome, ...]:
        """Best setting of each method at one layer, and the best at two and at three layers."""
        return self._best_of(lambda one: len(one.parts) if one.beside else one.method)

    def _best_of(self, group: Any) -> tuple[SettingOutcome, ...]:
        grouped: dict[Any, list[SettingOutcome]] = {}
        for one in self.tried:
            grouped.setdefault(group(one), []).append(one)
        best = [self.chosen if self.chosen in some else find_best(some) for some in grouped.values()]
        return tuple(one for one in self.tried if any(one is known for known in best))

    @property
    def reason(self) -> str:
        """Reason for the choice of the setting, in words."""
        if self.untried:
            return f"{self.untried}, so no correction was tried"
        if self.left:
            return f"{self.left}, so the model is left as it is"
        within = [one for one in self.tried if one.within_bounds]
        count = f"{len(within)} of {len(self.tried)} tried settings are within the bounds"
        if not within:
            return f"{count}; the least harmful one is taken"
        if missing := sum(not one.reaches_members for one in within):
            count += f", {missing} of them hardly change the images with the artifact"
        top = max(prefer_reaching(within), key=lambda one: one.gained.low)
        if top.gained.low <= 0:
            return f"{count}; none of them is shown to take any of the effect away"
        gain = f"{count}; this one takes away at least {100 * self.chosen.gained.low:.0f} % of the effect"
        most = "" if top is self.chosen else f" (the most is {100 * top.gained.low:.0f} % by {top})"
        if not self.chosen.losses:
            return gain + (
                f"{most}, as much as any but for chance, and loses less or is simpler" if most else ", the most"
            )
        lost, compared = self.chosen.losses.overall, [one for one in self.tried if one.losses]
        if self.free:
            changed = f"{lost.changed} of {lost.n:,} right answers changed"
            return f"{gain} and costs nothing ({changed}; {len(compared)} settings compared)"
        points = describe_lost(lost.value, lost.low, lost.high)
        others = "another" if len(compared) == 2 else f"{len(compared) - 1} others"
        gain += f"{most}; compared with {others} on up to {lost.n:,} clean images, it {points}"
        beyond = sum(one.beyond for one in compared if one is not self.chosen)
        return gain + (f"; {beyond} of the others are shown to lose more than a bound" if beyond else "")

    def to_json(self) -> dict[str, Any]:
        (chosen,) = settings_json((self.chosen,))
        chosen |= {"bias": self.chosen.bias} if self.chosen.bias else {}
        chosen |= {"beside": settings_json(self.chosen.beside)} if self.chosen.beside else {}
        return {"chosen": chosen, "reason": self.reason, "tried": [one.to_json() for one in self.tried]}


def leave_unchanged(test: CorrectionTest, bounds: Bounds, why: str, tried: Sequence[SettingOutcome] = ()) -> Choice:
    """Choose no correction, for a reason in words, although some settings were `tried`; the test says what the
    unchanged model does."""
    outcome = evaluate_setting(test, UNCHANGED, CorrectionParameters(), JointCorrection(), test.before, bounds)
    untried, left = ("", why) if tried else (why, "")
    return Choice(outcome, (*tried, outcome), untried, left)


def choose_best(found: Sequence[SettingOutcome]) -> Choice:
    """Choose one of the tried settings, see the module; of equal ones the first."""
    return Choice(find_best(found), tuple(found))


def choose_least_loss(found: Sequence[SettingOutcome], draw: CleanDraw | None, bounds: Bounds) -> Choice:
    """Choose one of the tried settings by its losses on many clean images that nothing was fitted on, see the module;
    without such images, by the part `choose` alone."""
    if draw is None or not len(draw) or len(found) == 1:
        return choose_best(found)
    left = [one for one in leave_out_harmful(found, bounds) if one.reaches_members]
    left = left or leave_out_harmful(found, bounds)
    compared: dict[int, SettingOutcome] = {}
    last: list[SettingOutcome] = []  # of each round, compared on all images
    for _ in range(FINAL_ROUNDS):
        finalists = find_finalists(left)
        now = compare_losses(finalists, draw, bounds)
        most = max(one.losses.overall.n for one in now if one.losses)
        last += [one for one in now if one.losses and one.losses.overall.n == most]
        compared |= {id(old): new for old, new in zip(finalists, now, strict=True)}
        left = [one for one in left if id(one) not in compared]
        if not left or not all(one.beyond for one in last):
            break
    best = min(
        [one for one in last if not one.beyond] or last,
        key=lambda one: (round(one.losses.price / MIN_FALL_DIFFERENCE) if one.losses else 0, *rank_simple(one, found)),
    )
    return Choice(best, tuple(compared.get(id(one), one) for one in found))


def choose_free(
    found: Sequence[SettingOutcome], draw: CleanDraw, bounds: Bounds
) -> tuple[Choice | None, list[SettingOutcome]]:
    """Choose among the settings that cost nothing on many clean images, see the module: the choice, None where no
    setting is free, and all tried settings, with their losses."""
    gaining = [
        one for one in found if one.gained.low >= FREE_GAIN and one.reaches_members and is_nearly_free(one, bounds)
    ]
    finalists = sorted(gaining, key=lambda one: -one.gained.low)[:FINALISTS]
    now = compare_losses(finalists, draw, bounds, last=FINALISTS)
    compared = {id(old): new for old, new in zip(finalists, now, strict=True)}
    tried = [compared.get(id(one), one) for one in found]
    free = [one for one in now if one.losses and one.losses.is_free(bounds)]
    return Choice(find_best(free), tuple(tried), free=True) if free else None, tried


def compare_losses(
    some: Sequence[SettingOutcome], draw: CleanDraw, bounds: Bounds, last: int = LAST
) -> list[SettingOutcome]:
    """Return settings with what they lose on many clean images, see `CleanDraw.compare`."""
    losses = draw.compare([one.correction for one in some], last=last)
    return [replace(one, losses=lost, beyond=lost.is_beyond(bounds)) for one, lost in zip(some, losses, strict=True)]


def is_nearly_free(one: SettingOutcome, bounds: Bounds) -> bool:
    """Test whether a setting seems to cost nothing on the part `choose`: the share of right answers that change, either
    way, is within the bound, and the mean fall within FREE_FALL."""
    harm = one.outcome.harm
    return one.within_bounds and harm.changed <= bounds.overall * harm.n and not one.fall.value > FREE_FALL


def leave_out_harmful(found: Sequence[SettingOutcome], bounds: Bounds) -> list[SettingOutcome]:
    """Leave out settings that are beyond a bound on the part `choose`, and those whose fall is shown to be above it;
    where that leaves none, keep those that lose least."""
    within = [one for one in found if one.within_bounds]
    if not within:
        fewest = min(one.lost for one in found)
        within = [one for one in found if one.lost < fewest + MIN_LOSS_DIFFERENCE]
    return [one for one in within if not one.fall.low > bounds.overall] or within


def find_finalists(found: Sequence[SettingOutcome]) -> list[SettingOutcome]:
    """Find the settings whose gain is as good as that of the best; of more than FINALISTS those by which the right
    label's probability falls least on the part `choose`."""
    top = max(found, key=lambda one: one.gained.low)
    return sorted((one for one in found if is_alike(one, top)), key=lambda one: one.fall.value)[:FINALISTS]


def is_alike(one: SettingOutcome, top: SettingOutcome) -> bool:
    """Test whether a gain is as high as the best one but for chance: its lower end, and on the same images its value,
    by at most the standard error less, or by at most ALIKE."""
    if one.gained.low < top.gained.low - max(ALIKE, top.error):
        return False
    if one.gain is None or top.gain is None:
        return True
    behind = one.gain.behind(top.gain)
    return not behind.n or behind.value <= max(ALIKE, (behind.high - behind.low) / (2 * Z95))


def find_best(tried: Sequence[SettingOutcome]) -> SettingOutcome:
    """Find the setting to choose, see the module."""
    within = prefer_reaching([one for one in tried if one.within_bounds])
    if not within:
        return min(tried, key=lambda one: one.lost)
    top = max(within, key=lambda one: one.gained.low)
    alike = [one for one in within if one.gained.low >= top.gained.low - max(ALIKE, top.error)]
    return min(alike, key=lambda one: (round(one.lost / MIN_LOSS_DIFFERENCE), *rank_simple(one, tried)))


def rank_simple(one: SettingOutcome, tried: Sequence[SettingOutcome]) -> tuple[float, ...]:
    """Rank a setting among those that lose alike: fewer layers, fewer directions, the method that was tried earlier,
    the larger gain."""
    names = list(dict.fromkeys(other.method for other in tried))
    return len(one.parts), one.directions, names.index(one.method), -one.gained.low


def prefer_reaching(tried: Sequence[SettingOutcome]) -> list[SettingOutcome]:
    """Return those of the settings that reach members, or all where none does."""
    return [one for one in tried if one.reaches_members] or list(tried)
