"""Exact k-nearest-neighbour graphs and pairwise distances under a metric of `METRICS`."""

from __future__ import annotations

import numpy as np

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.numerics.metrics import METRICS
from klarsicht.numerics.search.blocks import Metric, NeighbourGraph, all_pairs, search
from klarsicht.numerics.transport.measures import PointMeasures

__all__ = ["METRICS", "NeighbourGraph", "centre_by_group", "neighbour_graph", "pairwise"]

LARGEST = 4000  # most items for which all N x N distances are computed
BLOCK, ESTIMATES = 256, 2**23  # most items, and most pairs, that are estimated together


def neighbour_graph(
    items: Floats | PointMeasures,
    metric: str | Metric = "euclidean",
    k: int = 10,
    *,
    groups: Ints | None = None,
    block: int | None = None,
) -> NeighbourGraph:
    """Find the k nearest neighbours of every item; ties are broken by lowest index.

    Exact, except under metrics whose estimates are no bounds (`wasserstein-tsr`, `sliced-rotation`, `gromov`): of these
    the 5 k best estimates of each item are measured. items: feature rows (N, D), finite, for `euclidean` and `concept`;
    `PointMeasures`, none of them set aside, for all other metrics. Rows of zeros have distance 0 to each other and a
    large one to any other row. metric: a name of `METRICS`, or a metric object. groups: (N,) integers; items of one
    group are never neighbours. By default every item is its own group. block: items estimated together; peak memory is
    about 12 block N bytes beyond the items themselves. Raises InputError: items of the wrong kind or fewer than two, or
    values that are not finite; UsageError: unknown metric, k out of range, or groups that do not fit."""
    prepared_metric = _resolve_metric(metric)
    rows = prepared_metric.prepare(items)
    groups = np.arange(len(items)) if groups is None else np.asarray(groups)
    _check_arguments(len(items), k, groups)
    return search(prepared_metric, rows, k, groups, block or max(1, min(BLOCK, ESTIMATES // len(items))))


def pairwise(items: Floats | PointMeasures, metric: str | Metric = "euclidean") -> Doubles:
    """Compute all distances of N items, float64 (N, N), 0 on the diagonal; arguments and errors as `neighbour_graph`.
    Raises UsageError: more than 4,000 items."""
    prepared_metric = _resolve_metric(metric)
    if len(items) > LARGEST:
        what, remedy = "too many items for all their distances", "neighbour_graph needs no N x N array."
        raise UsageError(what, got=len(items), rule=f"at most {LARGEST}", remedy=remedy)
    return all_pairs(prepared_metric, prepared_metric.prepare(items), len(items))


def _resolve_metric(metric: str | Metric) -> Metric:
    """Look up a metric by its name; a metric object is returned as it is."""
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    return METRICS[metric]


def _check_arguments(n: int, k: int, groups: Ints) -> None:
    if not 1 <= k < n:
        raise UsageError("k out of range", got=k, rule=f"{n} rows have 1 to {n - 1} neighbours")
    if groups.shape != (n,):
        raise UsageError("groups of another length", got=groups.shape, rule=f"one integer a row: ({n},)")
    names, sizes = np.unique(groups, return_counts=True)
    if n - sizes.max() < k:
        what, got = "a group is too large", f"{sizes.max()} of {n} rows in group {names[sizes.argmax()]}"
        remedy = "Lower k, or split the group."
        raise UsageError(what, got=got, rule=f"at least {k} rows must be outside", remedy=remedy)


def centre_by_group(X: Floats, groups: Ints) -> Floats:
    """Subtract from each row of X (N, D) the median of the rows of its group (N,), or of all rows where it is alone in
    its group: it then shows how it differs from others of its own source."""
    centred = X - np.median(X, axis=0)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    by_group = np.argsort(group, kind="stable")
    for size in np.unique(sizes[sizes > 1]):
        members = by_group[sizes[group[by_group]] == size].reshape(-1, size)
        centred[members] = X[members] - np.median(X[members], axis=1, keepdims=True)
    return centred
