"""Candidate clusters against scikit-learn's and scipy's trees, brute force, and planted groups."""

import warnings

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import AgglomerativeClustering

from klarsicht.numerics.clustering.candidates import (
    EXACT_TREE_ROWS,
    SWEEPS,
    Sweep,
    build_ward_tree,
    candidates,
)
from klarsicht.numerics.clustering.spectral import Embedding, affinity, embed
from klarsicht.numerics.neighbours import neighbour_graph

CUTS = Sweep(k_max=6, starts=1, branches=0)


def as_embedding(raw, values=(0.0, 0.1, 0.2), components=None):
    components = np.zeros(len(raw)) if components is None else components
    return Embedding(raw, np.array(values), components.astype(np.int32))


def on_a_sphere(n, seed=0):
    return as_embedding(np.random.default_rng(seed).standard_normal((n, 3)))


def marked(n, share, seed=0):
    """Six natural blobs; a share of the rows carries the same strong values in 8 of 64 features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 64)) + 0.6 * rng.standard_normal((6, 64))[rng.integers(6, size=n)]
    member = rng.permutation(n) < share * n
    X[member, :8] = 4 * rng.choice([-1, 1], 8) + 0.3 * rng.standard_normal((member.sum(), 8))
    return X + 20, member


def f1(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def jaccard(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_a_planted_group_is_among_the_candidates(share, sweep):
    X, member = marked(1600, share)
    embedding = embed(affinity(neighbour_graph(X)), 10)
    found = candidates(embedding, SWEEPS[sweep])
    assert max(f1(one.member, member) for one in found) > 0.95


@pytest.mark.parametrize("n", [300, EXACT_TREE_ROWS + 800], ids=["rows", "micro-clusters"])
def test_a_small_tight_group_away_from_a_cloud_is_a_branch(n):
    """k-means with few clusters splits the cloud instead; the tree must hold the group as one branch."""
    rng = np.random.default_rng(1)
    raw = np.column_stack((rng.standard_normal((n, 3)), np.ones(n)))
    group = np.arange(n) < 0.04 * n
    raw[group, :3] = [-1.5, 1.5, 4.5] + 0.02 * rng.standard_normal((group.sum(), 3))
    found = candidates(as_embedding(raw), Sweep(k_max=2, starts=1, branches=5))
    assert max(f1(one.member, group) for one in found if one.method == "branch") > 0.95
    assert max(f1(one.member, group) for one in found if one.method != "branch") < 0.5


def test_cuts_are_the_clusters_of_scikit_learns_ward():
    embedding = on_a_sphere(150)
    expected = {
        (labels == value).tobytes()
        for k in range(2, 7)
        for labels in [AgglomerativeClustering(k, linkage="ward").fit_predict(embedding.vectors)]
        for value in range(k)
        if 5 <= (labels == value).sum() <= 75
    }
    cuts = build_ward_tree(embedding.vectors, 0).candidates(CUTS, 5)
    assert {one.member.tobytes() for one in cuts} == expected


def test_k_of_a_cut_is_the_coarsest_partition_that_shows_it():
    Z = on_a_sphere(80).vectors
    merges = linkage(Z, "ward")
    for one in build_ward_tree(Z, 0).candidates(CUTS, 5):
        shown = [
            k
            for k in range(2, 20)
            if any((fcluster(merges, k, "maxclust") == v).tobytes() == one.member.tobytes() for v in range(1, k + 1))
        ]
        assert shown[0] == one.k


def test_micro_clusters_partition_the_rows():
    Z = on_a_sphere(EXACT_TREE_ROWS + 500).vectors
    found = build_ward_tree(Z, 0)
    assert found.size[-1] == len(Z) and found.inside[-1].all()
    np.testing.assert_array_equal(found.inside @ np.bincount(found.leaf, minlength=128), found.size)
    np.testing.assert_array_equal(found.height[128:], np.sort(found.height[128:]))
    assert len({row.tobytes() for row in found.inside}) == 255


def test_candidates_keep_to_the_size_bounds_and_differ():
    for seed in range(3):
        found = candidates(on_a_sphere(250, seed), SWEEPS["thorough"])
        members = [one.member for one in found]
        assert all(5 <= one.size <= 125 and one.size == one.member.sum() for one in found)
        assert max(jaccard(a, b) for i, a in enumerate(members) for b in members[:i]) <= 0.95
    assert min(one.size for one in candidates(on_a_sphere(1500), SWEEPS["thorough"])) >= 15


def test_a_connected_part_stands_before_an_equal_cluster():
    components = np.repeat([0, 1, 2], [70, 20, 10])
    found = candidates(as_embedding(np.eye(3)[components] + 1e-13, components=components))
    first, second, both = found
    assert (first.method, first.k, first.size, first.share) == ("part", 3, 20, 0.2)
    assert (second.method, second.k, second.size, second.share) == ("part", 3, 10, 0.1)
    assert both.k == 2 and (both.member == (components > 0)).all(), "the only other union of at most half the rows"


def test_equal_rows_and_tiny_embeddings_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert candidates(as_embedding(np.ones((40, 3)))) == ()
        assert candidates(as_embedding(np.ones((EXACT_TREE_ROWS + 1, 3)))) == ()
        for n in (1, 2, 3, 8):
            assert candidates(on_a_sphere(n)) == ()
