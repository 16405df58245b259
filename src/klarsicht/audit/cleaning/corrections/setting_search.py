"""Try settings of corrections: every method at every layer with every number of directions and every strength.

One layer may leave an effect that reaches the output another way. Then settings at further layers are tried on the
network that is corrected already, one layer at a time. Those are kept that lose no more than the correction that they
are beside: on the part `choose`, and, of the best, on many clean images by whole MIN_FALL_DIFFERENCE. Among settings
that are as good, fewer layers come before fewer directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from klarsicht.audit.cleaning.corrections import selection
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.clean_losses import CleanDraw
from klarsicht.audit.cleaning.corrections.closed_form import (
    CorrectionMethod,
    CorrectionParameters,
    FittingData,
    JointCorrection,
)
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.selection import ALIKE, MIN_FALL_DIFFERENCE, Choice
from klarsicht.audit.cleaning.corrections.setting_outcomes import Candidate, Grid, SettingOutcome, evaluate_setting
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.progress import progress

MOST_LAYERS: Final = 3  # that are corrected together for one artifact
Methods = Mapping[str, CorrectionMethod]  # by name, simpler ones first


def try_settings(
    methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid | None = None
) -> list[Candidate]:
    """Try every method at every layer with every number of directions and every strength; a method that refuses a
    setting is left out there.

    Args:
        methods: the methods, simpler ones first.
        data: what they are fitted on.
        test: what is chosen on.
        bounds: largest permitted losses.
        grid: settings to try; by default the whole grid.

    Raises:
        InputError, UsageError: all are refused.
    """
    grid = grid or Grid()
    layered = {name: method for name, method in methods.items() if "layer" in method.sweeps}
    places: list[tuple[str, Methods]] = [(layer, layered) for layer in (grid.layers or data.layers) if layered]
    at_image = {name: method for name, method in layered.items() if method.at_image}
    places += [(layer, at_image) for layer in data.first_layers if at_image and not grid.layers]
    places += [("", {name: method}) for name, method in methods.items() if name not in layered]
    found: list[Candidate] = []
    refusals: list[InputError | UsageError] = []
    data.fit_layers([layer for layer, some in places if layer and not some.keys() <= at_image.keys()])
    with progress("corrections", sum(len(some) for _, some in places)) as advance:
        for layer, some in places:
            made: list[tuple[str, CorrectionParameters, Correction]] = []
            for name, method in some.items():
                for setting in grid.settings_at(layer, method.sweeps):
                    try:
                        made.append((name, setting, method.make(data, setting)))
                    except (InputError, UsageError) as error:  # members do not differ there, or directions run out
                        refusals.append(error)
            answers = test.compute_logits_jointly([correction for *_, correction in made])
            found += [
                Candidate(evaluate_setting(test, name, setting, answer, bounds), correction)
                for (name, setting, correction), answer in zip(made, answers, strict=True)
            ]
            advance(len(some))
    if not found:
        raise refusals[-1]
    return found


def try_further_layers(
    found: Sequence[Candidate], methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid,
    draw: CleanDraw | None = None,
) -> list[Candidate]:  # fmt: skip
    """Try settings at a second layer beside the best erasure at one, then at a third; stop where hardly any effect is
    left for sure, or where a further layer made no better choice.

    Each is fitted on activations of the network that is corrected already, and evaluated against the network as it
    is. It may lose no more than the other: every layer would spend the bound anew, and of some hundred images half a
    point is one.

    Args:
        found: settings that were tried at one layer each.
        methods: methods that give erasures.
        grid: settings to try; layers that are corrected already are left out.
        draw: clean images on which losses are compared, see `selection.choose_least_loss`.
    """
    single = [one for one in found if isinstance(one.correction, Erasure) and one.tried.within_bounds]
    further: list[Candidate] = []
    if not single or selection.choose_least_loss(found, draw, bounds).chosen.gained.low >= 1 - ALIKE:
        return further
    _ = test.before  # of the network as it is, kept from here on
    for corrected in range(1, MOST_LAYERS):
        start = selection.choose_least_loss(single + further, draw, bounds)
        parts = start.chosen.parts
        others = tuple(
            layer for layer in grid.layers or data.layers if layer not in {one.setting.layer for one in parts}
        )
        if len(parts) < corrected or not others or start.chosen.gained.low >= 1 - ALIKE:
            break
        try:
            with start.correction.applied(data.classifier.module):
                more = try_settings(methods, replace(data), test, bounds, replace(grid, layers=others).coarse)
        except (InputError, UsageError):  # members do not differ any more, at any layer
            break
        kept = (one for one in more if isinstance(one.correction, Erasure) and loses_no_more(one.tried, start.chosen))
        further += leave_out_costlier([_join_correction(start, one) for one in kept], start, draw)
    return further


def leave_out_costlier(further: Sequence[Candidate], start: Choice, draw: CleanDraw | None) -> list[Candidate]:
    """Keep those of the settings beside a correction that gain more than it for sure, are the best of these and lose no
    more on many clean images; without such images, keep all."""
    if draw is None or not len(draw):
        return list(further)
    better = [one for one in further if one.tried.gained.low > start.chosen.gained.low]
    if not better:
        return []
    finalists, alone = selection.find_finalists(better), draw.measure(start.correction)
    losses = draw.compare([one.correction for one in finalists])
    return [
        replace(one, tried=replace(one.tried, losses=lost))
        for one, lost in zip(finalists, losses, strict=True)
        if lost.overall.n == alone.overall.n and lost.price <= alone.price + MIN_FALL_DIFFERENCE
    ]


def loses_no_more(one: SettingOutcome, other: SettingOutcome) -> bool:
    """Test whether the measured losses of one setting are at most those of another, or none."""
    pairs = ((side.outcome.harm, side.outcome.harm_affected) for side in (one, other))
    return all(a.value <= max(b.value, 0.0) for a, b in zip(*pairs, strict=True) if a.n)


def _join_correction(start: Choice, one: Candidate) -> Candidate:
    """Return a candidate together with the correction that it was fitted on."""
    known = start.correction
    parts = known.parts if isinstance(known, JointCorrection) else (known,)
    joint = JointCorrection(tuple(part for part in (*parts, one.correction) if isinstance(part, Erasure)))
    return Candidate(replace(one.tried, beside=start.chosen.parts), joint)
