"""The k nearest neighbours under any metric, in blocks: memory grows as N k + block N, never as N^2.

A metric *estimates* cheaply and *measures* dearly: it estimates the costs from a few rows to all, and measures
chosen pairs. How the search goes, and what the graph can claim, follows from what the metric knows:

- its estimates are lower bounds (`certain`): row by row, all that the estimates cannot exclude are measured;
- it has lower bounds of pairs (`tighter`), so measuring is dear: the pairs of best estimates are measured, then every
  pair that no bound can exclude, each once;
- neither: the pairs of best estimates are measured, five for each neighbour wanted, and that is all.

The first two give the graph of an exhaustive search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.numerics.compiled.smallest import least

PairBounds = Callable[[Any, Ints, Ints], Floats]

SPARE = 24  # candidates measured beyond k where estimates are bounds: they settle nearly all rows at once
TIMES = 5  # candidates for each neighbour where they are not


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
    """What the search needs to know of a metric. A cost is any increasing function of the distance.

    `i`, `j` name pairs of rows, integers of shape (m,); the search always hands them over with i <= j, so a cost
    belongs to the pair and not to a direction.
    """

    @property
    def certain(self) -> bool:
        """Whether the estimates are lower bounds of the costs."""

    @property
    def tighter(self) -> tuple[PairBounds, ...]:
        """Lower bounds of the costs of pairs, (rows, i, j) -> (m,), cheap and loose before dear and sharp."""

    @property
    def batch(self) -> int:
        """Pairs measured together: few where the cache matters, many where threads share them."""

    def prepare(self, items: Any) -> Any:
        """What is computed once for all N items, refusing those it cannot compare; handed back as `rows`."""

    def estimates(self, rows: Any, block: slice) -> NDArray[np.float32]:
        """(b, N): a cheap guess of the costs from the rows of the block to all rows, free to be written to."""

    def costs(self, rows: Any, i: Ints, j: Ints) -> Doubles:
        """(m,): the costs of the pairs."""

    def distances(self, costs: Doubles) -> Doubles:
        """The distances that belong to costs."""


@dataclass(frozen=True)
class Nearest:
    """The k nearest found so far of N rows.

    Attributes:
        indices, costs: (N, k), by ascending cost, then index; N and infinite where none is found yet.
    """

    indices: NDArray[np.int64]
    costs: Doubles

    @classmethod
    def none(cls, n: int, k: int) -> Nearest:
        return cls(np.full((n, k), n), np.full((n, k), np.inf))

    @property
    def reach(self) -> Doubles:
        """(N,): the cost of the k-th: more than this is of no use to a row."""
        return self.costs[:, -1]

    def among(self, i: Ints, j: Ints, costs: Doubles) -> Nearest:
        """The nearest among these and the pairs (i, j), none of them known yet, each for both of its rows."""
        n, k = self.indices.shape
        row = np.concatenate((np.repeat(np.arange(n), k), i, j))
        column = np.concatenate((self.indices.ravel(), j, i))
        cost = np.concatenate((self.costs.ravel(), costs, costs))
        order = np.lexsort((column, cost, row))
        chosen = order[np.searchsorted(row[order], np.arange(n))[:, None] + np.arange(k)]
        return Nearest(column[chosen], cost[chosen])


def search(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> NeighbourGraph:
    """The graph of N prepared rows. `groups`: (N,), rows of one group are never neighbours, k others exist for each."""
    find = by_bounds_of_pairs if metric.tighter else by_bounds if metric.certain else by_estimates
    found = find(metric, rows, k, groups, block)
    distances = np.concatenate([metric.distances(found.costs[part]) for part in slices(len(groups), block)])
    return NeighbourGraph(found.indices.astype(np.int32), distances.astype(np.float32))


def all_pairs(metric: Metric, rows: Any, n: int) -> Doubles:
    """(N, N): all distances of N prepared rows, 0 on the diagonal."""
    i, j = np.triu_indices(n, 1)
    D = np.zeros((n, n))
    D[i, j] = D[j, i] = metric.distances(measured(metric, rows, i, j))
    return D


def by_bounds(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """The k nearest where estimates are bounds and measuring is cheap."""
    found = Nearest.none(len(groups), k)
    for part, estimates in _blocks(metric, rows, groups, block):
        found.indices[part], found.costs[part] = _nearest(metric, rows, np.arange(len(groups))[part], estimates, k)
    return found


def by_estimates(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """The k nearest among the pairs that either row has among its TIMES k best estimates."""
    i, j = _candidates(metric, rows, k, groups, block)
    return Nearest.none(len(groups), k).among(i, j, measured(metric, rows, i, j))


def by_bounds_of_pairs(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """The k nearest where pairs have bounds and measuring is dear: after the candidates, what no bound excludes."""
    n = len(groups)
    i, j = _candidates(metric, rows, k, groups, block)
    known, found = i * n + j, Nearest.none(n, k).among(i, j, measured(metric, rows, i, j))
    for part, estimates in _blocks(metric, rows, groups, block):
        useful = np.maximum(found.reach[part, None], found.reach)
        useful[~np.isfinite(estimates)] = -np.inf
        i, j = np.nonzero(np.triu(estimates <= useful if metric.certain else useful > 0, part.start + 1))
        new = ~np.isin((i + part.start) * n + j, known)
        i, j = _unexcluded(metric, rows, i[new] + part.start, j[new], found.reach)
        found = found.among(i, j, measured(metric, rows, i, j))
    return found


def measured(metric: Metric, rows: Any, i: Ints, j: Ints) -> Doubles:
    """(m,): the costs of many pairs."""
    return np.asarray(_some_at_a_time(metric.costs, metric.batch, rows, np.minimum(i, j), np.maximum(i, j)))


def _some_at_a_time(of_pairs: PairBounds, batch: int, rows: Any, i: Ints, j: Ints) -> Floats:
    """(m,): a function of many pairs, evaluated on a few at once, so that memory stays small."""
    return np.concatenate([np.empty(0), *(of_pairs(rows, i[part], j[part]) for part in slices(len(i), batch))])


def slices(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _blocks(metric: Metric, rows: Any, groups: Ints, block: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of rows with their estimates (b, N), infinite where two rows may not be neighbours."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group, ends = np.argsort(group, kind="stable"), np.append(0, np.cumsum(sizes))
    for part in slices(len(groups), block):
        estimates = metric.estimates(rows, part)
        for row, own in zip(estimates, group[part], strict=True):
            row[by_group[ends[own] : ends[own + 1]]] = np.inf
        yield part, estimates


def _candidates(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> tuple[Ints, Ints]:
    """Pairs i < j, each once and in order, that are among the TIMES k best estimates of either row."""
    n = len(groups)
    c, pairs = min(TIMES * k, n - 1), []
    for part, estimates in _blocks(metric, rows, groups, block):
        j = least(estimates, c)
        i = np.broadcast_to(np.arange(n)[part, None], j.shape)
        allowed = np.isfinite(np.take_along_axis(estimates, j, 1))
        i, j = i[allowed], j[allowed]
        pairs.append(np.minimum(i, j) * n + np.maximum(i, j))
    i, j = np.divmod(np.unique(np.concatenate(pairs)), n)
    return i, j


def _unexcluded(metric: Metric, rows: Any, i: Ints, j: Ints, reach: Doubles) -> tuple[Ints, Ints]:
    """The pairs i < j of which no bound tells that they are of no use to either row."""
    for bounds in metric.tighter:
        useful = _some_at_a_time(bounds, metric.batch, rows, i, j) <= np.maximum(reach[i], reach[j])
        i, j = i[useful], j[useful]
    return i, j


def _nearest(
    metric: Metric, rows: Any, i: Ints, estimates: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], Doubles]:
    """Indices and costs (b, k) of the nearest of rows i, given estimates (b, N), infinite where forbidden."""
    c = min(k + SPARE, estimates.shape[1])
    j = least(estimates, c)
    lower = np.take_along_axis(estimates, j, 1)
    costs = measured(metric, rows, np.repeat(i, c), j.ravel()).reshape(j.shape)
    costs[np.isinf(lower)] = np.inf
    order = np.lexsort((j, costs), axis=1)[:, :k]
    j, costs = np.take_along_axis(j, order, 1), np.take_along_axis(costs, order, 1)
    for r in np.flatnonzero(lower.max(1) <= costs[:, -1]):
        allowed = np.flatnonzero(estimates[r] <= costs[r, -1])
        j[r], costs[r] = _nearest_of(metric, rows, i[r], allowed, k)
    return j, costs


def _nearest_of(metric: Metric, rows: Any, i: int, allowed: Ints, k: int) -> tuple[Ints, Doubles]:
    """The k nearest to row i among allowed rows; stops at k duplicates: nothing is nearer."""
    j, costs = allowed[:0], np.empty(0)
    for part in slices(len(allowed), metric.batch):
        new = allowed[part]
        j, costs = np.append(j, new), np.append(costs, measured(metric, rows, np.full(len(new), i), new))
        order = np.lexsort((j, costs))[:k]
        j, costs = j[order], costs[order]
        if len(costs) == k and costs[-1] == 0:
            break
    return j, costs
