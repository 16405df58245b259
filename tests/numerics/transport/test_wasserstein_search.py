"""W2 in the search: bounds never above the exact distance by POT, and graphs equal to exhaustive ones."""

import numpy as np
import ot
import pytest

from klarsicht.numerics.neighbours import neighbour_graph
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.wasserstein import dual_lower_bound
from klarsicht.numerics.transport.wasserstein_search import PreparedMeasures, Wasserstein, unchanged_pose


def clouds(n, P=24, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (n, 1, 2)) + rng.standard_normal((n, P, 2)) * rng.uniform(0.5, 2, (n, 1, 2))


def w2(x, y):
    """Squared, by POT."""
    return ot.emd2([], [], ot.dist(x.astype(float), y.astype(float)))


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_bounds_are_below_pot_and_close(spread):
    measures = PointMeasures.of(clouds(14, seed=1, spread=spread))
    metric, rows = Wasserstein(unchanged_pose), PreparedMeasures.of(measures)
    i, j = np.triu_indices(14, 1)
    exact = np.array([w2(measures.points[a], measures.points[b]) for a, b in zip(i, j, strict=True)])
    frames, duals = metric.estimates(rows, slice(0, 14))[i, j], metric.by_duals(rows, i, j)
    np.testing.assert_allclose(metric.costs(rows, i, j), exact, rtol=1e-5)
    for bound, share in ((frames, 0.6), (duals, 0.6)):
        assert (bound <= exact * (1 + 1e-6)).all()
        assert bound.mean() > share * exact.mean()


def test_duals_are_below_far_from_the_origin_and_for_points_in_one_place():
    points = np.concatenate([clouds(4, spread=0), np.zeros((1, 24, 2)), 1000 + clouds(3)]).astype(np.float32)
    i, j = np.triu_indices(8, 1)
    exact = np.array([w2(points[a], points[b]) for a, b in zip(i, j, strict=True)])
    assert (dual_lower_bound(points, i, j) <= exact * (1 + 1e-6)).all()


@pytest.mark.parametrize("pose", [unchanged_pose, PointMeasures.centre, PointMeasures.scale])
def test_graph_is_the_exhaustive_one(pose):
    measures = PointMeasures.of(clouds(40, seed=2))
    posed = pose(measures).points
    D = np.array([[w2(x, y) for y in posed] for x in posed])
    np.fill_diagonal(D, np.inf)
    graph = neighbour_graph(measures, Wasserstein(pose), 5, block=16)
    np.testing.assert_array_equal(graph.indices, np.argsort(D, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(graph.distances, np.sqrt(np.sort(D, axis=1)[:, :5]), rtol=1e-4)


def test_groups_are_never_neighbours():
    measures, groups = PointMeasures.of(clouds(30, seed=3)), np.arange(30) // 3
    graph = neighbour_graph(measures, "wasserstein", 4, groups=groups)
    assert (groups[graph.indices] != groups[:, None]).all()


def test_most_pairs_are_told_apart_without_an_assignment():
    measures, solved = PointMeasures.of(clouds(120, seed=4)), []

    class Counting(Wasserstein):
        def costs(self, rows, i, j):
            solved.append(len(i))
            return super().costs(rows, i, j)

    neighbour_graph(measures, Counting(unchanged_pose), 5)
    assert sum(solved) < 120 * 119 / 2 / 3
