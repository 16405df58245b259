"""The embedding against dense eigensolvers, scikit-learn, closed-form spectra and planted parts."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import ArpackNoConvergence
from sklearn.cluster import KMeans
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.clustering import spectral
from klarsicht.numerics.clustering.spectral import affinity, embed
from klarsicht.numerics.neighbours import neighbour_graph


def laplacian(W):
    scale = 1 / np.sqrt(W.sum(1))
    return np.eye(len(W)) - W * scale[:, None] * scale


def knn(n, dimension, seed=0, k=8):
    X = np.random.default_rng(seed).random((n, dimension))
    A = kneighbors_graph(X, k)
    return X, sparse.csr_array(A.maximum(A.T))


def ring(n, reach):
    """Each vertex joined to `reach` others on either side: eigenvalues 1 - mean_t cos(2 pi t j / n)."""
    row = np.zeros(n)
    row[1 : reach + 1] = row[-reach:] = 1
    return sparse.csr_array(scipy.linalg.circulant(row))


def copies_around_a_hub(copies, n):
    """Identical random graphs hung on one vertex: antisymmetric eigenvalues repeat copies - 1 times."""
    A = np.random.default_rng(0).random((n, n)) < 5 / n
    A = (A | A.T | np.roll(np.eye(n), 1, 0).astype(bool) | np.roll(np.eye(n), 1, 1).astype(bool)).astype(float)
    W = scipy.linalg.block_diag(*[A] * copies, [[0]])
    W[-1, :-1:n] = W[:-1:n, -1] = 1
    np.fill_diagonal(W, 0)
    return sparse.csr_array(W)


def test_affinity_equals_scikit_learns_graph():
    X = np.random.default_rng(1).random((120, 3))
    X /= X.sum(1, keepdims=True)
    A = kneighbors_graph(X, 7)
    np.testing.assert_array_equal(affinity(neighbour_graph(X, k=7)).toarray(), A.maximum(A.T).toarray())


@pytest.mark.parametrize("n", [60, 700], ids=["dense", "lanczos"])
def test_equals_a_full_dense_eigendecomposition(n):
    W = knn(n, 3)[1]
    e = embed(W, 9)
    L = laplacian(W.toarray())
    np.testing.assert_allclose(e.values, np.linalg.eigvalsh(L)[:9], atol=1e-9)
    np.testing.assert_allclose(L @ e.raw, e.raw * e.values, atol=1e-7)
    np.testing.assert_allclose(e.raw.T @ e.raw, np.eye(9), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(e.vectors, axis=1), 1)


def test_equals_scikit_learns_spectral_embedding():
    W = knn(600, 2)[1]
    e = embed(W, 5)
    W.indices, W.indptr = W.indices.astype(np.int32), W.indptr.astype(np.int32)
    theirs = spectral_embedding(W, n_components=5, eigen_solver="arpack", drop_first=False, random_state=0)
    ours = e.raw / np.sqrt(W.sum(1))[:, None]
    cosines = np.sum(ours * theirs, 0) / np.linalg.norm(ours, axis=0) / np.linalg.norm(theirs, axis=0)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-6)


@pytest.mark.parametrize("d", [4, 7])
def test_repeated_eigenvalues_of_a_ring_are_all_found(d):
    j = np.arange(1200)
    exact = 1 - np.mean([np.cos(2 * np.pi * t * j / 1200) for t in range(1, 6)], axis=0)
    np.testing.assert_allclose(embed(ring(1200, 5), d).values, np.sort(exact)[:d], atol=1e-9)


def test_repeated_eigenvalues_of_identical_copies_are_all_found():
    W = copies_around_a_hub(5, 150)
    exact = np.linalg.eigvalsh(laplacian(W.toarray()))
    assert np.ptp(exact[1:5]) < 1e-9, "four equal eigenvalues"
    np.testing.assert_allclose(embed(W, 8).values, exact[:8], atol=1e-9)


def test_a_long_thin_graph_is_solved_by_inversion(monkeypatch):
    """A path of 2,000: 1 - cos(pi j / (n - 1)), from 1e-6 on, where Lanczos on the graph itself gives up."""
    n = 2000
    W = sparse.diags_array([np.ones(n - 1)] * 2, offsets=[-1, 1]).tocsr()
    gave_up = []

    def lanczos(*arguments):
        try:
            return original(*arguments)
        except ArpackNoConvergence:
            gave_up.append(True)
            raise

    original = spectral._lanczos
    monkeypatch.setattr(spectral, "_lanczos", lanczos)
    np.testing.assert_allclose(embed(W, 6).values, 1 - np.cos(np.pi * np.arange(6) / (n - 1)), rtol=1e-6)
    assert gave_up == [True]


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [40, 520], ids=["dense", "lanczos"])
def test_disconnected_parts_are_told_apart(parts, size):
    W = sparse.block_diag([knn(size + 9 * p, 2, seed=p)[1] for p in range(parts)], format="csr")
    truth = np.repeat(np.arange(parts), [size + 9 * p for p in range(parts)])
    shuffle = np.random.default_rng(0).permutation(len(truth))
    W, truth = sparse.csr_array(W[shuffle][:, shuffle]), truth[shuffle]
    e = embed(W, parts)
    assert adjusted_rand_score(truth, KMeans(parts, n_init=10, random_state=0).fit_predict(e.vectors)) == 1
    assert adjusted_rand_score(truth, e.components) == 1
    np.testing.assert_array_equal(e.values, 0)
    more = embed(W, parts + 3)
    L = csgraph.laplacian(W, normed=True)
    np.testing.assert_allclose(L @ more.raw, more.raw * more.values, atol=1e-6)


def test_more_parts_than_dimensions_reach_the_largest():
    W = sparse.block_diag([np.ones((s, s)) - np.eye(s) for s in (3, 6, 4, 5)], format="csr")
    vectors = embed(sparse.csr_array(W), 2).vectors
    np.testing.assert_array_equal(vectors.any(1), np.repeat([False, True, False, True], [3, 6, 4, 5]))


def test_rows_without_any_neighbour_are_parts_of_their_own():
    W = np.zeros((5, 5))
    W[:3, :3] = 1 - np.eye(3)
    e = embed(sparse.csr_array(W), 4)
    np.testing.assert_allclose(e.values, [0, 0, 0, 1.5])
    np.testing.assert_allclose(e.raw[3:, 1:3], np.eye(2))


def test_planted_blocks_are_recovered_and_counted():
    """Four blobs, five and a half standard deviations apart, that touch in a graph of many neighbours."""
    rng = np.random.default_rng(2)
    truth = np.repeat(np.arange(4), 60)
    X = np.eye(4)[truth] * 4 + rng.standard_normal((240, 4)) + 10
    W = affinity(neighbour_graph(X, k=20))
    e = embed(W, 8)
    labels = KMeans(4, n_init=10, random_state=0).fit_predict(e.vectors[:, :4])
    assert len(set(e.components)) == 1
    assert adjusted_rand_score(truth, labels) > 0.95


def test_same_seed_same_bytes_and_the_seed_hardly_matters():
    W = knn(700, 3)[1]
    first, again, other = embed(W, 6, seed=1), embed(W, 6, seed=1), embed(W, 6, seed=2)
    assert first.raw.tobytes() == again.raw.tobytes()
    np.testing.assert_allclose(first.raw, other.raw, atol=1e-6)


def test_refuses_distances_and_impossible_dimensions():
    W = knn(30, 2)[1]
    for wrong in (W[:20], sparse.csr_array(np.triu(W.toarray())), -W):
        with pytest.raises(InputError, match="not an affinity"):
            embed(wrong, 3)
    for d in (0, 31):
        with pytest.raises(UsageError, match="1 to 30"):
            embed(W, d)
