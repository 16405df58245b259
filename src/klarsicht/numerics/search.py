"""The k nearest neighbours under any metric, in blocks: memory grows as N k + block N, never as N^2.

A metric *estimates* cheaply and *measures* dearly: it estimates the costs from a few rows to all, and measures
chosen pairs. How much the graph can claim follows from what the metric knows of its estimates:

- they are lower bounds (`certain`), or it has lower bounds of pairs (`tighter`): every pair that the bounds cannot
  exclude is measured, so the graph is that of an exhaustive search;
- neither: only the pairs with the best estimates are measured, three times as many as neighbours are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
PairBounds = Callable[[Any, Ints, Ints], Floats]

SPARE = 8  # candidates measured beyond k where estimates are bounds: they settle nearly all rows at once
TIMES = 3  # candidates for each neighbour where they are not


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


def search(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> NeighbourGraph:
    """The graph of N prepared rows. `groups`: (N,), rows of one group are never neighbours, k others exist for each."""
    among = exhaustively if metric.certain or metric.tighter else among_candidates
    indices, costs = among(metric, rows, k, groups, block)
    distances = np.concatenate([metric.distances(costs[part]) for part in slices(len(groups), block)])
    return NeighbourGraph(indices.astype(np.int32), distances.astype(np.float32))


def all_pairs(metric: Metric, rows: Any, n: int) -> Doubles:
    """(N, N): all distances of N prepared rows, 0 on the diagonal."""
    i, j = np.triu_indices(n, 1)
    D = np.zeros((n, n))
    D[i, j] = D[j, i] = metric.distances(measured(metric, rows, i, j))
    return D


def exhaustively(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> tuple[Ints, Doubles]:
    """(N, k): the k nearest of all, and their costs."""
    n = len(groups)
    indices, costs = np.empty((n, k), np.int32), np.empty((n, k))
    for part, estimates in _blocks(metric, rows, groups, block):
        indices[part], costs[part] = _nearest(metric, rows, np.arange(n)[part], estimates, k)
    return indices, costs


def among_candidates(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> tuple[Ints, Doubles]:
    """(N, k): the k nearest among pairs that one of the two rows estimates among its best, and their costs."""
    n = len(groups)
    i, j = _candidates(metric, rows, min(TIMES * k, n - 1), groups, block)
    costs = measured(metric, rows, i, j)
    i, j, costs = np.append(i, j), np.append(j, i), np.append(costs, costs)
    order = np.lexsort((j, costs, i))
    first = np.searchsorted(i[order], np.arange(n))
    chosen = order[first[:, None] + np.arange(k)]
    return j[chosen], costs[chosen]


def measured(metric: Metric, rows: Any, i: Ints, j: Ints) -> Doubles:
    """(m,): the costs of many pairs, some at a time, so that memory stays small."""
    i, j = np.minimum(i, j), np.maximum(i, j)
    return np.concatenate([np.empty(0), *(metric.costs(rows, i[p], j[p]) for p in slices(len(i), metric.batch))])


def slices(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _blocks(metric: Metric, rows: Any, groups: Ints, block: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of rows with their estimates (b, N), infinite where two rows may not be neighbours."""
    for part in slices(len(groups), block):
        estimates = metric.estimates(rows, part)
        estimates[groups[part, None] == groups] = np.inf
        yield part, estimates


def _candidates(metric: Metric, rows: Any, c: int, groups: Ints, block: int) -> tuple[Ints, Ints]:
    """Pairs i < j, each once, that are among the c best estimates of either row."""
    n = len(groups)
    pairs = []
    for part, estimates in _blocks(metric, rows, groups, block):
        j = np.argpartition(estimates, c - 1, axis=1)[:, :c]
        i = np.broadcast_to(np.arange(n)[part, None], j.shape)
        allowed = np.isfinite(np.take_along_axis(estimates, j, 1))
        i, j = i[allowed], j[allowed]
        pairs.append(np.minimum(i, j) * n + np.maximum(i, j))
    i, j = np.divmod(np.unique(np.concatenate(pairs)), n)
    return i, j


def _nearest(
    metric: Metric, rows: Any, i: Ints, estimates: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], Doubles]:
    """Indices and costs (b, k) of the nearest of rows i, given estimates (b, N), infinite where forbidden."""
    c = min(k + SPARE if metric.certain else TIMES * k, estimates.shape[1])
    j = np.argpartition(estimates, c - 1, axis=1)[:, :c]
    lower = np.take_along_axis(estimates, j, 1)
    costs = measured(metric, rows, np.repeat(i, c), j.ravel()).reshape(j.shape)
    costs[np.isinf(lower)] = np.inf
    order = np.lexsort((j, costs), axis=1)[:, :k]
    j, costs = np.take_along_axis(j, order, 1), np.take_along_axis(costs, order, 1)
    for r in np.flatnonzero(lower.max(1) <= costs[:, -1]) if metric.certain else range(len(i)):
        allowed = _allowed(metric, rows, i[r], estimates[r], costs[r, -1])
        j[r], costs[r] = _nearest_of(metric, rows, i[r], allowed, k)
    return j, costs


def _allowed(metric: Metric, rows: Any, i: int, estimates: NDArray[np.float32], cost: float) -> Ints:
    """Rows that no bound keeps from costing row i this much or less."""
    j = np.flatnonzero(estimates <= cost if metric.certain else np.isfinite(estimates))
    for bounds in metric.tighter:
        of = np.full(len(j), i)
        j = j[bounds(rows, np.minimum(of, j), np.maximum(of, j)) <= cost]
    return j


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
