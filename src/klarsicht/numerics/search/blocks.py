"""Block-wise k-nearest-neighbour search under any metric: memory grows as N k + block N, never as N^2.

A metric *estimates* costs cheaply, from a few rows to all, and *measures* chosen pairs expensively. The graph is that
of an exhaustive search where estimates are lower bounds (`estimates_are_bounds`): all rows are measured that they do
not exclude; or, where pairs have lower bounds as well (`pair_bounds`), after the pairs of best estimates every pair
that no bound excludes. Else only the pairs of best estimates are measured, five for each neighbour wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.numerics.compiled.smallest import smallest_columns

PairBounds = Callable[[Any, Ints, Ints], Floats]

EXTRA_CANDIDATES = 24  # candidates measured beyond k where estimates are bounds: for nearly all rows they suffice
CANDIDATES_PER_NEIGHBOUR = 5  # candidates for each neighbour where estimates are no bounds


@dataclass(frozen=True)
class NeighbourGraph:
    """The k nearest neighbours of N rows: int32 indices (N, k), nearest first, equal distances by ascending index,
    never the row itself; and their distances, float32 (N, k)."""

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]

    @property
    def n(self) -> int:
        return len(self.indices)

    @property
    def k(self) -> int:
        return int(self.indices.shape[1])


class Metric(Protocol):
    """Interface of a metric for the search. A cost is any increasing function of the distance. `i`, `j` are the rows of
    pairs (m,); the search always passes i <= j, so that a cost does not depend on the order of a pair."""

    @property
    def estimates_are_bounds(self) -> bool:
        """Whether the estimates are lower bounds of the costs."""

    @property
    def pair_bounds(self) -> tuple[PairBounds, ...]:
        """Lower bounds of the costs of pairs, (rows, i, j) -> (m,), from cheap and loose to expensive and tight."""

    @property
    def batch(self) -> int:
        """Number of pairs measured together: small where the cache matters, large where threads share them."""

    def prepare(self, items: Any) -> Any:
        """Check and preprocess all N items once; the result is passed back as `rows`."""

    def estimates(self, rows: Any, block: slice) -> NDArray[np.float32]:
        """Estimate the costs (b, N) from the rows of the block to all rows; the caller may overwrite the array."""

    def costs(self, rows: Any, i: Ints, j: Ints) -> Doubles:
        """Measure the costs (m,) of the pairs."""

    def distances(self, costs: Doubles) -> Doubles:
        """Convert costs to distances."""


class SquaredDistance:
    """Base class of metrics whose costs are squared distances, and whose estimates are no bounds unless it says so."""

    estimates_are_bounds: ClassVar[bool] = False

    @property
    def pair_bounds(self) -> tuple[PairBounds, ...]:
        return ()

    def distances(self, costs: Doubles) -> Doubles:
        return np.asarray(np.sqrt(costs))


@dataclass(frozen=True)
class Nearest:
    """The k nearest measured rows so far: indices and costs (N, k), by cost, then index; N and infinite where
    unknown."""

    indices: NDArray[np.int64]
    costs: Doubles

    @classmethod
    def empty(cls, n: int, k: int) -> Nearest:
        return cls(np.full((n, k), n), np.full((n, k), np.inf))

    @property
    def kth_costs(self) -> Doubles:
        """Cost of the k-th nearest (N,): pairs of larger cost cannot be neighbours of the row."""
        return self.costs[:, -1]

    def add_pairs(self, i: Ints, j: Ints, costs: Doubles) -> Nearest:
        """Update with the costs of new pairs (i, j), each for both of its rows."""
        n, k = self.indices.shape
        row = np.concatenate((np.repeat(np.arange(n), k), i, j))
        column = np.concatenate((self.indices.ravel(), j, i))
        cost = np.concatenate((self.costs.ravel(), costs, costs))
        order = np.lexsort((column, cost, row))
        chosen = order[np.searchsorted(row[order], np.arange(n))[:, None] + np.arange(k)]
        return Nearest(column[chosen], cost[chosen])


def search(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> NeighbourGraph:
    """Compute the graph of N prepared rows, each with k rows outside its group (N,), which are no neighbours."""
    by_estimates = search_by_bounds if metric.estimates_are_bounds else search_by_estimates
    find = search_by_pair_bounds if metric.pair_bounds else by_estimates
    found = find(metric, rows, k, groups, block)
    distances = np.concatenate([metric.distances(found.costs[part]) for part in slices(len(groups), block)])
    return NeighbourGraph(found.indices.astype(np.int32), distances.astype(np.float32))


def all_pairs(metric: Metric, rows: Any, n: int) -> Doubles:
    """Compute all distances (N, N) of N prepared rows, 0 on the diagonal."""
    i, j = np.triu_indices(n, 1)
    D = np.zeros((n, n))
    D[i, j] = D[j, i] = metric.distances(measure_pairs(metric, rows, i, j))
    return D


def search_by_bounds(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """Find the k nearest where estimates are lower bounds and measuring is cheap."""
    found = Nearest.empty(len(groups), k)
    for part, estimates in _blocks(metric, rows, groups, block):
        found.indices[part], found.costs[part] = _nearest(metric, rows, np.arange(len(groups))[part], estimates, k)
    return found


def search_by_estimates(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """Find the k nearest among the pairs that are among the CANDIDATES_PER_NEIGHBOUR k best estimates of either row."""
    i, j = _candidates(metric, rows, k, groups, block)
    return Nearest.empty(len(groups), k).add_pairs(i, j, measure_pairs(metric, rows, i, j))


def search_by_pair_bounds(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> Nearest:
    """Find the k nearest where pairs have lower bounds: candidates, then all that no bound excludes."""
    n = len(groups)
    i, j = _candidates(metric, rows, k, groups, block)
    pair_numbers, nearest = i * n + j, Nearest.empty(n, k).add_pairs(i, j, measure_pairs(metric, rows, i, j))
    for part, estimates in _blocks(metric, rows, groups, block):
        useful = np.maximum(nearest.kth_costs[part, None], nearest.kth_costs)
        useful[~np.isfinite(estimates)] = -np.inf
        i, j = np.nonzero(np.triu(estimates <= useful, part.start + 1))
        new = ~np.isin((i + part.start) * n + j, pair_numbers)
        i, j = _drop_excluded(metric, rows, i[new] + part.start, j[new], nearest.kth_costs)
        nearest = nearest.add_pairs(i, j, measure_pairs(metric, rows, i, j))
    return nearest


def measure_pairs(metric: Metric, rows: Any, i: Ints, j: Ints) -> Doubles:
    """Measure the costs (m,) of many pairs, in batches."""
    return np.asarray(_evaluate_in_batches(metric.costs, metric.batch, rows, np.minimum(i, j), np.maximum(i, j)))


def _evaluate_in_batches(of_pairs: PairBounds, batch: int, rows: Any, i: Ints, j: Ints) -> Floats:
    """Evaluate a function of pairs (m,) in batches, so that memory stays small."""
    return np.concatenate([np.empty(0), *(of_pairs(rows, i[part], j[part]) for part in slices(len(i), batch))])


def slices(n: int, step: int) -> Iterator[slice]:
    """Yield consecutive slices of `step` items that cover n items."""
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _blocks(metric: Metric, rows: Any, groups: Ints, block: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield blocks of rows with their estimates (b, N), infinite for pairs of one group."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group, ends = np.argsort(group, kind="stable"), np.append(0, np.cumsum(sizes))
    for part in slices(len(groups), block):
        estimates = metric.estimates(rows, part)
        for row, own in zip(estimates, group[part], strict=True):
            row[by_group[ends[own] : ends[own + 1]]] = np.inf
        yield part, estimates


def _candidates(metric: Metric, rows: Any, k: int, groups: Ints, block: int) -> tuple[Ints, Ints]:
    """List the pairs i < j that are among the CANDIDATES_PER_NEIGHBOUR k best estimates of either row."""
    n = len(groups)
    c, pairs = min(CANDIDATES_PER_NEIGHBOUR * k, n - 1), []
    for part, estimates in _blocks(metric, rows, groups, block):
        j = smallest_columns(estimates, c)
        i = np.broadcast_to(np.arange(n)[part, None], j.shape)
        allowed = np.isfinite(np.take_along_axis(estimates, j, 1))
        i, j = i[allowed], j[allowed]
        pairs.append(np.minimum(i, j) * n + np.maximum(i, j))
    i, j = np.divmod(np.unique(np.concatenate(pairs)), n)
    return i, j


def _drop_excluded(metric: Metric, rows: Any, i: Ints, j: Ints, reach: Doubles) -> tuple[Ints, Ints]:
    """Drop the pairs i < j whose lower bounds exceed the k-th cost of both rows."""
    for bounds in metric.pair_bounds:
        useful = _evaluate_in_batches(bounds, metric.batch, rows, i, j) <= np.maximum(reach[i], reach[j])
        i, j = i[useful], j[useful]
    return i, j


def _nearest(
    metric: Metric, rows: Any, i: Ints, estimates: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], Doubles]:
    """Find the indices and costs (b, k) of the nearest of rows i, given estimates (b, N), infinite where forbidden."""
    c = min(k + EXTRA_CANDIDATES, estimates.shape[1])
    j = smallest_columns(estimates, c)
    lower = np.take_along_axis(estimates, j, 1)
    costs = measure_pairs(metric, rows, np.repeat(i, c), j.ravel()).reshape(j.shape)
    costs[np.isinf(lower)] = np.inf
    order = np.lexsort((j, costs), axis=1)[:, :k]
    j, costs = np.take_along_axis(j, order, 1), np.take_along_axis(costs, order, 1)
    for r in np.flatnonzero(lower.max(1) <= costs[:, -1]):
        allowed = np.flatnonzero(estimates[r] <= costs[r, -1])
        j[r], costs[r] = _nearest_of(metric, rows, i[r], allowed, k)
    return j, costs


def _nearest_of(metric: Metric, rows: Any, i: int, others: Ints, k: int) -> tuple[Ints, Doubles]:
    """Find the k nearest to row i among allowed rows; stops once k rows of distance 0 are known."""
    j, costs = others[:0], np.empty(0)
    for part in slices(len(others), metric.batch):
        new = others[part]
        j, costs = np.append(j, new), np.append(costs, measure_pairs(metric, rows, np.full(len(new), i), new))
        order = np.lexsort((j, costs))[:k]
        j, costs = j[order], costs[order]
        if len(costs) == k and costs[-1] == 0:
            break
    return j, costs
