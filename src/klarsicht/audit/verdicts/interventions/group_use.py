"""Measure whether a model uses what a group of images of a class shares, and that no detector gives a place for.

The group and the other images of its class are halved. Regions that set the group apart are learned on one half and
cut out of images of the other half (detectors.unusual_places), and each is pasted into several images; the control
pastes another image of the class under the same mask. So no region counts because of what one image shows.

Any part of a photograph moves a logit. So the rise by the group's regions is held against those of *natural groups*,
found and pasted in the same way: other images of the class that lie furthest in a direction of their colours.

Where a detector gives places, its windows are pasted in this way, see measure_windows_use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.words import describe_group_use, describe_unplaced
from klarsicht.audit.verdicts.detectors.unusual_places import UnusualPlaces, describe_places
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Pixels
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Z95, Interval, mean_interval, trimmed_mean_interval
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale

FEWEST_OF_GROUP: Final = 8  # images of a group, and twice as many others of its class
PASTES: Final = 8  # images into which each region is pasted
NATURAL_GROUPS: Final = 16  # groups of other images of the class; two images of each lend a region
LEAST_EFFECT_OF_GROUP: Final = 0.1  # logits by which the class must rise or fall: a tenth of its odds
FEWEST_PLACED: Final = 0.5  # of the group in which a region must be found
GROUPS_ALIKE: Final = 12  # natural groups that are alike where windows lie
DONORS_ALIKE: Final = 8  # images of each that lend a window
PASTES_ALIKE: Final = 4  # images into which each of these is pasted
UNTOUCHED: Final = 1e-6  # of a place, which a window does not touch by this much


@dataclass(frozen=True)
class GroupUse:
    """Rise of a class by what a group of its images shares.

    Attributes:
        rise: of the log odds of the class by the regions of the group, beyond the control, with the interval over its
            images; NO_INTERVAL where it could not be measured.
        natural: the same of natural groups, with the interval over these; NO_INTERVAL where they were not asked.
        spread: standard deviation of the rise of natural groups, each by two of its images.
        onto: images that regions were pasted into.
        placed_share: of the group, images in which a region was found.
        masks: bool (n, h, w), the regions of the images of the class, shrunk; of its other images they are empty.
    """

    rise: Interval
    natural: Interval = NO_INTERVAL
    spread: float = float("nan")
    onto: int = 0
    placed_share: float = 0.0
    masks: Bools = field(default_factory=lambda: np.zeros((0, 0, 0), bool), repr=False, compare=False)

    @property
    def acts(self) -> bool:
        """Whether the class is shown to rise or fall, by the whole interval and by LEAST_EFFECT_OF_GROUP."""
        clear = self.rise.low > 0 or self.rise.high < 0
        return bool(clear and abs(self.rise.value) >= LEAST_EFFECT_OF_GROUP and self.placed_share >= FEWEST_PLACED)

    @property
    def is_used(self) -> bool:
        """Whether it acts, and differs from 95 % of natural groups, errors included."""
        errors = [(one.high - one.low) / 2 / Z95 for one in (self.rise, self.natural)]
        reach = Z95 * float(np.linalg.norm([self.spread, *errors]))
        return self.acts and abs(self.rise.value - self.natural.value) > reach

    @property
    def doubt(self) -> str:
        """Reason for which a rise or fall that the whole interval shows is no use, in words; empty without one."""
        if self.is_used or not (self.rise.low > 0 or self.rise.high < 0):
            return ""
        if abs(self.rise.value) < LEAST_EFFECT_OF_GROUP:
            return f"less than counts ({LEAST_EFFECT_OF_GROUP:g} logits)"
        return "and parts of other images of the class may do as much"


UNMEASURED: Final = GroupUse(NO_INTERVAL)


def describe_use(use: GroupUse, name: str, onto: str) -> str:
    """Say what a group of images of a class does to it on others, such as "116 images of other classes"; or in how few
    of the group a region was found. Empty where that was not asked."""
    if use.rise.n and use.placed_share >= FEWEST_PLACED:
        return describe_group_use(use.rise, name, onto, use.is_used, use.doubt)
    return describe_unplaced(use.placed_share) if use.onto else ""


def log_odds_of(logits: Floats, target: int) -> Doubles:
    """Compute log P(target) / P(any other) from logits (n, K): (n,)."""
    y = np.asarray(logits, np.float64)
    return np.asarray(y[:, target] - logsumexp(np.delete(y, target, 1), axis=1))


@dataclass(frozen=True)
class PasteTrial:
    """Images uint8 (n, H, W, C) of a class, uint8 (m, H, W, C) to paste regions into, and what shows them to the
    network. target: output of the class. outputs: their scale; of independent ones the logit itself counts."""

    predict: Predict
    pixel_scale: PixelScale
    own: Pixels
    onto: Pixels
    target: int
    outputs: LogitScale = EXCLUSIVE

    def rises(self, donors: Ints, masks: Bools, controls: Ints, rng: np.random.Generator, turns: int) -> Doubles:
        """Compute the rise (d, turns) by the regions of donors, bool (d, h, w), in `turns` drawn images each, beyond
        those of drawn controls under the same masks; 0 without a region."""
        turns = min(turns, len(self.onto), len(controls))
        rises = np.zeros((len(donors), turns))
        for values, donor, mask in zip(rises, donors, enlarge_masks(masks, self.own.shape[1:3]), strict=True):
            below, beside = (rng.choice(many, turns, replace=False) for many in (len(self.onto), controls))
            if not mask.any():
                continue
            under, base = torch.from_numpy(mask), self.pixel_scale.inputs(self.onto[below])
            both = [torch.where(under, x, base) for x in (self._inputs([int(donor)]), self._inputs(beside))]
            after, control = np.split(self._score(self.predict(torch.cat(both))), 2)
            values[:] = after - control
        return rises

    def _score(self, logits: Floats) -> Floats:
        exclusive = self.outputs == EXCLUSIVE
        return log_odds_of(logits, self.target) if exclusive else self.outputs.score(logits, self.target)

    def _inputs(self, numbers: Sequence[int] | Ints) -> Tensor:
        return self.pixel_scale.inputs(self.own[np.asarray(numbers)])


def measure_group_use(trial: PasteTrial, member: Bools, rng: np.random.Generator, turns: int = PASTES) -> GroupUse:
    """Measure the rise of a class by what its members, bool (n,), share; see the module. turns: images into which each
    region is pasted. Natural groups are asked only where it acts."""
    inside, outside = (rng.permutation(np.flatnonzero(member == is_in)) for is_in in (True, False))
    if len(inside) < FEWEST_OF_GROUP or len(outside) < 2 * FEWEST_OF_GROUP or not len(trial.onto):
        return UNMEASURED
    values = describe_places(trial.own)
    masks = np.zeros((len(values), *values.shape[2:]), bool)
    for k in (0, 1):
        half = inside[1 - k :: 2]
        masks[half] = UnusualPlaces.of(values[inside[k::2]], values[outside[k::2]]).masks(values[half])
    rises = [trial.rises(inside[k::2], masks[inside[k::2]], outside[k::2], rng, turns) for k in (0, 1)]
    rise = mean_interval(np.concatenate([some.mean(1) for some in rises]))
    use = GroupUse(rise, onto=len(trial.onto), placed_share=float(masks[inside].any((1, 2)).mean()), masks=masks)
    if not use.acts:
        return use
    size = min(len(inside) // 2, len(outside) // 4)  # as many lie outside a natural group as in it, at least
    pairs = natural_rises(trial, values, size, outside, rng, turns)
    return replace(use, natural=mean_interval(pairs.mean(1)), spread=float(pairs.mean(1).std(ddof=1)))


def natural_rises(
    trial: PasteTrial, values: Floats, size: int, outside: Ints, rng: np.random.Generator, turns: int
) -> Doubles:
    """Compute the mean rises (g, 2) by regions of two images of each natural group: those images, `size` in each half,
    that lie furthest in the direction of a drawn one. Regions are learned on one half and lent by the other."""
    means = values.mean((2, 3))
    means = (means - means[outside].mean(0)) / np.maximum(means[outside].std(0), np.finfo(np.float32).eps)
    pairs = []
    for k in (0, 1):
        fit, lend = outside[k::2], outside[1 - k :: 2]
        for one in rng.choice(fit, min(NATURAL_GROUPS // 2, len(fit)), replace=False):
            first, other = (some[np.argsort(-(means[some] @ means[one]), kind="stable")] for some in (fit, lend))
            places = UnusualPlaces.of(values[first[:size]], values[first[size:]])
            donors = rng.choice(other[:size], 2, replace=False)
            pairs.append(trial.rises(donors, places.masks(values[donors]), other[size:], rng, turns).mean(1))
    return np.stack(pairs)


@dataclass(frozen=True)
class SeenWindows:
    """Windows in which a detector saw what a group shares. corners: (n, 2), of each image of the class, shares of its
    height and width; NaN of the others. extent: (2,), their height and width."""

    corners: Doubles
    extent: tuple[float, float]

    def masks(self, shape: tuple[int, ...]) -> Bools:
        """Return the windows as masks of a shape (h, w), bool (n, h, w): every place that they touch."""
        masks = np.zeros((len(self.corners), *shape), bool)
        for mask, corner in zip(masks, self.corners, strict=True):
            if np.isfinite(corner).all():
                first = np.floor(corner * shape + UNTOUCHED).astype(int)
                last = np.ceil((corner + self.extent) * shape - UNTOUCHED).astype(int)
                mask[first[0] : last[0], first[1] : last[1]] = True
        return masks


def measure_windows_use(trial: PasteTrial, member: Bools, windows: SeenWindows, rng: np.random.Generator) -> GroupUse:
    """Measure the rise of a class by the windows of its members, bool (n,), trimmed over these, which are few. Natural
    groups are asked only where they act: images that are alike where the windows lie."""
    inside, outside = (rng.permutation(np.flatnonzero(member == is_in)) for is_in in (True, False))
    if len(inside) < FEWEST_OF_GROUP or len(outside) < 2 * FEWEST_OF_GROUP or not len(trial.onto):
        return UNMEASURED
    values = describe_places(trial.own)
    masks = windows.masks(values.shape[2:])
    has = masks[inside].any((1, 2))
    rise = trimmed_mean_interval(trial.rises(inside[has], masks[inside[has]], outside, rng, PASTES).mean(1))
    use = GroupUse(rise, onto=len(trial.onto), placed_share=float(has.mean()), masks=masks)
    if not use.acts:
        return use
    rises = rises_of_alike(trial, values, masks[inside[has]], outside, rng)
    return replace(use, natural=mean_interval(rises), spread=float(rises.std(ddof=1)))


def rises_of_alike(
    trial: PasteTrial, values: Floats, windows: Bools, outside: Ints, rng: np.random.Generator
) -> Doubles:
    """Compute the rise (g,) by drawn windows, of bool (m, h, w), of each natural group: of m images or half of the
    others at most, those that lie furthest in the direction of a drawn one by what they show where the windows lie."""
    place, size = windows.mean(0), min(len(windows), len(outside) // 2)
    means = np.einsum("ndhw,hw->nd", values, place / place.sum())
    means = (means - means[outside].mean(0)) / np.maximum(means[outside].std(0), np.finfo(np.float32).eps)
    rises = []
    for one in rng.choice(outside, min(GROUPS_ALIKE, len(outside)), replace=False):
        order = outside[np.argsort(-(means[outside] @ means[one]), kind="stable")]
        group, others = order[:size], rng.permutation(order[size:])
        lend = rng.choice(size, min(DONORS_ALIKE, size), replace=False)
        masks = windows[rng.choice(len(windows), len(lend))]
        of_images = trial.rises(group[lend], masks, others, rng, PASTES_ALIKE).mean(1)
        rises.append(trimmed_mean_interval(of_images).value)
    return np.array(rises)
