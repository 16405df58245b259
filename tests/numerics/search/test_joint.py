"""Sums of distances against exhaustive search by scipy, and laws of bounds."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from klarsicht.ground.errors import InputError
from klarsicht.numerics.metrics import METRICS, Euclidean
from klarsicht.numerics.neighbours import neighbour_graph
from klarsicht.numerics.search.joint import Joint, Representations


def representations(n, seed=0):
    """Absolute sums of 1 in the first, so that `euclidean` leaves them as they are."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((n, 6)), rng.standard_normal((n, 9))
    return x / x.sum(1, keepdims=True), y


def summed(x, y):
    shape, look = cdist(x, x), cdist(y, y, "cosine")
    upper = np.triu_indices(len(x), 1)
    return shape / np.median(shape[upper]) + look / np.median(look[upper])


JOINT = Joint((METRICS["euclidean"], METRICS["concept"]))


def test_neighbours_are_those_of_the_sum_of_distances_over_their_medians():
    x, y = representations(60)  # few enough that the medians are of all pairs
    groups = np.arange(60) // 2
    D = summed(x, y)
    D[groups[:, None] == groups] = np.inf
    graph = neighbour_graph(Representations((x, y)), JOINT, 7, groups=groups, block=13)
    np.testing.assert_array_equal(graph.indices, np.argsort(D, 1)[:, :7])
    np.testing.assert_allclose(graph.distances, np.sort(D, 1)[:, :7], rtol=1e-5)


class Guess(Euclidean):
    """Estimates that are right in order only, and no bounds."""

    estimates_are_bounds = False

    def estimates(self, rows, block):
        return 2 * super().estimates(rows, block).clip(0) + 1e-3


def test_an_aspect_without_bounds_leaves_distances_that_are_measured():
    x, y = representations(60, seed=1)
    joint = Joint((Guess(), METRICS["concept"]))
    assert JOINT.estimates_are_bounds and not joint.estimates_are_bounds
    graph, D = neighbour_graph(Representations((x, y)), joint, 5), summed(x, y)
    np.fill_diagonal(D, np.inf)
    np.testing.assert_allclose(graph.distances, np.take_along_axis(D, graph.indices, 1), rtol=1e-5)
    assert (graph.distances == np.sort(D, 1)[:, :5].astype(np.float32)).mean() > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_bounds_are_bounds(seed):
    rng = np.random.default_rng(seed)
    x, y = (
        np.repeat(one, 2, 0) * rng.choice([1, 1 + 1e-7], (80, 1)) for one in representations(40, seed)
    )  # near twins
    rows = JOINT.prepare(Representations((x, y)))
    i, j = np.divmod(np.arange(80 * 80), 80)
    assert (JOINT.estimates(rows, slice(0, 80)).ravel() <= JOINT.costs(rows, i, j)).all()


def test_many_rows_are_scaled_by_a_median_of_some_pairs():
    x, y = representations(400, seed=2)
    of_all = [np.median(cdist(one, one, name)) for one, name in ((x, "euclidean"), (y, "cosine"))]
    assert JOINT.prepare(Representations((x, y))).units == pytest.approx(of_all, rel=0.05)


def test_an_aspect_in_which_all_are_equal_decides_nothing():
    x, _ = representations(30)
    alone = neighbour_graph(x, "euclidean", 4)
    both = neighbour_graph(Representations((x, np.ones((30, 3)))), JOINT, 4)
    np.testing.assert_array_equal(alone.indices, both.indices)


def test_representations_of_different_items_are_refused():
    x, y = representations(30)
    with pytest.raises(InputError, match="30, 29"):
        neighbour_graph(Representations((x, y[:-1])), JOINT, 4)
