"""Choose one of the tried settings of a correction, under a bound on harm.

Of the settings whose losses on clean images are within the bounds, that one is chosen whose gain is the largest for
sure: by the lower end of the 95 % interval of the share of the artifact's effect that it takes away, in log-odds and in
probability, whichever is less. Among settings whose lower ends are as high but for the standard error of the best one,
and at least for ALIKE, chance would choose (Breiman et al. 1984 prune by the same rule): there the one that loses less
is taken, by whole half points, then that with fewer directions, then that of the simpler method. Settings that do not
take from members what they take from images with the artifact put on (`outcomes.reaches_members`) come only where none
does. Where no setting is within the bounds, the least harmful one is chosen: it is then not called clean.

A part `choose` of some hundred images knows a loss to a point or two, and of hundreds of settings those look harmless
that are so by chance. With many clean images (`choose_least_loss`) at most FINALISTS of the settings within the bounds,
whose gain is as good as that of the best (the standard error of the difference on the same images), are compared on
these, by the fall of the right label's probability: of single answers few change, and one way or the other by chance.
A setting gives way whose loss of accuracy, or fall, is shown to be above a bound: those whose fall is so on the part
`choose` are left out before, and where all finalists are, settings that gain less are compared likewise, in at most
FINAL_ROUNDS rounds. Of falls alike by whole MIN_FALL_DIFFERENCE the order is as above.

Where an artifact does less than matters, a correction is worth nothing but what is free (`choose_free`): of settings
that take away FREE_GAIN of the effect for sure, and change hardly an answer on the part `choose`, those of largest gain
are measured on the many clean images, and of these that cost nothing there (CleanLosses.is_free) one is taken as above:
of gains as large as the largest but for chance, that of fewest directions. Among settings
that are as good, fewer layers come before fewer directions; see corrections.setting_search for settings at several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clean_losses import FREE_FALL, CleanDraw
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters, JointCorrection
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.setting_outcomes import (
    Candidate,
    SettingOutcome,
    evaluate_setting,
    settings_json,
)
from klarsicht.numerics.statistics.intervals import Z95

ALIKE: Final = 0.05  # share of the effect before: least difference between settings, however many the images
MIN_LOSS_DIFFERENCE: Final = 0.005  # share of clean images: least difference of losses between settings
MIN_FALL_DIFFERENCE: Final = 0.0025  # of the right label's probability: least difference on many images
FINALISTS: Final = 8  # settings that are compared on many clean images
FREE_GAIN: Final = 0.5  # of the effect, taken away for sure: least gain by a correction that is made because it is free
FINAL_ROUNDS: Final = 3  # of finalists, where all of one are shown to lose more than a bound
UNCHANGED: Final = "nothing"  # method that leaves the model unchanged


@dataclass(frozen=True)
class Choice:
    """Chosen correction, its outcome, and the outcomes of all tried settings.

    Attributes:
        correction, chosen, tried: these.
        untried: why nothing was tried, in words; empty where something was.
        left: why the model is left as it is although corrections were tried, in words; else empty.
        free: whether it was chosen because it costs nothing, of an artifact that does less than matters.
    """

    correction: Correction
    chosen: SettingOutcome
    tried: tuple[SettingOutcome, ...]
    untried: str = ""
    left: str = ""
    free: bool = False

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
        told = f"{len(within)} of {len(self.tried)} settings tried are within the bounds"
        if not within:
            return f"{told}; the least harmful one is taken"
        if missing := sum(not one.reaches_members for one in within):
            told += f", {missing} of them hardly change the images that carry the artifact"
        within = prefer_reaching(within)
        top = max(within, key=lambda one: one.gained.low)
        if top.gained.low <= 0:
            return f"{told}; none of them takes away any of the effect for sure"
        gain = f"{told}; this one takes away at least {self.chosen.gained.low:.0%} of the effect"
        if self.chosen.losses:
            compared = [one for one in self.tried if one.losses]
            if self.free:
                lost = self.chosen.losses.overall
                gain += (
                    f", which is less than matters, and of {len(compared)} compared on up to {lost.n:,} clean images"
                )
                return f"{gain} it costs nothing (right answers changed: {lost.changed})"
            beyond = sum(one.beyond for one in compared if one is not self.chosen)
            gain += "" if top is self.chosen else f", the most is {top.gained.low:.0%} by {top}"
            gain += f"; of {len(compared)} compared on up to {self.chosen.losses.overall.n:,} clean images"
            lost = self.chosen.losses.overall
            gain += f" it loses least or is simpler ({100 * lost.value:z.2f} points, {100 * lost.low:z.2f} to"
            gain += f" {100 * lost.high:z.2f})"
            return gain + (f", and {beyond} lose more than a bound for sure" if beyond else "")
        if top is self.chosen:
            return f"{gain}, more than any other"
        most = f"the most is {top.gained.low:.0%} by {top}"
        return f"{gain}, as much as any but for chance ({most}), and loses less or is simpler"

    def to_json(self) -> dict[str, Any]:
        (chosen,) = settings_json((self.chosen,))
        chosen |= {"beside": settings_json(self.chosen.beside)} if self.chosen.beside else {}
        return {"chosen": chosen, "reason": self.reason, "tried": [one.to_json() for one in self.tried]}


def leave_unchanged(test: CorrectionTest, bounds: Bounds, why: str, tried: Sequence[SettingOutcome] = ()) -> Choice:
    """Choose no correction, for a reason in words: the test says what the unchanged model does.

    Args:
        tried: settings that were tried all the same.
    """
    outcome = evaluate_setting(test, UNCHANGED, CorrectionParameters(), test.before, bounds)
    untried, left = ("", why) if tried else (why, "")
    return Choice(JointCorrection(), outcome, (*tried, outcome), untried, left)


def choose_candidate(found: Sequence[Candidate]) -> Choice:
    """Choose one of the tried settings, see the module; of equal ones the first."""
    best = find_best([one.tried for one in found])
    correction = next(one.correction for one in found if one.tried is best)
    return Choice(correction, best, tuple(one.tried for one in found))


def choose_least_loss(found: Sequence[Candidate], draw: CleanDraw | None, bounds: Bounds) -> Choice:
    """Choose one of the tried settings by what it loses on many clean images, see the module; of equal ones the first.

    Args:
        draw: clean images that nothing was fitted on; None or empty: by the part `choose` alone.
    """
    if draw is None or not len(draw) or len(found) == 1:
        return choose_candidate(found)
    left = [one for one in leave_out_harmful(found, bounds) if one.tried.reaches_members]
    left = left or leave_out_harmful(found, bounds)
    compared: dict[int, Candidate] = {}
    last: list[Candidate] = []  # of each round, compared on all images
    for _ in range(FINAL_ROUNDS):
        finalists = find_finalists(left)
        losses = draw.compare([one.correction for one in finalists])
        now = [
            replace(one, tried=replace(one.tried, losses=lost, beyond=lost.is_beyond(bounds)))
            for one, lost in zip(finalists, losses, strict=True)
        ]
        most = max(lost.overall.n for lost in losses)
        last += [one for one, lost in zip(now, losses, strict=True) if lost.overall.n == most]
        compared |= {id(old): new for old, new in zip(finalists, now, strict=True)}
        left = [one for one in left if id(one) not in compared]
        if not left or not all(one.tried.beyond for one in last):
            break
    names = list(dict.fromkeys(one.tried.method for one in found))  # simpler ones first

    def price(one: Candidate) -> tuple[float, ...]:
        tried = one.tried
        steps = round(tried.losses.price / MIN_FALL_DIFFERENCE) if tried.losses else 0
        return steps, len(tried.parts), tried.directions, names.index(tried.method), -tried.gained.low

    best = min([one for one in last if not one.tried.beyond] or last, key=price)
    return Choice(best.correction, best.tried, tuple(compared.get(id(one), one).tried for one in found))


def choose_free(
    found: Sequence[Candidate], draw: CleanDraw, bounds: Bounds
) -> tuple[Choice | None, list[SettingOutcome]]:
    """Choose among the settings that cost nothing on many clean images, see the module.

    Args:
        draw: clean images that nothing was fitted on.

    Returns:
        the choice, None where no setting is free; and all tried settings, with what was measured.
    """
    gaining = [
        one
        for one in found
        if one.tried.gained.low >= FREE_GAIN and one.tried.reaches_members and is_nearly_free(one.tried, bounds)
    ]
    finalists = sorted(gaining, key=lambda one: -one.tried.gained.low)[:FINALISTS]
    losses = draw.compare([one.correction for one in finalists], last=FINALISTS)
    compared = {
        id(one): replace(one, tried=replace(one.tried, losses=lost, beyond=lost.is_beyond(bounds)))
        for one, lost in zip(finalists, losses, strict=True)
    }
    tried = [compared.get(id(one), one).tried for one in found]
    free = [one for one in compared.values() if one.tried.losses and one.tried.losses.is_free(bounds)]
    if not free:
        return None, tried
    best = choose_candidate(free)
    return replace(best, tried=tuple(tried), free=True), tried


def is_nearly_free(one: SettingOutcome, bounds: Bounds) -> bool:
    """Test whether a setting seems to cost nothing on the part `choose`: the share of right answers that change, either
    way, is within the bound, and the mean fall within FREE_FALL."""
    harm = one.outcome.harm
    return one.within_bounds and harm.changed <= bounds.overall * harm.n and not one.fall.value > FREE_FALL


def leave_out_harmful(found: Sequence[Candidate], bounds: Bounds) -> list[Candidate]:
    """Leave out settings that are beyond a bound on the part `choose`, and those whose fall is shown to be above it;
    where that leaves none, keep those that lose least."""
    within = [one for one in found if one.tried.within_bounds]
    if not within:
        fewest = min(one.tried.lost for one in found)
        within = [one for one in found if one.tried.lost < fewest + MIN_LOSS_DIFFERENCE]
    return [one for one in within if not one.tried.fall.low > bounds.overall] or within


def find_finalists(found: Sequence[Candidate]) -> list[Candidate]:
    """Find the settings whose gain is as good as that of the best; of more than FINALISTS those by which
    the right label's probability falls least on the part `choose`."""
    top = max((one.tried for one in found), key=lambda tried: tried.gained.low)
    return sorted((one for one in found if is_alike(one.tried, top)), key=lambda one: one.tried.fall.value)[:FINALISTS]


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
    least = top.gained.low - max(ALIKE, top.error)
    names = list(dict.fromkeys(one.method for one in tried))  # simpler ones first

    def price(one: SettingOutcome) -> tuple[float, ...]:
        losses = round(one.lost / MIN_LOSS_DIFFERENCE)
        return losses, len(one.parts), one.directions, names.index(one.method), -one.gained.low

    return min((one for one in within if one.gained.low >= least), key=price)


def prefer_reaching(tried: Sequence[SettingOutcome]) -> list[SettingOutcome]:
    """Return those of the settings that reach members, or all where none does."""
    return [one for one in tried if one.reaches_members] or list(tried)
