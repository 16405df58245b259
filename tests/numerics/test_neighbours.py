"""Neighbours against scikit-learn, exhaustive search in float64, and laws."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.neighbours import centre_by_group, neighbour_graph, pairwise
from klarsicht.numerics.search.features import PROJECTION_MIN_ROWS, Euclidean
from klarsicht.numerics.transport.measures import measures_from_maps

OF_ROWS = ("euclidean", "concept")


def exhaustive(X, k, groups, cosine=False):
    """All pairs, by differences in float64, sorted by (distance, index)."""
    X = X.astype(np.float64)
    X = X / (np.linalg.norm(X, axis=1) if cosine else np.abs(X).sum(1))[:, None]
    D = ((X[:, None] - X[None]) ** 2).sum(2)
    D[groups[:, None] == groups] = np.inf
    indices = np.argsort(D, axis=1, kind="stable")[:, :k]
    D = D / 2 if cosine else np.sqrt(D)
    return indices, np.take_along_axis(D, indices, 1)


@pytest.mark.parametrize(("metric", "order"), [("euclidean", 1), ("concept", 2)])
@pytest.mark.parametrize("block", [7, 300])
def test_equals_scikit_learn(metric, order, block):
    X = np.random.default_rng(0).standard_normal((300, 40))
    graph = neighbour_graph(X, metric, 6, block=block)
    flat = X / np.linalg.norm(X, ord=order, axis=1, keepdims=True)
    name = {"euclidean": "euclidean", "concept": "cosine"}[metric]
    distances, indices = NearestNeighbors(n_neighbors=6, metric=name, algorithm="brute").fit(flat).kneighbors()
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_allclose(graph.distances, distances, rtol=1e-5)
    assert (graph.n, graph.k) == (300, 6)
    assert graph.indices.dtype == np.int32 and graph.distances.dtype == np.float32


@pytest.mark.parametrize(("metric", "order"), [("euclidean", 1), ("concept", 2)])
@pytest.mark.parametrize("noise", [0.02, 1], ids=["tight", "loose"])
def test_equals_scikit_learn_where_rows_are_folded(metric, order, noise):
    """Many rows near a few directions, and far from them: bounds of few coordinates lose no neighbour."""
    rng = np.random.default_rng(8)
    X = rng.standard_normal((PROJECTION_MIN_ROWS + 400, 9)) @ rng.standard_normal(
        (9, 120)
    ) + noise * rng.standard_normal((1, 120))
    X += noise * rng.standard_normal(X.shape)
    X[::50], X[1::50] = 0, X[2::50]
    assert Euclidean().prepare(X).screen.shape[1] < 60
    graph = neighbour_graph(X.astype(np.float32), metric, 6)
    X = X.astype(np.float32).astype(np.float64)
    flat = X / np.maximum(np.linalg.norm(X, ord=order, axis=1, keepdims=True), 1e-300)
    flat = np.column_stack((flat, (X == 0).all(1)))  # blank rows have an axis of their own
    distances, _ = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(flat).kneighbors()
    close = np.sqrt(2 * graph.distances) if metric == "concept" else graph.distances
    np.testing.assert_allclose(close, distances, rtol=1e-5, atol=1e-7)
    steps = np.linalg.norm(flat[:, None] - flat[graph.indices], axis=2)
    np.testing.assert_allclose(steps, distances, rtol=1e-5, atol=1e-7)


def test_groups_equal_a_masked_search_where_rows_are_folded():
    rng = np.random.default_rng(9)
    X = rng.standard_normal((PROJECTION_MIN_ROWS + 100, 5)) @ rng.standard_normal((5, 60)) + 0.1 * rng.standard_normal(
        (PROJECTION_MIN_ROWS + 100, 60)
    )
    groups = rng.integers(700, size=len(X))
    some = np.arange(0, len(X), 90)
    graph = neighbour_graph(X, k=4, groups=groups)
    flat = X / np.abs(X).sum(1, keepdims=True)
    D = ((flat[some, None] - flat) ** 2).sum(2)
    D[groups[some, None] == groups] = np.inf
    np.testing.assert_array_equal(graph.indices[some], np.argsort(D, axis=1, kind="stable")[:, :4])


def test_blocks_change_nothing():
    X = np.random.default_rng(10).random((PROJECTION_MIN_ROWS + 10, 4)) @ np.random.default_rng(11).random((4, 70))
    whole, parts = neighbour_graph(X), neighbour_graph(X, block=100)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_array_equal(whole.distances, parts.distances)


@pytest.mark.parametrize("metric", OF_ROWS)
def test_duplicates_are_neighbours_and_ties_go_to_the_lowest_index(metric):
    rng = np.random.default_rng(1)
    X = rng.random((20, 5), dtype=np.float32)[rng.integers(20, size=400)]
    graph = neighbour_graph(X, metric, 12, block=64)
    indices, distances = exhaustive(X, 12, np.arange(400), metric == "concept")
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_allclose(graph.distances, distances, rtol=1e-5, atol=1e-12)
    assert (graph.indices != np.arange(400)[:, None]).all()


def test_near_ties_below_float32_are_told_apart():
    """Rows that differ in the ninth digit: a float32 matrix product cannot order them, the search must."""
    rng = np.random.default_rng(2)
    X = 1 + 1e-9 * rng.standard_normal((150, 30))
    indices, _ = exhaustive(X, 5, np.arange(150))
    np.testing.assert_array_equal(neighbour_graph(X, k=5).indices, indices)


@given(
    X=hnp.arrays(np.float32, (24, 4), elements=st.sampled_from([-1.0, 1.0])),
    groups=hnp.arrays(np.int64, 24, elements=st.integers(0, 5)),
    k=st.integers(1, 6),
)
def test_groups_equal_a_masked_exhaustive_search(X, groups, k):
    """Entries of one size: all arithmetic is exact, so ties are true ties."""
    groups[:6] = np.arange(6)
    if 24 - np.bincount(groups).max() < k:
        with pytest.raises(UsageError, match="too few neighbours"):
            neighbour_graph(X, k=k, groups=groups)
        return
    graph = neighbour_graph(X, k=k, groups=groups, block=5)
    np.testing.assert_array_equal(graph.indices, exhaustive(X, k, groups)[0])


@pytest.mark.slow
def test_a_crowd_of_duplicates_takes_the_lowest_indices():
    X = np.ones((1500, 4), np.float32)
    X[::500] = [1, 2, 3, 4]
    graph = neighbour_graph(X, k=2)
    np.testing.assert_array_equal(graph.indices[5:500], [[1, 2]] * 495)
    np.testing.assert_array_equal(graph.indices[:1001:500], [[500, 1000], [0, 1000], [0, 500]])


@pytest.mark.parametrize(("metric", "far"), [("euclidean", np.sqrt(1 + 0.25)), ("concept", 1.0)])
def test_blank_rows_are_equal_to_each_other_and_far_from_the_rest(metric, far):
    X = np.zeros((6, 4))
    X[:3] = 0.25 * np.array([[1, 1, 1, 1], [1, -1, 1, 1], [1, 1, -1, 1]])
    graph = neighbour_graph(X, metric, 3)
    np.testing.assert_array_equal(graph.indices[3:], [[4, 5, 0], [3, 5, 0], [3, 4, 0]])
    np.testing.assert_allclose(graph.distances[3:], [[0, 0, far]] * 3, rtol=1e-6)
    assert set(graph.indices[0, :2]) == {1, 2}


@pytest.mark.parametrize("metric", OF_ROWS)
def test_positive_factors_change_nothing(metric):
    """Both metrics compare shapes of maps: powers of two are exact in floating point, so equality is too."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((100, 9))
    scaled = X * 2.0 ** rng.integers(-8, 8, (100, 1))
    a, b = neighbour_graph(X, metric), neighbour_graph(scaled, metric)
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_array_equal(a.distances, b.distances)


def test_half_precision_maps_do_not_overflow():
    X = np.full((30, 400), 300, np.float16)
    X[np.arange(30), np.arange(30)] = 600 + 10 * np.arange(30)
    indices, _ = exhaustive(X, 4, np.arange(30), cosine=True)
    np.testing.assert_array_equal(neighbour_graph(X, "concept", 4).indices, indices)


def test_errors_say_what_and_how_to_mend():
    X = np.random.default_rng(4).random((10, 3))
    with pytest.raises(UsageError, match="Did you mean euclidean"):
        neighbour_graph(X, "euclidian")
    with pytest.raises(UsageError, match="Known: concept, euclidean, gromov"):
        neighbour_graph(X, "zzz")
    for k in (0, 10):
        with pytest.raises(UsageError, match="1 to 9 neighbours"):
            neighbour_graph(X, k=k)
    with pytest.raises(UsageError, match="another length"):
        neighbour_graph(X, k=2, groups=np.zeros(9, int))
    for shape in ((1, 3), (10, 0), (10,)):
        with pytest.raises(InputError, match="no neighbours"):
            neighbour_graph(np.ones(shape), k=1)
    with pytest.raises(UsageError, match="Did you mean gromov"):
        neighbour_graph(X, "gromov-wasserstein")
    with pytest.raises(InputError, match="reshape"):
        pairwise(np.ones((10, 4, 4)))
    with pytest.raises(InputError, match="compares rows of numbers, an array"):
        pairwise(measures_from_maps(np.random.default_rng(4).random((5, 8, 8))), "euclidean")
    X[[6, 8], 1] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 of 10 rows, the first is row 6"):
        neighbour_graph(X, k=2)


def test_centre_by_group_equals_a_loop():
    rng = np.random.default_rng(5)
    X, groups = rng.standard_normal((60, 4)), rng.integers(0, 25, 60)
    centred = centre_by_group(X, groups)
    for row in range(60):
        source = X[groups == groups[row]]
        centre = np.median(source if len(source) > 1 else X, axis=0)
        np.testing.assert_allclose(centred[row], X[row] - centre, atol=1e-15)
    assert np.bincount(groups).min(initial=9, where=np.bincount(groups) > 0) == 1, "a group of one is covered"
