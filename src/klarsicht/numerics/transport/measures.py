"""Point measures of relevance maps: the positions of a map's relevance as a few points of equal weight.

A map is cut to the pixels that hold most of its mass; these are divided into equal shares of mass along a space-filling
curve, and each share becomes a point at its centre of mass. The result is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.numerics.transport.hilbert import Part, Sample

Points = NDArray[np.float32]
Texts = NDArray[np.str_]
Rows = slice | NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int]

LEAST_SIGN_SHARE = 0.001  # share of a map's absolute mass below which a sign counts as absent
LEAST_MAP_MASS = 1e-6  # share of the median map's absolute mass below which a map has no relevance
FLAT = 1e-6  # share of the largest coordinate below which a radius is rounding error


def positive(maps: Floats) -> Floats:
    """Return the positive part of the maps."""
    return np.maximum(maps, 0)


def negative(maps: Floats) -> Floats:
    """Return the absolute value of the negative part of the maps."""
    return np.maximum(-maps, 0)


SIGNS: dict[str, tuple[Part, ...]] = {
    "positive": (positive,),
    "absolute": (np.abs,),
    "both": (positive, negative),
}


@dataclass(frozen=True)
class PointMeasures:
    """N measures on the plane, each of P points of weight 1/P.

    With both signs every measure is a pair, of positive and of negative relevance, and a squared distance is
    share D+^2 + (1 - share) D-^2 under one common motion; centre and radius are those of the weighted pair.

    Attributes:
        points: float32 (N, P, 2), row and column in pixels, (0, 0) the centre of the first pixel.
        kept: float64 (N,), the share of each map's mass on the selected pixels.
        reasons: text (N,): the reason why a measure is set aside, "" otherwise. Points of measures without mass are
            NaN.
        negative: float32 (N, P, 2), the points of negative relevance; None with one sign.
        share: in (0, 1], the positive share of mass, mean over the maps; 1 with one sign.
    """

    points: Points
    kept: Doubles
    reasons: Texts
    negative: Points | None = None
    share: float = 1.0

    @classmethod
    def of(cls, points: Floats, negative: Floats | None = None, share: float = 1.0) -> PointMeasures:
        """Make measures from points (N, P, 2).

        Raises:
            InputError: another shape, or coordinates that are not finite.
            UsageError: a share other than 1 with one sign, or outside (0, 1) with both.
        """
        if not (share == 1 if negative is None else 0 < share < 1):
            raise UsageError("positive share", got=share, rule="1 with one sign, between 0 and 1 with both")
        above = _check_points(points)
        below = None if negative is None else _check_points(negative, above.shape)
        return cls(above, np.ones(len(above)), np.full(len(above), ""), below, share)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, which: Rows) -> PointMeasures:
        """Select measures by a slice, integers or a mask."""
        rows = which if isinstance(which, slice) else np.asarray(which)
        below = None if self.negative is None else self.negative[rows]
        return replace(self, points=self.points[rows], kept=self.kept[rows], reasons=self.reasons[rows], negative=below)

    @property
    def set_aside(self) -> NDArray[np.bool_]:
        """Mask (N,) of the measures that cannot be compared; drop them by `measures[~measures.set_aside]`."""
        aside: NDArray[np.bool_] = self.reasons != ""
        return aside

    @property
    def counts(self) -> dict[str, int]:
        """Number of measures set aside, by reason."""
        names, numbers = np.unique(self.reasons[self.set_aside], return_counts=True)
        return dict(zip(names.tolist(), numbers.tolist(), strict=True))

    @property
    def signs(self) -> tuple[tuple[float, Points], ...]:
        """Pairs (weight, points (N, P, 2)) of each sign; the weights add up to 1."""
        if self.negative is None:
            return ((1.0, self.points),)
        return ((self.share, self.points), (1 - self.share, self.negative))

    @property
    def means(self) -> Doubles:
        """Centre of each measure in pixels, (N, 2)."""
        centres: Doubles = sum(weight * points.mean(1, dtype=np.float64) for weight, points in self.signs)
        return centres

    @property
    def radius(self) -> Doubles:
        """Root mean square distance from the centre in pixels, (N,); 0 where it is within rounding error."""
        centre = self.means[:, None]
        squares = sum(weight * ((points - centre) ** 2).sum(2).mean(1) for weight, points in self.signs)
        largest = np.max([np.abs(points).max((1, 2)) for _, points in self.signs], axis=0)
        return np.where(squares <= (FLAT * largest) ** 2, 0, np.sqrt(squares))

    def centre(self) -> PointMeasures:
        """Translate every centre to the origin, which makes distances invariant to shifts only.

        W2^2 = |difference of centres|^2 + W2^2 of the centred measures (Panaretos & Zemel 2019, section 2).
        """
        return self._move(np.ones(len(self)))

    def scale(self) -> PointMeasures:
        """Centre and divide by the radius: dimensionless, radius 1.

        Raises:
            InputError: measures of zero radius.
        """
        radius = self.radius
        flat = np.flatnonzero(radius == 0)
        if len(flat):
            raise InputError(
                "measures of zero radius have no scale",
                got=f"{len(flat)} of {len(self)}, the first is {flat[0]}",
                remedy="Drop them, or take a metric that keeps scale: wasserstein or wasserstein-t.",
            )
        return self._move(1 / radius)

    def _move(self, factor: Doubles) -> PointMeasures:
        """Subtract the centres and multiply by factors (N,)."""
        centre = self.means[:, None]
        above, *below = [((p - centre) * factor[:, None, None]).astype(np.float32) for _, p in self.signs]
        return replace(self, points=above, negative=below[0] if below else None)


def measures_from_maps(
    maps: Floats | Sequence[Floats], points: int = 64, sign: str = "positive", mass: float = 0.95
) -> PointMeasures:
    """Convert maps (N, H, W), of any one height and width, to measures.

    A map is set aside where a sign holds almost nothing (at most a thousandth of the map's own absolute mass, or of
    maps with at most a millionth of the median map's), or where all its mass is on one pixel ("zero radius").

    Args:
        points: P, points of each measure, for each sign.
        sign: a name of `SIGNS`: the positive part, the absolute value, or both parts side by side.
        mass: the share of mass to keep, in (0, 1]: on the fewest largest pixels that hold it.

    Raises:
        InputError: no maps, maps of different sizes, or values that are not finite.
        UsageError: an unknown sign, no points, or a share of mass outside (0, 1].
    """
    if sign not in SIGNS:
        raise unknown_name("sign", sign, SIGNS)
    if points < 1:
        raise UsageError("points of a measure", got=points, rule="at least 1")
    if not 0 < mass <= 1:
        raise UsageError("share of mass to keep", got=mass, rule="above 0, at most 1")
    stack = _stack_maps(maps)
    samples = tuple(Sample.of(stack, part, points, mass) for part in SIGNS[sign])
    return _measures(samples, _low_mass_reasons(samples, SIGNS[sign], stack))


def require_comparable(items: Any) -> PointMeasures:
    """Return the items if a metric of measures can compare them.

    Raises:
        InputError: not measures, fewer than two, or some of them set aside.
    """
    if not isinstance(items, PointMeasures):
        remedy = "Make measures of maps by measures_from_maps, of points by PointMeasures.of."
        raise InputError("not measures", got=type(items).__name__, rule="this metric compares Measures", remedy=remedy)
    if len(items) < 2:
        raise InputError("no neighbours to look for", got=f"{len(items)} measure(s)", rule="needs at least 2")
    if items.set_aside.any():
        first = np.flatnonzero(items.set_aside)[0]
        reasons = ", ".join(f"{number} with {reason}" for reason, number in items.counts.items())
        raise InputError(
            "measures that were set aside cannot be compared",
            got=f"{items.set_aside.sum()} of {len(items)}, the first is {first}: {reasons}",
            remedy="Drop them: measures[~measures.set_aside].",
        )
    return items


def _measures(samples: tuple[Sample, ...], reasons: Texts) -> PointMeasures:
    """Combine samples of one sign or two to measures; measures of zero radius are set aside too."""
    total, held = np.sum([(sample.total, sample.selected_mass) for sample in samples], axis=0)
    kept = np.divide(held, total, out=np.zeros_like(total), where=total > 0)
    measures = PointMeasures(samples[0].points, kept, reasons)
    if len(samples) == 2:
        live = reasons == ""
        share = (samples[0].total[live] / total[live]).mean() if live.any() else 0.5
        measures = replace(measures, negative=samples[1].points, share=float(share))
    return replace(measures, reasons=np.where((reasons == "") & (measures.radius == 0), "zero radius", reasons))


def _low_mass_reasons(samples: tuple[Sample, ...], parts: tuple[Part, ...], maps: Floats) -> Texts:
    """Give the reason (N,) where a map has too little mass of a sign, "" elsewhere."""
    absolute = np.array([np.abs(one).sum(dtype=np.float64) for one in maps])
    reasons = np.full(len(maps), "", "U40")
    for sample, part in zip(samples, parts, strict=True):
        faint = (sample.total <= LEAST_SIGN_SHARE * absolute) | (absolute <= LEAST_MAP_MASS * np.median(absolute))
        reasons[faint & (reasons == "")] = f"almost no {part.__name__} relevance"
    return reasons


def _stack_maps(maps: Floats | Sequence[Floats]) -> Floats:
    """Stack maps to one array (N, H, W) of float32 or float64."""
    shapes = sorted({np.shape(one) for one in maps})
    if len(shapes) > 1:
        raise InputError("maps of different sizes", got=" and ".join(map(str, shapes[:3])), rule="one size for all")
    if not shapes or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise InputError("no maps", got=f"shape {np.shape(maps)}", rule="needs (N, H, W), none of them 0")
    stack = np.asarray(maps)
    _require_finite(stack, "maps")
    return stack.astype(np.result_type(stack, np.float32), copy=False)


def _check_points(points: Floats, shape: tuple[int, ...] | None = None) -> Points:
    """Convert points to float32 (N, P, 2); raises InputError for other shapes or values that are not finite."""
    points = np.asarray(points, np.float32)
    if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape or points.shape != (shape or points.shape):
        rule = f"needs {shape}, as the positive points" if shape else "needs (N, P, 2) with N >= 1 and P >= 1"
        raise InputError("points of measures", got=f"shape {points.shape}", rule=rule)
    _require_finite(points, "points")
    return points


def _require_finite(values: Floats, what: str) -> None:
    """Raise InputError unless all values are finite."""
    off = np.flatnonzero([not np.isfinite(one).all() for one in values])
    if len(off):
        raise InputError(
            f"{what} that are not finite",
            got=f"{len(off)} of {len(values)}, the first is {off[0]}",
            remedy="Drop these rows first.",
        )
