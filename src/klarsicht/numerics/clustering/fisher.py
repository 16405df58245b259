"""Separability of a cluster from the rest of an embedding: Fisher's discriminant (Fisher 1936).

With share p, difference of means d and scatters over n, S_t = S_w + p (1 - p) d d^T. The share of the total scatter
that the split explains along the best direction, R^2 = p (1 - p) d^T S_t^-1 d, gives tau = p (1 - p) d^T S_w^-1 d = R^2
/ (1 - R^2). Regularised, S_w + e S_t in place of S_w, this is tau = R^2 / (1 + e - R^2), at most 1/e; it is invariant
under every invertible affine map of the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from klarsicht.ground.arrays import Bools, Doubles
from klarsicht.ground.errors import InputError, UsageError

Number = TypeVar("Number", float, Doubles)

SHRINKAGE = 1e-3  # e above: tau <= 1000
FLAT = 1e-12  # a column whose deviation is below this share of its largest value is constant but for rounding
RANK = 1e-10  # eigenvalues of the correlation matrix below this share of the largest are 0


@dataclass(frozen=True)
class Separability(Generic[Number]):
    """Separability of one split (floats), or of m splits (arrays of shape (m,)): tau, the between-cluster over
    within-cluster scatter along the best direction, 0 to 1 / SHRINKAGE, and the cluster's share p of the rows."""

    tau: Number
    share: Number

    @property
    def rho2(self) -> Number:
        """Squared canonical correlation, tau / (1 + tau), 0 to 1."""
        return self.tau / (1 + self.tau)

    @property
    def d2(self) -> Number:
        """Squared Mahalanobis distance between the means, tau / (p (1 - p)), which does not fall with a cluster's
        rarity."""
        return self.tau / (self.share * (1 - self.share))


def fisher_many(Z: Doubles, members: Bools) -> Separability[Doubles]:
    """Compute the separability of the rows marked in each of m candidates (m, n) from the others, in the embedding Z
    (n, d); meaningful for n well above d. Raises UsageError: a cluster that is empty or holds all rows; InputError:
    shapes that do not fit, or values that are not finite."""
    Z, members = np.asarray(Z, np.float64), np.asarray(members, bool)
    _check(Z, members)
    p = members.mean(1)
    sums = members.astype(np.float64) @ whiten(Z)
    R2 = (sums**2).sum(1) / (len(Z) ** 2 * p * (1 - p))  # d = sums / (n p (1 - p)): whitened rows sum to 0
    R2 = np.minimum(R2, 1)
    return Separability(R2 / (1 + SHRINKAGE - R2), p)


def whiten(Z: Doubles) -> Doubles:
    """Whiten Z (n, d) to (n, r) with mean 0 and total scatter S_t = I, on the r directions in which Z varies."""
    centred = Z - Z.mean(0)
    deviation = centred.std(0)
    varies = deviation > FLAT * np.abs(Z).max(0)
    unit = centred[:, varies] / deviation[varies]
    variance, axes = np.linalg.eigh(unit.T @ unit / len(Z))
    kept = variance > RANK * variance.max(initial=0)
    return np.asarray(unit @ (axes[:, kept] / np.sqrt(variance[kept])), np.float64)


def _check(Z: Doubles, members: Bools) -> None:
    if Z.ndim != 2 or members.shape[1:] != Z.shape[:1]:
        raise InputError("shapes do not fit", got=f"{Z.shape}, {members.shape}", rule="needs (n, d) and (m, n)")
    if not np.isfinite(Z).all():
        raise InputError("embedding that is not finite", got=f"row {np.argmin(np.isfinite(Z).all(1))}")
    full = np.flatnonzero(members.all(1) | ~members.any(1))
    if len(full):
        raise UsageError(
            "a cluster without a rest", got=f"all or none of {len(Z)} rows", rule="needs rows on both sides"
        )
