# mypy: disable-error-code="no-untyped-call"
"""Exact metrics of feature rows: lower bounds from a narrow matrix product, then distances in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.ground.errors import InputError
from klarsicht.numerics.compiled.jit import SUMS, SourceHash, compile_with, run_parallel
from klarsicht.numerics.search.blocks import SquaredDistance, slices
from klarsicht.numerics.search.projection_bounds import ProjectionBound

SOURCE_HASH = SourceHash.of(__file__)
PROJECTION_MIN_ROWS = 2048  # most rows for which a projection does not pay
SAMPLE = 512  # rows from which the fold is fitted
FLATTEN = "Give maps as rows: maps.reshape(len(maps), -1)."


@dataclass(frozen=True)
class NormalisedRows:
    """Rows divided by their norm; a blank row (all zeros) becomes a unit vector on an additional axis. features: (N,
    D), float32 or float64. scale, blank: float64 (N,), one over the norm, or 0 where blank; 1 where blank. screen:
    float32 (N, d + 2), see `screening_matrix`, of all coordinates and blank, or of fewer."""

    features: Floats
    scale: Doubles
    blank: Doubles
    screen: NDArray[np.float32]

    @classmethod
    def from_norms(cls, features: Floats, norms: Doubles) -> NormalisedRows:
        blank = (norms == 0).astype(np.float64)
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        kept = features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)
        return cls(np.ascontiguousarray(kept), scale, blank, projected_screening_matrix(features, scale, blank))


def projected_screening_matrix(features: Floats, scale: Doubles, blank: Doubles) -> NDArray[np.float32]:
    """Compute the screening matrix of projected coordinates where that pays, else of all coordinates."""

    def rows(some: slice) -> Doubles:
        return np.column_stack((features[some] * scale[some, None], blank[some]))

    n = len(features)
    projection = ProjectionBound.of(rows(slice(0, n, n // SAMPLE))) if n > PROJECTION_MIN_ROWS else None
    if projection is None:
        return screening_matrix(features, scale, blank)
    narrow = np.concatenate([projection(rows(some)) for some in slices(n, 4096)])
    return screening_matrix(narrow, np.ones(n), np.zeros(n))


def screening_matrix(features: Floats, scale: Doubles, blank: Doubles) -> NDArray[np.float32]:
    """Compute rows [x, |x|^2 (1 - margin), 1] in float32, centred, from which `lower_bounds` bounds distances.

    A sum of D products rounds by at most D u sum |products| (Higham 2002, 3.1), u = 2^-24, and 2 |x||y| <= |x|^2 +
    |y|^2: so |x - y|^2 is off by less than margin (|x|^2 + |y|^2)."""
    n, d = features.shape
    margin = 2 * (d + 16) * 2.0**-24
    centre = np.einsum("n,nd->d", scale, features) / n
    screen = np.ones((n, d + 3), np.float32)
    for rows in slices(n, 4096):
        x = np.column_stack((features[rows] * scale[rows, None] - centre, blank[rows] - blank.mean()))
        screen[rows, : d + 1] = x
        screen[rows, d + 1] = (x * x).sum(1) * (1 - margin)
    return screen


def lower_bounds(screen: NDArray[np.float32], block: slice) -> NDArray[np.float32]:
    """Bound squared distances (b, N) from below: |x|^2 - 2 x.y + |y|^2 as one matrix product, less its rounding."""
    left = screen[block].copy()
    left[:, :-2] *= -2
    left[:, -2:] = left[:, :-3:-1]
    return left @ screen.T


@dataclass(frozen=True)
class Euclidean(SquaredDistance):
    """Euclidean distance of rows divided by the sum of their absolute values (the signed sum can vanish)."""

    estimates_are_bounds: ClassVar[bool] = True
    batch: ClassVar[int] = 65536

    def prepare(self, features: Floats) -> NormalisedRows:
        check(features)
        return NormalisedRows.from_norms(features, np.abs(features).sum(1, dtype=np.float64))

    def estimates(self, rows: NormalisedRows, block: slice) -> NDArray[np.float32]:
        return lower_bounds(rows.screen, block)

    def costs(self, rows: NormalisedRows, i: Ints, j: Ints) -> Doubles:
        """Compute squared distances from differences, in float64: exactly 0 for equal rows."""
        squares, given = np.empty(len(i)), (rows.features, rows.scale, rows.blank)
        run_parallel(lambda a, b: _squares(SOURCE_HASH, *given, i[a:b], j[a:b], squares[a:b]), len(i))
        return squares


@dataclass(frozen=True)
class Cosine(Euclidean):
    """Cosine distance 1 - cos(x, y) = |x/|x| - y/|y||^2 / 2."""

    def prepare(self, features: Floats) -> NormalisedRows:
        check(features)
        return NormalisedRows.from_norms(features, np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64)))

    def distances(self, costs: Doubles) -> Doubles:
        return costs / 2


@compile_with(SUMS)
def _squares(source_hash: Any, features: Any, scale: Any, blank: Any, i: Any, j: Any, out: Any) -> None:
    """Kernel: write the squared distances of the pairs (i, j) to `out`."""
    for m in range(len(i)):
        x, y, a, b = features[i[m]], features[j[m]], scale[i[m]], scale[j[m]]
        total = (blank[i[m]] - blank[j[m]]) ** 2
        for t in range(len(x)):
            total += (x[t] * a - y[t] * b) ** 2
        out[m] = total


def check(features: Floats) -> None:
    """Raise InputError unless features are an array (N, D), finite, with N >= 2 and D >= 1."""
    if not isinstance(features, np.ndarray):
        rule = "this metric compares rows of numbers, an array (N, D)"
        raise InputError("no rows of numbers", got=type(features).__name__, rule=rule, remedy=FLATTEN)
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        rule, remedy = "needs (N, D) with N >= 2 and D >= 1", FLATTEN if features.ndim > 2 else ""
        raise InputError("no neighbours to look for", got=f"shape {features.shape}", rule=rule, remedy=remedy)
    off = np.flatnonzero(~np.isfinite(features).all(1))
    if len(off):
        got, remedy = f"{len(off)} of {len(features)} rows, the first is row {off[0]}", "Set these rows aside first."
        raise InputError("features that are not finite", got=got, remedy=remedy)
