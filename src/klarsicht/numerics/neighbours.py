"""The k nearest neighbours of every row under a metric of `METRICS`: the door to `metrics` and `search`."""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.numerics.metrics import METRICS
from klarsicht.numerics.search.blocks import Metric, NeighbourGraph, all_pairs, search
from klarsicht.numerics.transport.measures import PointMeasures

__all__ = ["METRICS", "NeighbourGraph", "centre_by_group", "neighbour_graph", "pairwise"]

LARGEST = 4000  # items whose N x N distances are handed out
BLOCK, ESTIMATES = 256, 2**23  # items, and pairs, that are estimated together at most


def neighbour_graph(
    items: Floats | PointMeasures,
    metric: str | Metric = "euclidean",
    k: int = 10,
    *,
    groups: Ints | None = None,
    block: int | None = None,
) -> NeighbourGraph:
    """The k nearest neighbours of every item; ties by lowest index.

    Exact, except under metrics that estimate without bounds (`wasserstein-tsr`, `sliced-rotation`, `gromov`): those
    measure the 5 k best estimates of each item, and a pair counts for both.

    Args:
        items: what the metric compares. Feature rows (N, D), finite, for `euclidean` and `concept`: all-zero rows are
            equal to each other and far from any other row x (`euclidean` sqrt(1 + |x|^2), `concept` 1), so blank maps
            are a crowd of their own. `PointMeasures` for all others, none of them set aside.
        metric: a name of `METRICS`, or a metric built by hand.
        groups: (N,) integers; items of one group (crops of one photograph, frames of one patient) are never
            neighbours. Without it every item is its own group.
        block: items estimated together, by default 256 or as many as make 8 million estimates; the peak of memory is
            about 12 block N bytes beyond the items themselves.

    Raises:
        InputError: not what the metric compares, values that are not finite, measures set aside or without the extent
            that the metric needs, or fewer than two items.
        UsageError: unknown metric, k out of range, groups of another length, or a group that leaves its
            members fewer than k allowed neighbours.
    """
    chosen = _named(metric)
    rows = chosen.prepare(items)
    groups = np.arange(len(items)) if groups is None else np.asarray(groups)
    _check_room(len(items), k, groups)
    return search(chosen, rows, k, groups, block or max(1, min(BLOCK, ESTIMATES // len(items))))


def pairwise(items: Floats | PointMeasures, metric: str | Metric = "euclidean") -> Doubles:
    """All distances of N items, float64 (N, N), 0 on the diagonal; arguments and errors as `neighbour_graph`.

    Raises:
        UsageError: more than 4,000 items.
    """
    chosen = _named(metric)
    if len(items) > LARGEST:
        raise UsageError(
            "too many items for all their distances",
            got=len(items),
            rule=f"at most {LARGEST}",
            remedy="neighbour_graph needs no N x N array.",
        )
    return all_pairs(chosen, chosen.prepare(items), len(items))


def _named(metric: str | Metric) -> Metric:
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    return METRICS[metric]


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
