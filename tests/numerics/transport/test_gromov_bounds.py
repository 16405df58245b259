"""Bounds against the least of all permutations and what a solver reaches; embeddings against literal sums."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from klarsicht.numerics.transport.gromov import squared_gromov_wasserstein
from klarsicht.numerics.transport.gromov_bounds import Invariants, embedding_bound, invariants
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.rotations import Shapes

PLACES = st.integers(-4, 4).map(float)


def distances(of):
    x = of.points[:, 0].astype(float)
    return np.sqrt(((x[:, :, None] - x[:, None]) ** 2).sum(3))


def by_all_permutations(D, E):
    p = np.array(list(permutations(range(len(D)))))
    return ((D - E[p[:, :, None], p[:, None, :]]) ** 2).mean((1, 2)).min()


@given(points=arrays(np.float64, (2, 5, 2), elements=PLACES), moved=st.booleans())
@pytest.mark.parametrize("bound", Invariants._fields)
def test_never_above_the_least_of_all_permutations(bound, points, moved):
    """Duplicates, lines and single places; and copies of one shape, where rounding could lift a bound above 0."""
    if moved:
        points[1] = points[0, ::-1] @ [[0.6, -0.8], [0.8, 0.6]]
    of = Shapes.of(PointMeasures.of(points).centre())
    D = distances(of)
    found = embedding_bound(getattr(invariants(of), bound), np.array([0]), np.array([1]))[0]
    assert 0 <= found <= by_all_permutations(D[0], D[1]) + 1e-12


@pytest.mark.parametrize("P", [16, 40, 64])
@pytest.mark.parametrize("bound", Invariants._fields)
def test_never_above_the_solver(bound, P):
    rng = np.random.default_rng(P)
    points = rng.standard_normal((60, P, 2)) * rng.uniform(0.1, 1, (60, 1, 2))
    points[30:] = 0.5 * points[30:] + 0.5 * points[:30]
    of = Shapes.of(PointMeasures.of(points).scale())
    i, j = np.triu_indices(60, 1)
    value, found = squared_gromov_wasserstein(of, i, j), embedding_bound(getattr(invariants(of), bound), i, j)
    assert (found <= value).all()
    assert found.mean() > 0.05 * value.mean()  # and it says something


def test_two_signs_are_bounded_too():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30, 16, 2)) * rng.uniform(0.2, 1, (2, 30, 1, 2))
    of = Shapes.of(PointMeasures.of(a, negative=b, share=0.3).scale())
    i, j = np.triu_indices(30, 1)
    for embedding in invariants(of):
        assert (embedding_bound(embedding, i, j) <= squared_gromov_wasserstein(of, i, j)).all()


def test_spectral_is_spectrum_and_means_of_the_centred_distances():
    """Literally: eigenvalues of H D H over P, sorted row means less the grand mean, the grand mean."""
    P, of = 12, Shapes.of(PointMeasures.of(np.random.default_rng(1).standard_normal((3, 12, 2))))
    H = np.eye(P) - 1 / P
    for D, row in zip(distances(of), invariants(of).spectral, strict=True):
        means = np.sort(D.mean(1) - D.mean()) * np.sqrt(2 / P)
        wanted = np.concatenate([np.linalg.eigvalsh(H @ D @ H) / P, means, [D.mean()]])
        np.testing.assert_allclose(row, wanted, atol=1e-6)


def test_sorted_is_slb_where_nothing_is_averaged():
    """P = 8 has 64 distances, one for each quantile: SLB is W2^2 of the two lists (scipy sorts nothing away)."""
    of = Shapes.of(PointMeasures.of(np.random.default_rng(2).standard_normal((2, 8, 2))))
    D, E = (np.sort(d.ravel()) for d in distances(of))
    found = embedding_bound(invariants(of).sorted_distances, np.array([0]), np.array([1]))
    np.testing.assert_allclose(found, ((D - E) ** 2).mean(), rtol=1e-3)


def test_an_isometry_keeps_the_invariants():
    x = np.random.default_rng(3).standard_normal((10, 20, 2))
    of = Shapes.of(PointMeasures.of(np.concatenate([x, x[:, ::-1] @ [[0.6, 0.8], [0.8, -0.6]] + 3])).centre())
    for embedding in invariants(of):
        np.testing.assert_allclose(embedding[:10], embedding[10:], atol=1e-5)
