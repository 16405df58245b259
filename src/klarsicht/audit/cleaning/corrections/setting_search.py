"""Try settings of corrections: every method at every layer with every number of directions and every strength.

Of many layers all settings are tried at the MOST_SEARCHED at which one direction takes most of the effect away.

One layer may leave an effect that reaches the output another way: where it takes less than ENOUGH away for sure,
settings at further layers are tried on the network that is corrected already, one layer at a time. Those are kept that
lose no more than the correction that they are beside: on the part `choose`, and, of the best, on many clean images by
whole MIN_FALL_DIFFERENCE."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
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
from klarsicht.audit.cleaning.corrections.selection import (
    MIN_FALL_DIFFERENCE,
    Choice,
    SettingOutcome,
    evaluate_setting,
)
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.progress import progress, whole_step

MOST_LAYERS: Final = 3  # that are corrected together for one artifact
MOST_SEARCHED: Final = 4  # layers at which all settings are tried
ENOUGH: Final = 0.75  # of the effect, taken away for sure at one layer: further layers are not tried
PROBES: Final = ("oblique", "reactive")  # methods whose first setting ranks layers
Methods = Mapping[str, CorrectionMethod]  # by name, simpler ones first


@dataclass(frozen=True)
class Grid:
    """Grid of settings: every layer (empty: those of `FittingData.layers`, or the `most_layers` that `select_layers`
    selects of them; 0: all) with every number of directions and every strength."""

    layers: tuple[str, ...] = ()
    directions: tuple[int, ...] = (1, 2, 4, 8)
    strengths: tuple[float, ...] = (1.0, 0.75, 0.5)
    most_layers: int = 0

    @property
    def coarse(self) -> Grid:
        """Every second number of directions and strength, the first included."""
        return replace(self, directions=self.directions[::2], strengths=self.strengths[::2])

    def settings_at(self, layer: str, sweeps: Collection[str]) -> list[CorrectionParameters]:
        """List the settings at a layer for a method that sweeps these parameters; the others keep their first value."""
        directions = self.directions if "directions" in sweeps else self.directions[:1]
        strengths = self.strengths if "strength" in sweeps else self.strengths[:1]
        return [CorrectionParameters(layer, k, s) for k, s in product(directions, strengths)]


def try_settings(
    methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid | None = None
) -> list[SettingOutcome]:
    """Try every method, simpler ones first, at every layer with every number of directions and every strength; a method
    that refuses a setting is left out there. Raises InputError or UsageError if all are refused."""
    grid = grid or Grid()
    layered = {name: method for name, method in methods.items() if "layer" in method.sweeps}
    layers = select_layers(grid.layers or data.layers, layered, data, test, bounds, grid)
    places: list[tuple[str, Methods]] = [(layer, layered) for layer in layers if layered]
    at_image = {name: method for name, method in layered.items() if method.at_image}
    places += [(layer, at_image) for layer in data.first_layers if at_image and not grid.layers]
    places += [("", {name: method}) for name, method in methods.items() if name not in layered]
    found: list[SettingOutcome] = []
    refusals: list[InputError | UsageError] = []
    with whole_step("features of layers"):
        data.fit_layers([layer for layer, some in places if layer and not some.keys() <= at_image.keys()])
    with progress("corrections", sum(len(some) for _, some in places)) as advance:
        for layer, some in places:
            found += try_at_layer(layer, some, data, test, bounds, grid, refusals)
            advance(len(some))
    if not found:
        raise refusals[-1]
    return found


def try_at_layer(
    layer: str, methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid,
    refusals: list[InputError | UsageError],
) -> list[SettingOutcome]:  # fmt: skip
    """Try every setting of the methods at one layer; errors of settings that a method refuses are added to
    `refusals`."""
    made: list[tuple[str, CorrectionParameters, Correction]] = []
    for name, method in methods.items():
        for setting in grid.settings_at(layer, method.sweeps):
            try:
                made.append((name, setting, method.make(data, setting)))
            except (InputError, UsageError) as error:  # members do not differ there, or directions run out
                refusals.append(error)
    answers = test.compute_logits_jointly([correction for *_, correction in made])
    return [evaluate_setting(test, *one, answer, bounds) for one, answer in zip(made, answers, strict=True)]


def select_layers(
    layers: Sequence[str], methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds, grid: Grid
) -> Sequence[str]:
    """Select the layers at which the first setting of PROBES takes most of the effect away by the lower end, first of
    those within the bounds, in the order of the network; all where they are no more than those of the grid, or none of
    the methods is a probe."""
    probes = {name: methods[name] for name in PROBES if name in methods}
    if not 0 < grid.most_layers < len(layers) or not probes:
        return layers
    first = replace(grid, directions=grid.directions[:1], strengths=grid.strengths[:1])
    with whole_step("features of layers"):
        data.fit_layers(layers)
    with progress("layers", len(layers)) as advance:
        outcomes = list[SettingOutcome]()
        for layer in layers:
            outcomes += try_at_layer(layer, probes, data, test, bounds, first, [])
            advance(1)
    if not outcomes:  # refused everywhere: other methods may not be
        return layers
    outcomes.sort(key=lambda one: (not one.within_bounds, -one.gained.low))
    best = list(dict.fromkeys(one.setting.layer for one in outcomes))[: grid.most_layers]
    return [layer for layer in layers if layer in best]


def try_further_layers(
    found: Sequence[SettingOutcome], methods: Methods, data: FittingData, test: CorrectionTest, bounds: Bounds,
    grid: Grid, draw: CleanDraw | None = None,
) -> list[SettingOutcome]:  # fmt: skip
    """Try settings at a second layer beside the best erasure at one, then at a third; stop where ENOUGH of the effect
    is taken away, or where a further layer made no better choice. Each is fitted on activations of the network that is
    corrected already, and evaluated against the network as it is; it may lose no more than the other, on many clean
    images too: every layer would spend the bound anew."""
    single = [one for one in found if isinstance(one.correction, Erasure) and one.within_bounds]
    further: list[SettingOutcome] = []
    if not single or selection.choose_least_loss(found, draw, bounds).chosen.gained.low >= ENOUGH:
        return further
    _ = test.before  # of the network as it is, kept from here on
    for corrected in range(1, MOST_LAYERS):
        start = selection.choose_least_loss(single + further, draw, bounds)
        parts = start.chosen.parts
        others = tuple(
            layer for layer in grid.layers or data.layers if layer not in {one.setting.layer for one in parts}
        )
        if len(parts) < corrected or not others or start.chosen.gained.low >= ENOUGH:
            break
        try:
            with start.correction.applied(data.classifier.module):
                more = try_settings(methods, replace(data), test, bounds, replace(grid, layers=others).coarse)
        except (InputError, UsageError):  # members do not differ any more, at any layer
            break
        kept = (one for one in more if isinstance(one.correction, Erasure) and loses_no_more(one, start.chosen))
        further += leave_out_costlier([_join_correction(start.chosen, one) for one in kept], start, draw)
    return further


def leave_out_costlier(
    further: Sequence[SettingOutcome], start: Choice, draw: CleanDraw | None
) -> list[SettingOutcome]:
    """Keep those of the settings beside a correction whose gain is higher by the lower end, that are the best of these
    and lose no more on many clean images; without such images, keep all."""
    if draw is None or not len(draw):
        return list(further)
    better = [one for one in further if one.gained.low > start.chosen.gained.low]
    if not better:
        return []
    finalists, alone = selection.find_finalists(better), draw.measure(start.correction)
    losses = draw.compare([one.correction for one in finalists])
    return [
        replace(one, losses=lost)
        for one, lost in zip(finalists, losses, strict=True)
        if lost.overall.n == alone.overall.n and lost.price <= alone.price + MIN_FALL_DIFFERENCE
    ]


def loses_no_more(one: SettingOutcome, other: SettingOutcome) -> bool:
    """Test whether the measured losses of one setting are at most those of another, or none."""
    pairs = ((side.outcome.harm, side.outcome.harm_affected) for side in (one, other))
    return all(a.value <= max(b.value, 0.0) for a, b in zip(*pairs, strict=True) if a.n)


def _join_correction(start: SettingOutcome, one: SettingOutcome) -> SettingOutcome:
    """Return a setting together with the one that it was fitted on."""
    known = start.correction
    parts = known.parts if isinstance(known, JointCorrection) else (known,)
    joint = JointCorrection(tuple(part for part in (*parts, one.correction) if isinstance(part, Erasure)))
    return replace(one, beside=start.parts, correction=joint)
