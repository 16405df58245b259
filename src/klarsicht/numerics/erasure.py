"""Affine concept erasure: remove given directions from activations.

    a' = a - s L R (a - z),    R L = I

L (C, k) holds the directions that are removed, R (k, C) measures how much of each a row contains, z is the reference
point of rows without them, s is the strength.

*Orthogonal*: L = Q, R = Q^T with V = Q T (QR). For one direction a' = a + v (v.z - v.a) (Anders et al. 2022, P-ClArC).

*Oblique*: L = V, R = (V^T S^-1 V)^-1 V^T S^-1 with the covariance S of clean rows. Of all R with R V = I this one
minimises the change of clean rows, E|L R (a - z)|^2, in every norm (LEACE: Belrose et al. 2023, arXiv 2306.03819).

Both map V to 0. So with V = cov(a, y) no linear classifier predicts y of erased rows.

*By regression*: a' = a - s (L R (a - z) + o) subtracts the change that the rows with an artifact predict. R L is not I
then, and rows without the artifact are changed as well: it needs a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.covariance import ledoit_wolf

from klarsicht.ground.arrays import Doubles, Floats
from klarsicht.ground.errors import InputError

RIDGE = 1e-6  # share of the mean variance added to every variance: constant channels have none
RIDGE_OF_CHANGE = 1e-3  # the same, where a change is predicted from rows


@dataclass(frozen=True)
class Eraser:
    """Affine eraser with L (C, k), R (k, C), z (C,) and o (C,) or None, see the module. Raises InputError: they do not
    fit."""

    left: Doubles
    right: Doubles
    reference: Doubles
    offset: Doubles | None = None

    def __post_init__(self) -> None:
        C, k = self.left.shape
        offset = self.reference if self.offset is None else self.offset
        if self.right.shape != (k, C) or self.reference.shape != (C,) or offset.shape != (C,):
            got = f"{self.left.shape}, {self.right.shape}, {self.reference.shape}, {offset.shape}"
            raise InputError("the parts of an eraser do not fit", got=got, rule="(C, k), (k, C), (C,), (C,)")

    def __call__(self, a: Floats, strength: float = 1.0) -> Doubles:
        """Erase the directions from rows (n, C)."""
        taken = self.amounts(a) @ self.left.T
        return np.asarray(a - strength * (taken if self.offset is None else taken + self.offset))

    def amounts(self, a: Floats) -> Doubles:
        """Compute the amount of each direction in rows (n, C): R (a - z), (n, k)."""
        return np.asarray((a - self.reference) @ self.right.T)


def orthogonal_eraser(V: Floats, z: Floats) -> Eraser:
    """Make the eraser that projects rows orthogonally to the span of V (C, k)."""
    Q = linalg.qr(unit_directions(V), mode="economic")[0]
    return Eraser(Q, Q.T, np.asarray(z, np.float64))


def oblique_eraser(V: Floats, S: Floats, z: Floats) -> Eraser:
    """Make the eraser of V (C, k) that changes rows of covariance S (C, C) around z least."""
    L = unit_directions(V)
    weighed = linalg.solve(S, L, assume_a="pos")
    return Eraser(L, linalg.solve(L.T @ weighed, weighed.T, assume_a="pos"), np.asarray(z, np.float64))


def regression_eraser(carriers: Floats, change: Floats, most: int) -> Eraser:
    """Make the eraser that subtracts from rows (n, C) with an artifact the change (n, C) by it, as a ridge regression
    on these rows predicts it. Of the predicted changes about their mean at most so many principal axes are kept
    (reduced-rank regression, Izenman 1975, J. Multivariate Anal. 5)."""
    X, Y = np.asarray(carriers, np.float64), np.asarray(change, np.float64)
    z, o = X.mean(0), Y.mean(0)
    S = (X - z).T @ (X - z) / len(X)
    raised = S + RIDGE_OF_CHANGE * (float(np.trace(S)) / len(S) or 1.0) * np.eye(len(S))
    B = linalg.solve(raised, (X - z).T @ (Y - o) / len(X), assume_a="pos")
    _, axes = linalg.eigh(B.T @ S @ B, subset_by_index=[max(0, len(S) - most), len(S) - 1])
    return Eraser(axes, (B @ axes).T, z, o)


def unit_directions(V: Floats) -> Doubles:
    """Normalise directions (C, k) to unit length. Raises InputError: none, one without length, or dependent ones."""
    lengths = np.linalg.norm(V, axis=0)
    if V.ndim != 2 or not lengths.size or not np.isfinite(lengths).all() or not lengths.all():
        raise InputError("a direction without length", got=f"lengths {lengths}", rule="columns of V that are not zero")
    unit = V / lengths
    if np.linalg.matrix_rank(unit) < V.shape[1]:
        raise InputError("directions that hold each other", got=f"{V.shape[1]} of rank {np.linalg.matrix_rank(unit)}")
    return np.asarray(unit, np.float64)


def covariance(X: Floats) -> Doubles:
    """Estimate the covariance (C, C) of rows (n, C), shrunk towards its mean variance (Ledoit and Wolf 2004)."""
    S = ledoit_wolf(np.asarray(X, np.float64))[0]
    return np.asarray(S + RIDGE * (float(np.trace(S)) / len(S) or 1.0) * np.eye(len(S)))


def pattern(X: Floats, y: NDArray[Any]) -> Doubles:
    """Compute the pattern cov(x, y) (C,) of rows (n, C) and a label (n,): the direction in which rows change with y
    (Haufe et al. 2014, Neuroimage 87; as a concept direction Pahde et al. 2022, arXiv 2202.03482)."""
    return np.asarray((X - X.mean(0)).T @ (y - y.mean()) / len(y))


def principal_directions(effects: Floats, S: Floats, k: int, first: Floats | None = None) -> Doubles:
    """Compute the k principal directions (C, k) of effects (n, C), which an artifact adds to rows, relative to the
    covariance S of rows without it: in coordinates where S is I, the principal axes, not centred. Fewer where effects
    have lower rank; the direction `first` (C,), if given, comes first, and the others are orthogonal to it there."""
    values, axes = linalg.eigh(S)
    root, inverse = axes * np.sqrt(values), axes / np.sqrt(values)
    white = effects @ inverse
    directions = []
    if first is not None:
        u = first @ inverse
        directions.append(u / np.linalg.norm(u))
        white = white - np.outer(white @ directions[0], directions[0])
    _, sizes, rest = linalg.svd(white, full_matrices=False)
    kept = rest[sizes > max(sizes.max(initial=0) * 1e-6, np.finfo(np.float64).tiny)]
    return np.asarray(root @ np.stack([*directions, *kept][:k], axis=1))
