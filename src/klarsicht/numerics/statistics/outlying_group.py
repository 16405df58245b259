"""Find a group of rows that stands apart from the rest of its class and from all other classes, and test it.

An unknown artifact moves its carriers together, in an unknown direction of a description. On one half of a class many
small groups are tried: clusters, and each image with its nearest neighbours. A group's discriminant direction (Fisher)
is improved by the rows that lie beyond the other classes in it; the one of the largest surprisal is tested on the other
half, as far as the group holds more than a subgroup that thins out would (`extrapolated_rate`). Other classes may hold
artifacts as well, and few of their carriers beyond the edge hide a rare group; see `OtherClasses`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Rows
from klarsicht.numerics.statistics.base_rate import extrapolated_rate, null_rate, select_above_gap
from klarsicht.numerics.statistics.split_half import binomial_surprisal

DIMENSIONS = 60  # principal components of the reference that are kept
RELATIVE = 1e-6  # of the largest variance; components of less are dropped
CLUSTERS = (2, 4, 8, 14)  # numbers of clusters whose groups are tried
NEIGHBOURS = (4, 9)  # images in the groups of nearest neighbours, itself included
ROUNDS = 2  # how often a direction is improved
KEPT = 60  # directions that are improved
ROWS_EACH = 3  # rows of a half for each component, or a direction is fitted to chance
LEAST, MOST = 3, 0.6  # rows of a group, and share of the class
REFERENCE_SHARE = 0.002  # of the reference beyond the edge, by default
BAND = 0.4  # of the way from the class's median to the edge: width of the band below the edge
FIRST_SHARE = 0.02  # of the reference beyond the edge by which classes are left out of a direction
LEFT_OUT = 0.1  # share of the other classes that are left out: those with most rows beyond that edge
SHRINKAGE = 0.2  # added to the mean of the class's covariance and the reference's


@dataclass(frozen=True)
class Whitening:
    """Principal components (d, r) of a reference of mean (d,), each of unit variance, at most DIMENSIONS of them."""

    mean: Doubles
    components: Doubles

    @classmethod
    def of(cls, reference: Floats) -> Whitening:
        """Compute the whitening of reference rows (m, d); columns count in units of their deviation."""
        mean, deviation = reference.mean(0), reference.std(0)
        unit = np.where(deviation > 1e-9, deviation, 1)
        _, values, axes = np.linalg.svd((reference - mean) / unit, full_matrices=False)
        variance = values**2 / max(1, len(reference) - 1)
        kept = variance[:DIMENSIONS] > RELATIVE * max(variance.max(initial=0), 1e-12)
        return cls(mean, axes[:DIMENSIONS][kept].T / unit[:, None] / np.sqrt(variance[:DIMENSIONS][kept]))

    def __call__(self, rows: Floats) -> Doubles:
        """Whiten rows (n, d): (n, r)."""
        return np.asarray((rows - self.mean) @ self.components, np.float64)


class Exceedance(NamedTuple):
    """Rows of a class beyond an edge (s,) that hardly any row of the reference exceeds, for s directions: the surprisal
    (s,), in nats, of so many."""

    surprisal: Floats
    edge: Floats

    @classmethod
    def of(cls, own: Floats, reference: Floats, share: float) -> Exceedance:
        """Compare projections of a class (s, n) with those of the reference (s, m), a share of which exceeds the
        edge."""
        edge = np.quantile(reference, 1 - share, axis=1, keepdims=True)
        band = BAND * np.maximum(edge - np.median(own, 1, keepdims=True), 0)
        rate = np.maximum(null_rate(own, reference, edge), extrapolated_rate(own, edge, 1.0, band))
        return cls(binomial_surprisal((own > edge).sum(1), own.shape[1], rate), edge[:, 0])


@dataclass(frozen=True)
class OtherClasses:
    """Rows (m, r) of other classes, in the order of their classes, and the first row (c,) of each class; None where the
    classes are not known, and none is left out of any direction."""

    rows: Doubles
    first: Rows | None = None

    @classmethod
    def of(cls, rows: Doubles, classes: Ints | None) -> OtherClasses:
        """Sort rows (m, r) by their classes, int (m,); None where these are not known."""
        if classes is None:
            return cls(rows)
        order = np.argsort(classes, kind="stable")
        return cls(rows[order], np.unique(classes[order], return_index=True)[1])

    def project(self, directions: Doubles) -> Doubles:
        """Project the rows on directions (s, r): (s, m). In each direction the LEFT_OUT of the classes with most rows
        beyond its FIRST_SHARE may hold the artifact that it parts, and count as the median; of fewer than 1 / LEFT_OUT
        classes, none."""
        values = np.asarray(directions @ self.rows.T, np.float64)
        left_out = 0 if self.first is None else int(LEFT_OUT * len(self.first))
        if self.first is None or not left_out:
            return values
        beyond = values > np.quantile(values, 1 - FIRST_SHARE, axis=1, keepdims=True)
        counts = np.add.reduceat(beyond, self.first, axis=1, dtype=np.intp)
        most = np.zeros(counts.shape, bool)
        np.put_along_axis(most, np.argsort(-counts, 1, kind="stable")[:, :left_out], True, 1)
        sizes = np.diff(np.append(self.first, len(self.rows)))
        middle = np.median(values, 1, keepdims=True)
        return np.asarray(np.where(np.repeat(most, sizes, axis=1), middle, values))


@dataclass(frozen=True)
class OutlyingGroup:
    """Group that stands apart: the mean surprisal in nats of the directions of either half, each on the other half, and
    the rows, bool (n,), beyond the edge in the direction of larger surprisal."""

    score: float
    member: Bools


def find_outlying_group(
    own: Doubles, reference: Doubles, half: Bools, distinct: Bools, seed: int, share: float = REFERENCE_SHARE,
    whiten: bool = True, classes: Ints | None = None,
) -> OutlyingGroup:  # fmt: skip
    """Find the group of a class that stands apart most. own, reference: rows (n, r) of the class, and (m, r) of other
    classes. half, distinct: bool (n,), rows of the first half, and rows that count; of repeats of one source, one.
    seed: seed of the clustering. share: share of the reference beyond the edge; other classes may hold the same
    artifact. whiten: whether rows are whitened; then directions are Fisher's discriminants in the first components,
    else differences of means, which fit no covariance to few carriers of what an embedding was taught to separate.
    classes: int (m,), of the reference; with them a tenth is left out of each direction (`OtherClasses`)."""
    halves = [own[part & distinct] for part in (half, ~half)]
    smaller = min(map(len, halves))
    if smaller < 2 * LEAST or not own.shape[1] or len(reference) < 2:
        return OutlyingGroup(0.0, np.zeros(len(own), bool))
    if whiten:
        own, reference = own[:, : smaller // ROWS_EACH], reference[:, : smaller // ROWS_EACH]
        halves = [own[part & distinct] for part in (half, ~half)]
    others = OtherClasses.of(reference, classes)
    directions = [
        find_direction(rows, others, _within_precision(rows) if whiten else None, seed, share) for rows in halves
    ]
    tests = [
        float(Exceedance.of((rows @ w)[None], others.project(w[None]), share).surprisal[0])
        for rows, w in zip(halves[::-1], directions, strict=True)
    ]
    w = directions[int(np.argmax(tests))]
    edge = float(Exceedance.of((own[distinct] @ w)[None], others.project(w[None]), share).edge[0])
    return OutlyingGroup(float(np.mean(tests)), select_above_gap(own @ w, edge))


def find_direction(
    rows: Doubles, others: OtherClasses, precision: Doubles | None, seed: int, share: float = REFERENCE_SHARE
) -> Doubles:
    """Find the direction (r,) of the largest surprisal beside other classes, of those that groups of the rows (n, r)
    suggest: the difference of means, times a precision (r, r) where one is given."""
    groups, best = _initial_groups(rows, seed), (-1.0, np.zeros(rows.shape[1]))
    for _ in range(ROUNDS + 1):
        if not len(groups):
            break
        size = groups.sum(1, keepdims=True)
        inside = groups @ rows / size
        outside = (len(rows) * rows.mean(0) - size * inside) / (len(rows) - size)
        directions = inside - outside if precision is None else (inside - outside) @ precision
        projected = directions @ rows.T
        exceedance = Exceedance.of(projected, others.project(directions), share)
        top = int(exceedance.surprisal.argmax())
        if exceedance.surprisal[top] > best[0]:
            best = (float(exceedance.surprisal[top]), directions[top])
        kept = np.argsort(-exceedance.surprisal, kind="stable")[:KEPT]
        groups = _admissible(np.stack([select_above_gap(projected[i], float(exceedance.edge[i])) for i in kept]))
    return best[1]


def _within_precision(rows: Doubles) -> Doubles:
    """Invert the covariance of rows, shrunk towards that of the reference, which is the identity."""
    one = np.eye(rows.shape[1])
    return np.asarray(np.linalg.inv((np.cov(rows.T).reshape(one.shape) + one) / 2 + SHRINKAGE * one), np.float64)


def _initial_groups(rows: Doubles, seed: int) -> Bools:
    """Return clusters, and each row with its nearest neighbours: bool (s, n)."""
    n = len(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer than k distinct rows: fewer clusters
        means = [KMeans(k, n_init=1, max_iter=50, random_state=seed) for k in CLUSTERS if k < n]
        labels = [one.fit_predict(rows) for one in means]
    clusters = [label == c for label in labels for c in range(int(label.max()) + 1)]
    square = (rows**2).sum(1)
    order = np.argsort(square[:, None] - 2 * rows @ rows.T + square, 1, kind="stable")
    groups = list(clusters)
    for k in NEIGHBOURS:
        near = np.zeros((n, n), bool)
        np.put_along_axis(near, order[:, :k], True, 1)
        groups.extend(near)
    return _admissible(np.stack(groups))


def _admissible(groups: Bools) -> Bools:
    """Return the distinct groups (s, n) of LEAST rows to MOST of them."""
    size = groups.sum(1)
    return np.asarray(np.unique(groups[(size >= LEAST) & (size <= MOST * groups.shape[1])], axis=0))
