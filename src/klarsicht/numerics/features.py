"""Metrics of feature rows, exact: by one matrix product that bounds, and differences in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import InputError
from klarsicht.numerics.search import Doubles, Floats, Ints, PairBounds, slices


@dataclass(frozen=True)
class Normalised:
    """Rows over their norm; a blank row (all zeros) has none and becomes a unit vector on an axis of its own.

    Attributes:
        features: (N, D) as given.
        scale: float64 (N,), one over the norm; 0 where blank.
        blank: float64 (N,), 1 where the row is all zeros.
        screen: float32 (N, D + 3), x of [centred row, blank, |x|^2 (less its error), 1].
    """

    features: Floats
    scale: Doubles
    blank: Doubles
    screen: NDArray[np.float32]

    @classmethod
    def by(cls, features: Floats, norms: Doubles) -> Normalised:
        blank = (norms == 0).astype(np.float64)
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        return cls(features, scale, blank, screen(features, scale, blank))


def screen(features: Floats, scale: Doubles, blank: Doubles) -> NDArray[np.float32]:
    """[x, |x|^2 (1 - margin), 1] in float32, centred: distances stay, rounding errors shrink.

    A sum of D products rounds by at most D u sum |products| (Higham 2002, 3.1), u = 2^-24, and
    2 |x||y| <= |x|^2 + |y|^2: so |x - y|^2 is off by less than margin (|x|^2 + |y|^2).
    """
    n, d = features.shape
    margin = 2 * (d + 16) * 2.0**-24
    centre = np.einsum("n,nd->d", scale, features) / n
    screen = np.ones((n, d + 3), np.float32)
    for rows in slices(n, 4096):
        x = np.column_stack((features[rows] * scale[rows, None] - centre, blank[rows] - blank.mean()))
        screen[rows, : d + 1] = x
        screen[rows, d + 1] = (x * x).sum(1) * (1 - margin)
    return screen


def lower(screen: NDArray[np.float32], block: slice) -> NDArray[np.float32]:
    """(b, N): |x|^2 - 2 x.y + |y|^2 as one matrix product, its possible rounding error taken off."""
    left = screen[block].copy()
    left[:, :-2] *= -2
    left[:, -2:] = left[:, :-3:-1]
    return left @ screen.T


@dataclass(frozen=True)
class Euclidean:
    """Euclidean distance of rows over the sum of their absolute values (the signed sum can vanish)."""

    certain: ClassVar[bool] = True
    tighter: ClassVar[tuple[PairBounds, ...]] = ()
    batch: ClassVar[int] = 256  # small enough for the cache

    def prepare(self, features: Floats) -> Normalised:
        check(features)
        return Normalised.by(features, np.abs(features).sum(1, dtype=np.float64))

    def estimates(self, rows: Normalised, block: slice) -> NDArray[np.float32]:
        return lower(rows.screen, block)

    def costs(self, rows: Normalised, i: Ints, j: Ints) -> Doubles:
        """Squared distances by differences, in float64: exactly 0 for equal rows."""
        step = rows.features[i] * rows.scale[i, None]
        step -= rows.features[j] * rows.scale[j, None]
        squares: Doubles = np.einsum("md,md->m", step, step)
        return squares + (rows.blank[i] - rows.blank[j]) ** 2

    def distances(self, costs: Doubles) -> Doubles:
        roots: Doubles = np.sqrt(costs)
        return roots


@dataclass(frozen=True)
class Cosine(Euclidean):
    """1 - cos(x, y) = |x/|x| - y/|y||^2 / 2."""

    def prepare(self, features: Floats) -> Normalised:
        check(features)
        return Normalised.by(features, np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64)))

    def distances(self, costs: Doubles) -> Doubles:
        return costs / 2


def check(features: Floats) -> None:
    if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
        raise InputError(
            "no neighbours to look for",
            got=f"shape {features.shape}",
            rule="needs (N, D) with N >= 2 and D >= 1",
        )
    off = np.flatnonzero(~np.isfinite(features).all(1))
    if len(off):
        raise InputError(
            "features that are not finite",
            got=f"{len(off)} row(s), the first is row {off[0]}",
            remedy="Set these rows aside before looking for neighbours.",
        )
