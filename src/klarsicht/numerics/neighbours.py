"""The k nearest neighbours of every row, exactly, in blocks: memory grows as N k + block N, never as N^2.

A metric screens cheaply and measures exactly: it gives *lower bounds* on the cost of a row to all others, and
the exact cost of chosen pairs. A row whose k-th exact cost lies below every bound left out is settled; else
all rows that the bounds allow are measured too. So the graph is that of an exhaustive search in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.errors import InputError, UsageError, unknown_name

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

SPARE = 8  # candidates measured beyond k: they settle nearly all rows at once
PAIRS = 256  # pairs measured together: small enough for the cache


@dataclass(frozen=True)
class NeighbourGraph:
    """The k nearest neighbours of N rows.

    Attributes:
        indices: int32 (N, k), nearest first, equal distances by ascending index; never the row itself.
        distances: float32 (N, k), ascending, in the unit of the metric.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]

    @property
    def n(self) -> int:
        return len(self.indices)

    @property
    def k(self) -> int:
        return int(self.indices.shape[1])


class Metric(Protocol):
    """What the search needs to know of a metric. A cost is any increasing function of the distance."""

    def prepare(self, features: Floats) -> Any:
        """What is computed once for all rows; handed back as `rows`."""

    def bounds(self, rows: Any, block: slice) -> NDArray[np.float32]:
        """(b, N): lower bounds of the costs from the rows of the block to all rows."""

    def costs(self, rows: Any, i: Ints, j: Ints) -> Doubles:
        """(m,): exact costs of the pairs (i, j), each of shape (m,)."""

    def distances(self, costs: Doubles) -> Doubles:
        """The distances that belong to costs."""


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
        return cls(features, scale, blank, _screen(features, scale, blank))


def _screen(features: Floats, scale: Doubles, blank: Doubles) -> NDArray[np.float32]:
    """[x, |x|^2 (1 - margin), 1] in float32, centred: distances stay, rounding errors shrink.

    A sum of D products rounds by at most D u sum |products| (Higham 2002, 3.1), u = 2^-24, and
    2 |x||y| <= |x|^2 + |y|^2: so |x - y|^2 is off by less than margin (|x|^2 + |y|^2).
    """
    n, d = features.shape
    margin = 2 * (d + 16) * 2.0**-24
    centre = np.einsum("n,nd->d", scale, features) / n
    screen = np.ones((n, d + 3), np.float32)
    for rows in _slices(n, 4096):
        x = np.column_stack((features[rows] * scale[rows, None] - centre, blank[rows] - blank.mean()))
        screen[rows, : d + 1] = x
        screen[rows, d + 1] = (x * x).sum(1) * (1 - margin)
    return screen


@dataclass(frozen=True)
class Euclidean:
    """Euclidean distance of rows over the sum of their absolute values (the signed sum can vanish)."""

    def prepare(self, features: Floats) -> Normalised:
        return Normalised.by(features, np.abs(features).sum(1, dtype=np.float64))

    def bounds(self, rows: Normalised, block: slice) -> NDArray[np.float32]:
        """|x|^2 - 2 x.y + |y|^2 as one matrix product, its possible rounding error taken off."""
        left = rows.screen[block].copy()
        left[:, :-2] *= -2
        left[:, -2:] = left[:, :-3:-1]
        return left @ rows.screen.T

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
        return Normalised.by(features, np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64)))

    def distances(self, costs: Doubles) -> Doubles:
        return costs / 2


METRICS: dict[str, Metric] = {
    "euclidean": Euclidean(),
    "concept": Cosine(),
}


def neighbour_graph(
    features: Floats,
    metric: str = "euclidean",
    k: int = 10,
    *,
    groups: Ints | None = None,
    block: int = 256,
) -> NeighbourGraph:
    """The k nearest neighbours of every row under a metric of `METRICS`: exact, ties by lowest index.

    Args:
        features: (N, D), finite. All-zero rows are equal to each other and far from any other row x
            (`euclidean` sqrt(1 + |x|^2), `concept` 1): blank maps are a crowd of their own.
        groups: (N,) integers; rows of one group (crops of one photograph, frames of one patient) are never
            neighbours. Without it every row is its own group.
        block: rows screened together; the peak of memory is about 12 block N bytes.

    Raises:
        InputError: values that are not finite, fewer than two rows, or no columns.
        UsageError: unknown metric, k out of range, groups of another length, or a group that leaves its
            members fewer than k allowed neighbours.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    _check_features(features)
    groups = np.arange(len(features)) if groups is None else np.asarray(groups)
    _check_room(len(features), k, groups)
    return search(METRICS[metric], features, k, groups, block)


def search(metric: Metric, features: Floats, k: int, groups: Ints, block: int) -> NeighbourGraph:
    """The graph under any metric; arguments as `neighbour_graph`, already checked."""
    rows = metric.prepare(features)
    n = len(features)
    indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for part in _slices(n, block):
        bounds = metric.bounds(rows, part)
        bounds[groups[part, None] == groups] = np.inf
        indices[part], costs = _nearest(metric, rows, np.arange(n)[part], bounds, k)
        distances[part] = metric.distances(costs)
    return NeighbourGraph(indices, distances)


def _nearest(
    metric: Metric, rows: Any, i: Ints, bounds: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], Doubles]:
    """Indices and costs (b, k) of the nearest of rows i, given bounds (b, N), infinite where forbidden."""
    c = min(k + SPARE, bounds.shape[1])
    j = np.argpartition(bounds, c - 1, axis=1)[:, :c]
    lower = np.take_along_axis(bounds, j, 1)
    costs = _measured(metric, rows, np.repeat(i, c), j.ravel()).reshape(j.shape)
    costs[np.isinf(lower)] = np.inf
    order = np.lexsort((j, costs), axis=1)[:, :k]
    j, costs = np.take_along_axis(j, order, 1), np.take_along_axis(costs, order, 1)
    for r in np.flatnonzero(lower.max(1) <= costs[:, -1]):
        allowed = np.flatnonzero(bounds[r] <= costs[r, -1])
        j[r], costs[r] = _nearest_of(metric, rows, i[r], allowed, k)
    return j, costs


def _nearest_of(metric: Metric, rows: Any, i: int, allowed: Ints, k: int) -> tuple[Ints, Doubles]:
    """The k nearest to row i among allowed rows; stops at k duplicates: nothing is nearer."""
    j, costs = allowed[:0], np.empty(0)
    for part in _slices(len(allowed), PAIRS):
        new = allowed[part]
        j, costs = np.append(j, new), np.append(costs, metric.costs(rows, np.full(len(new), i), new))
        order = np.lexsort((j, costs))[:k]
        j, costs = j[order], costs[order]
        if len(costs) == k and costs[-1] == 0:
            break
    return j, costs


def _measured(metric: Metric, rows: Any, i: Ints, j: Ints) -> Doubles:
    """Costs of many pairs, a few thousand at a time, so that memory stays small."""
    return np.concatenate([metric.costs(rows, i[part], j[part]) for part in _slices(len(i), PAIRS)])


def _slices(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _check_features(features: Floats) -> None:
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


def _check_room(n: int, k: int, groups: Ints) -> None:
    if not 1 <= k < n:
        raise UsageError("k out of range", got=k, rule=f"{n} rows have 1 to {n - 1} neighbours")
    if groups.shape != (n,):
        raise UsageError("groups of another length", got=groups.shape, rule=f"one integer a row: ({n},)")
    names, sizes = np.unique(groups, return_counts=True)
    if n - sizes.max() < k:
        raise UsageError(
            "a group leaves its members too few neighbours",
            got=f"{sizes.max()} of {n} rows in group {names[sizes.argmax()]}",
            rule=f"at least {k} rows must be outside",
            remedy="Lower k, or split the group.",
        )


def centre_by_group(X: Floats, groups: Ints) -> Floats:
    """X (N, D) less the median of each row's group (N,): how a row differs from others of its own source.

    A group of one has nothing to differ from, so it is centred by the median of all rows.
    """
    centred = X - np.median(X, axis=0)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group = np.argsort(group, kind="stable")
    for size in np.unique(sizes[sizes > 1]):
        members = by_group[sizes[group[by_group]] == size].reshape(-1, size)
        centred[members] = X[members] - np.median(X[members], axis=1, keepdims=True)
    return centred
