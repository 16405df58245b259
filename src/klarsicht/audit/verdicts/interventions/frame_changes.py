"""Imitate an artifact of the whole frame: a change of colours or a fixed pattern, accepted on carriers it was not
fitted on: where they differ from other images in its direction, by a permutation test, and where it leaves little of
their squared difference, as it does not of members that are a natural group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.pixel_changes.colour_maps import (
    HueTurn,
    colour_moments,
    fit_channel_gains,
    fit_grey_rotation,
    fit_hue_turn,
)
from klarsicht.audit.verdicts.pixel_changes.colours import ColourMatrix
from klarsicht.audit.verdicts.pixel_changes.fixed_patterns import (
    FixedPattern,
    fit_column_gains,
    fit_pixel_gains,
    fit_row_gains,
    log_profiles,
    log_waves,
)
from klarsicht.ground.arrays import Doubles, Floats, Pixels

FrameFit = HueTurn | ColourMatrix | FixedPattern
DescribeFrame = Callable[[Pixels], Floats]  # from images (n, H, W, C) to numbers (n, D)
Alter = Callable[[Pixels], Pixels]  # changes pixel values (n, H, W, C)

FRAME_IMAGES: Final = 128  # images of either group that are compared, at most
DIVISIONS: Final = 3  # random divisions into halves: of a single one the share varies much
FEWEST_HALVED: Final = 8  # carriers, and others, below which no half is compared with the other
PERMUTATIONS: Final = 3999
EQUAL_SUMS: Final = 1e-9  # of the largest value: difference up to which two sums differ by rounding alone
ACCEPTED_BY_CHANCE: Final = 0.01  # probability that any form is accepted of a random group, at most
COLOURS_MET: Final = 0.8  # share of the squared difference that a map of colours must put on
PATTERN_MET: Final = 0.5  # and a fixed pattern, which no group by nature has
MOST_CORRELATED: Final = 1000  # numbers of a description up to which their correlations count


@dataclass(frozen=True)
class FrameForm:
    """Form of a change: `fit` makes one from carriers (m, H, W, C) and others (k, H, W, C); it is accepted where it
    accounts for the share `least_met` of the squared difference in a description; with `colour` it needs three
    channels."""

    fit: Callable[[Pixels, Pixels], FrameFit]
    change: type[FrameFit]
    describe: DescribeFrame
    least_met: float
    colour: bool = False


def _flat(describe: Callable[[Pixels], NDArray[Any]]) -> DescribeFrame:
    return lambda images: describe(images).reshape(len(images), -1)


FORMS: Final[dict[str, FrameForm]] = {
    "hue": FrameForm(fit_hue_turn, HueTurn, colour_moments, COLOURS_MET, True),
    "rotation about grey": FrameForm(fit_grey_rotation, ColourMatrix, colour_moments, COLOURS_MET, True),
    "channel gains": FrameForm(fit_channel_gains, ColourMatrix, colour_moments, COLOURS_MET, True),
    "row gains": FrameForm(fit_row_gains, FixedPattern, _flat(partial(log_profiles, "rows")), PATTERN_MET),
    "column gains": FrameForm(fit_column_gains, FixedPattern, _flat(partial(log_profiles, "columns")), PATTERN_MET),
    "pixel gains": FrameForm(fit_pixel_gains, FixedPattern, _flat(log_waves), PATTERN_MET),
}
"""For each form, how it is fitted and accepted."""


@dataclass(frozen=True)
class FrameChange:
    """Change of a whole image by one of FORMS; an `Insertion`, whose control is the unchanged image. `met` is the share
    of the carriers' squared difference that it accounts for, on carriers that it was not fitted on."""

    kind: str
    change: FrameFit
    pixel_scale: PixelScale
    met: float

    def __str__(self) -> str:
        return f"{self.change}, {self.met:.0%} of what separates other carriers"

    def fits(self, image: Tensor) -> bool:
        """Say whether an image (C, H, W) has the channels, and for a fixed pattern the shape of the carriers."""
        if image.ndim != 3 or len(image) != len(self.pixel_scale.black):
            return False
        if not isinstance(self.change, FixedPattern):
            return True
        sides = self.change.log_gain.shape[:2]
        return all(side in (1, given) for side, given in zip(sides, image.shape[1:], strict=True))

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Change images (n, C, H, W), given and returned as model inputs; the control are the images themselves."""
        levels = np.stack([self.pixel_scale.levels(image) for image in images]).astype(np.float32)
        return self.pixel_scale.inputs(np.clip(self.change.apply(levels, rng), 0, 255)).to(images), images

    def alter(self, levels: Pixels) -> Pixels:
        """Change pixel values (n, H, W, C)."""
        return alter_levels(self.change, levels)

    def to_json(self) -> dict[str, Any]:
        """Return all but the pattern, which is in `arrays`, as JSON values."""
        few = {name: value for name, value in vars(self.change).items() if name not in self.arrays()}
        change = {name: np.asarray(value).tolist() for name, value in few.items()}
        return {"kind": self.kind, "met": self.met} | change | self.pixel_scale.to_json()

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"log_gain": self.change.log_gain} if isinstance(self.change, FixedPattern) else {}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FrameChange:
        """Read a record of `to_json`, and its arrays among others; raises KeyError where the record lacks a key."""
        known, kind = {**record, **arrays}, cast(Any, FORMS[record["kind"]].change)
        values = {name: known[name] for name in kind.__dataclass_fields__}
        change = kind(**{name: np.array(one) if isinstance(one, list) else one for name, one in values.items()})
        return cls(record["kind"], change, PixelScale.from_json(record), record["met"])


def alter_levels(change: FrameFit, levels: Pixels) -> Pixels:
    """Change pixel values (n, H, W, C), rounded and cut off at 0 and 255."""
    rng = np.random.default_rng(0)
    changed = (np.clip(change.apply(one[None].astype(np.float32), rng), 0, 255) for one in levels)
    return np.concatenate([np.rint(one).astype(np.uint8) for one in changed])


Halves = tuple[tuple[Pixels, Pixels], tuple[Pixels, Pixels]]  # carriers and others of either half


def divide_in_halves(carriers: Pixels, others: Pixels, rng: np.random.Generator) -> Halves:
    """Divide carriers (m, H, W, C) and others (k, H, W, C) into random halves."""
    own, other = (rng.permutation(len(group)) % 2 == 0 for group in (carriers, others))
    return (carriers[own], others[other]), (carriers[~own], others[~other])


@dataclass(frozen=True)
class SquaredDifference:
    """Difference of carriers (m, D) and others (k, D) in a description, whitened by the variation within either group;
    `scale` of the squared difference of means is 1 / (1 / m + 1 / k)."""

    own: Floats
    other: Floats
    scale: float

    @classmethod
    def of(cls, own: Floats, other: Floats, whiten: Floats) -> SquaredDifference:
        """Whiten descriptions (m, D) and (k, D) by a matrix (D, D), or by factors (D,)."""
        a, b = (group @ whiten if whiten.ndim == 2 else group * whiten for group in (own, other))
        return cls(a, b, 1 / (1 / len(a) + 1 / len(b)))

    @property
    def mean_difference(self) -> Doubles:
        """The difference of means (D,)."""
        return np.asarray(self.own.mean(0, dtype=np.float64) - self.other.mean(0, dtype=np.float64))

    @property
    def excess(self) -> float:
        """The squared difference of means, in units of its noise, beyond what noise alone gives."""
        within = [((group - group.mean(0)) ** 2).sum(dtype=np.float64) for group in (self.own, self.other)]
        noise = sum(within) / (len(self.own) + len(self.other) - 2)
        return float(self.scale * (self.mean_difference**2).sum() - noise)


def whitening_of(own: Floats, other: Floats) -> Floats:
    """Compute the whitening of the variation within two groups (m, D) and (k, D): a matrix (D, D) by the shrunk
    correlations of Ledoit and Wolf (2004), or factors (D,) where numbers are many."""
    within = np.concatenate([own - own.mean(0), other - other.mean(0)]).astype(np.float64)
    unit = 1 / np.sqrt((within**2).mean(0) + 1e-9)
    if within.shape[1] > MOST_CORRELATED:
        return np.asarray(unit)
    variances, vectors = np.linalg.eigh(ledoit_wolf(within * unit)[0])
    return np.asarray(unit[:, None] * vectors / np.sqrt(np.maximum(variances, 1e-12)))


@dataclass(frozen=True)
class HeldOutFit:
    """A form, fitted on either half of carriers and others, on the other half: p of the difference of carriers in the
    direction of the change among random groups, and the squared difference of carriers from others before and after it,
    of both halves."""

    p: float
    before: float
    after: float

    @classmethod
    def of(cls, form: FrameForm, halves: Halves, rng: np.random.Generator) -> HeldOutFit:
        before, after, groups = 0.0, 0.0, []
        for fitted_on, (carriers, others) in (halves, halves[::-1]):
            change = form.fit(*fitted_on)
            if change.is_identity:
                return cls(1.0, 0.0, 0.0)
            own, plain, changed = (form.describe(x) for x in (carriers, others, alter_levels(change, others)))
            whiten = whitening_of(own, changed)
            was, left = (SquaredDifference.of(own, other, whiten) for other in (plain, changed))
            before, after = before + was.excess, after + left.excess
            direction = was.mean_difference - left.mean_difference
            direction = direction / max(float(np.sqrt((direction**2).sum())), 1e-12)
            groups.append((was.own @ direction, was.other @ direction))
        return cls(permutation_p(groups, rng), before, after)


def share_met(fits: Sequence[HeldOutFit]) -> float:
    """Compute the share of the squared difference that a form accounts for; by chance it may be above 1."""
    before, after = (sum(one) for one in zip(*((fit.before, fit.after) for fit in fits), strict=True))
    return 1 - after / before if before > 0 else 0.0


def permutation_p(groups: list[tuple[Doubles, Doubles]], rng: np.random.Generator) -> float:
    """Compute the p-value of the summed differences of means of groups (m,) and (k,), among random divisions, equal
    ones included."""
    null, observation = np.zeros(PERMUTATIONS), 0.0
    largest = max(float(np.abs(values).max()) for pair in groups for values in pair)
    for own, other in groups:
        observation += own.mean() - other.mean()
        values = rng.permuted(np.tile(np.concatenate([own, other]), (PERMUTATIONS, 1)), axis=1)
        null += values[:, : len(own)].mean(1) - values[:, len(own) :].mean(1)
    return float((1 + (null >= observation - EQUAL_SUMS * largest).sum()) / (1 + PERMUTATIONS))


def excess_left(kind: str, alter: Alter, carriers: Pixels, others: Pixels) -> float:
    """Compute the squared difference of carriers from changed others in a form's description, in units of its noise."""
    own, other = (FORMS[kind].describe(group) for group in (carriers, alter(others)))
    return SquaredDifference.of(own, other, whitening_of(own, other)).excess


def fit_frame_change(
    carriers: Pixels, others: Pixels, pixel_scale: PixelScale, rng: np.random.Generator
) -> FrameChange | None:
    """Fit the change of the whole frame by which carriers (m, H, W, C) differ from others (k, H, W, C); None without
    any. p is twice the median of those of the divisions, which is valid however they depend on each other. Of the
    accepted forms the one that accounts for most is taken; gains of single pixels only where no other form is."""
    if min(len(carriers), len(others)) < FEWEST_HALVED:
        return None
    own, other = (group[rng.permutation(len(group))[:FRAME_IMAGES]] for group in (carriers, others))
    divisions = [divide_in_halves(own, other, rng) for _ in range(DIVISIONS)]
    fitted_changes = []
    for kind, form in FORMS.items():
        if form.colour and carriers.shape[-1] != 3:
            continue
        fits = [HeldOutFit.of(form, halves, rng) for halves in divisions]
        share = share_met(fits)
        if 2 * np.median([fit.p for fit in fits]) <= ACCEPTED_BY_CHANCE / len(FORMS) and share >= form.least_met:
            fitted_changes.append((kind, share))
    if not fitted_changes:
        return None
    kind, share = max(fitted_changes, key=lambda one: (one[0] != "pixel gains", one[1]))
    return FrameChange(kind, FORMS[kind].fit(own, other), pixel_scale, min(share, 1.0))
