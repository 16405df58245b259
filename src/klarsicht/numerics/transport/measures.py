"""Point measures of relevance maps: the positions of a map's positive relevance as a few points of equal weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.transport.hilbert import sample_points

Points = NDArray[np.float32]
Texts = NDArray[np.str_]
Rows = slice | NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int]

LEAST_POSITIVE_SHARE = 0.001  # share of a map's absolute mass below which positive relevance counts as absent
LEAST_MAP_MASS = 1e-6  # share of the median map's absolute mass below which a map has no relevance
FLAT = 1e-6  # share of the largest coordinate below which a radius is rounding error


@dataclass(frozen=True)
class PointMeasures:
    """N measures on the plane, each of P points of weight 1/P. points: float32 (N, P, 2), row and column in pixels, (0,
    0) the centre of the first pixel; NaN without mass. kept: float64 (N,), the share of each map's mass on the selected
    pixels. reasons: text (N,): why a measure is set aside, "" otherwise."""

    points: Points
    kept: Doubles
    reasons: Texts

    @classmethod
    def of(cls, points: Floats) -> PointMeasures:
        """Make measures from points (N, P, 2). Raises InputError: another shape, or coordinates that are not finite."""
        points = np.asarray(points, np.float32)
        if points.ndim != 3 or points.shape[2] != 2 or 0 in points.shape:
            rule = "needs (N, P, 2) with N >= 1 and P >= 1"
            raise InputError("points of measures", got=f"shape {points.shape}", rule=rule)
        _require_finite(points, "points")
        return cls(points, np.ones(len(points)), np.full(len(points), ""))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, which: Rows) -> PointMeasures:
        rows = which if isinstance(which, slice) else np.asarray(which)
        return PointMeasures(self.points[rows], self.kept[rows], self.reasons[rows])

    @property
    def set_aside(self) -> NDArray[np.bool_]:
        """Mask (N,) of the measures that cannot be compared; drop them by `measures[~measures.set_aside]`."""
        return np.asarray(self.reasons != "")

    @property
    def counts(self) -> dict[str, int]:
        """Number of measures set aside, by reason."""
        names, numbers = np.unique(self.reasons[self.set_aside], return_counts=True)
        return dict(zip(names.tolist(), numbers.tolist(), strict=True))

    @property
    def means(self) -> Doubles:
        """Centre of each measure in pixels, (N, 2)."""
        return np.asarray(self.points.mean(1, dtype=np.float64))

    @property
    def radius(self) -> Doubles:
        """Root mean square distance from the centre in pixels, (N,); 0 where it is within rounding error."""
        squares = ((self.points - self.means[:, None]) ** 2).sum(2).mean(1)
        return np.where(squares <= (FLAT * np.abs(self.points).max((1, 2))) ** 2, 0, np.sqrt(squares))

    def centre(self) -> PointMeasures:
        """Translate every centre to the origin, which makes distances invariant to shifts only."""
        return self._move(np.ones(len(self)))

    def scale(self) -> PointMeasures:
        """Centre and divide by the radius: dimensionless, radius 1. Raises InputError: measures of zero radius."""
        radius = self.radius
        flat = np.flatnonzero(radius == 0)
        if len(flat):
            raise InputError(
                "measures of zero radius have no scale", got=f"{len(flat)} of {len(self)}, the first is {flat[0]}",
                remedy="Drop them, or take a metric that keeps scale: wasserstein or wasserstein-t.",
            )  # fmt: skip
        return self._move(1 / radius)

    def _move(self, factor: Doubles) -> PointMeasures:
        return replace(self, points=((self.points - self.means[:, None]) * factor[:, None, None]).astype(np.float32))


def measures_from_maps(maps: Floats | Sequence[Floats], points: int = 64, mass: float = 0.95) -> PointMeasures:
    """Convert maps (N, H, W), of any one height and width, to measures of P points of their positive values, on the
    fewest largest pixels that hold the share `mass`, in (0, 1].

    A map is set aside where these hold at most a thousandth of its absolute mass, where it has at most a millionth of
    the median map's mass, or where all its mass is on one pixel ("zero radius"). Raises InputError: no maps, maps of
    different sizes, or values that are not finite; UsageError: no points, or a share outside (0, 1]."""
    if points < 1:
        raise UsageError("points of a measure", got=points, rule="at least 1")
    if not 0 < mass <= 1:
        raise UsageError("share of mass to keep", got=mass, rule="above 0, at most 1")
    stack = _stack_maps(maps)
    sample = sample_points(stack, points, mass)
    absolute = np.array([np.abs(one).sum(dtype=np.float64) for one in stack])
    faint = (sample.total <= LEAST_POSITIVE_SHARE * absolute) | (absolute <= LEAST_MAP_MASS * np.median(absolute))
    kept = np.divide(sample.selected_mass, sample.total, out=np.zeros_like(sample.total), where=sample.total > 0)
    measures = PointMeasures(sample.points, kept, np.where(faint, "almost no positive relevance", ""))
    reasons = np.where(~faint & (measures.radius == 0), "zero radius", measures.reasons)
    return replace(measures, reasons=reasons)


def require_comparable(items: Any) -> PointMeasures:
    """Return items that a metric of measures can compare. Raises InputError: no measures, fewer than two, or set
    aside."""
    if not isinstance(items, PointMeasures):
        remedy = "Make measures of maps by measures_from_maps, of points by PointMeasures.of."
        rule = "this metric compares PointMeasures"
        raise InputError("not measures", got=type(items).__name__, rule=rule, remedy=remedy)
    if len(items) < 2:
        raise InputError("no neighbours to look for", got=len(items), rule="measures, at least 2")
    if items.set_aside.any():
        first = np.flatnonzero(items.set_aside)[0]
        reasons = ", ".join(f"{number} with {reason}" for reason, number in items.counts.items())
        got = f"{items.set_aside.sum()} of {len(items)}, the first is {first}: {reasons}"
        remedy = "Drop them: measures[~measures.set_aside]."
        raise InputError("measures that were set aside cannot be compared", got=got, remedy=remedy)
    return items


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


def _require_finite(values: Floats, what: str) -> None:
    off = np.flatnonzero([not np.isfinite(one).all() for one in values])
    if len(off):
        got = f"{len(off)} of {len(values)}, the first is {off[0]}"
        raise InputError(f"{what} that are not finite", got=got, remedy="Drop these rows first.")
