"""Candidate clusters of an embedding over many numbers of clusters.

A coarse partition hides a small tight group, a fine one splits a large group. So k-means runs over many k, and Ward's
tree (Ward 1963) contributes its cuts and the branches that are tight relative to their distance from the rest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from klarsicht.ground.arrays import Bools, Doubles
from klarsicht.numerics.clustering.spectral import Embedding

Labels = NDArray[np.int32]

EXACT_TREE_ROWS = 2048  # most rows for which the leaves of Ward's tree are the rows themselves
MICRO_CLUSTERS = 128  # leaves of the tree where there are more rows
SAMPLE = 4096  # rows from which the micro-clusters are fitted
EQUAL = 1e-6  # share of the tree's height below which rows count as equal: separating them is no split
DUPLICATE_JACCARD = 0.95  # Jaccard index above which two candidates are duplicates


@dataclass(frozen=True)
class Candidate:
    """Candidate cluster: bool (N,) members; the method that found it, "part" (connected component), "k-means", "ward"
    (a cut of its tree), "branch" (a tight, deeper node) or another; and k, the number of clusters in the first
    partition with it."""

    member: Bools
    method: str
    k: int

    @property
    def size(self) -> int:
        return int(self.member.sum())

    @property
    def share(self) -> float:
        return float(self.member.mean())


@dataclass(frozen=True)
class Sweep:
    """Extent of the search: k from 2 to k_max, k-means starts for each k, and the number of tightest branches kept."""

    k_max: int
    starts: int
    branches: int


SWEEPS = {"quick": Sweep(k_max=12, starts=1, branches=8), "thorough": Sweep(k_max=20, starts=4, branches=16)}


def candidates(embedding: Embedding, sweep: Sweep = SWEEPS["quick"], seed: int = 0) -> tuple[Candidate, ...]:
    """List distinct clusters of 1 % of the rows, at least 5, to half the rows: components, k-means, cuts and branches
    of Ward's tree; of two candidates with a Jaccard index above 95 % the first is kept. Time and memory grow linearly
    in N."""
    Z = embedding.vectors
    least = max(5, -(-len(Z) // 100))
    clusters = list(_clusters(embedding.components, "part", least))
    for k in range(2, min(sweep.k_max, len(Z)) + 1):
        clusters += _clusters(kmeans(Z, k, sweep.starts, seed), "k-means", least)
    if len(Z) > 1:
        clusters += build_ward_tree(Z, seed).candidates(sweep, least)
    return _drop_duplicates(clusters)


def kmeans(Z: Doubles, k: int, starts: int, seed: int) -> Labels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer than k distinct rows: fewer clusters
        model = KMeans(k, n_init=starts, max_iter=50, random_state=seed).fit(Z)
    return np.asarray(model.labels_, np.int32)


@dataclass(frozen=True)
class WardTree:
    """Ward's tree over M leaves: nodes 0..M-1 are the leaves, node M + t is the t-th merge. leaf: int32 (N,), the leaf
    of each row. inside, size: the leaves below each node, bool (2M - 1, M), and the rows, int (2M - 1,). height:
    float64 (2M - 1,), of each node: Ward's distance of its merge; the radius of a leaf. parent: int (2M - 2,), the node
    that each node but the root merges into."""

    leaf: Labels
    inside: Bools
    size: NDArray[np.int64]
    height: Doubles
    parent: NDArray[np.int64]

    @property
    def k(self) -> NDArray[np.int64]:
        """Fewest clusters of a cut that contains the node, (2M - 2,)."""
        return len(self.height) + 1 - self.parent

    @property
    def tightness(self) -> Doubles:
        """Ratio of the parent's merge height to the node's own height, (2M - 2,)."""
        own = self.height[:-1]
        return np.asarray(self.height[self.parent] / np.maximum(own, EQUAL * self.height[-1] or 1))

    def candidates(self, sweep: Sweep, least: int) -> list[Candidate]:
        """List the nodes of the cuts up to k_max, and the tightest deeper nodes, of `least` to half the rows."""
        apart = self.height[self.parent] > EQUAL * self.height[-1]
        fits = apart & (self.size[:-1] >= least) & (self.size[:-1] <= len(self.leaf) / 2)
        cuts = np.flatnonzero(fits & (self.k <= sweep.k_max))
        deeper = np.flatnonzero(fits & (self.k > sweep.k_max))
        branches = deeper[np.argsort(-self.tightness[deeper], kind="stable")[: sweep.branches]]
        chosen = [(node, "ward") for node in cuts] + [(node, "branch") for node in branches]
        return [Candidate(self.inside[node][self.leaf], method, int(self.k[node])) for node, method in chosen]


def build_ward_tree(Z: Doubles, seed: int) -> WardTree:
    """Build Ward's tree of the rows, or of micro-clusters where there are many rows."""
    centres, leaf = _leaves(Z, seed)
    M = len(centres)
    size = np.append(np.bincount(leaf, minlength=M), np.zeros(M - 1, np.int64))
    squares = np.bincount(leaf, ((Z - centres[leaf]) ** 2).sum(1), M)
    radius = np.sqrt(squares / np.maximum(size[:M], 1))
    merges = linkage(centres, "ward")
    inside = np.eye(2 * M - 1, M, dtype=bool)
    parent = np.empty(2 * M - 2, np.int64)
    for node, (a, b) in enumerate(merges[:, :2].astype(np.int64), start=M):
        inside[node] = inside[a] | inside[b]
        size[node] = size[a] + size[b]
        parent[[a, b]] = node
    return WardTree(leaf, inside, size, np.append(radius, merges[:, 2]), parent)


def _leaves(Z: Doubles, seed: int) -> tuple[Doubles, Labels]:
    """Compute the leaf centres (M, d) and the leaf of each row (N,)."""
    if len(Z) <= EXACT_TREE_ROWS:
        return Z, np.arange(len(Z), dtype=np.int32)
    sample = np.random.default_rng(seed).permutation(len(Z))[:SAMPLE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(MICRO_CLUSTERS, n_init=1, max_iter=20, random_state=seed).fit(Z[sample])
    return model.cluster_centers_, model.predict(Z)


def _clusters(labels: Labels, method: str, least: int) -> Iterator[Candidate]:
    """Yield the clusters of a partition that hold `least` to half the rows."""
    values, sizes = np.unique(labels, return_counts=True)
    fitting = values[(sizes >= least) & (sizes <= len(labels) / 2)]
    return (Candidate(labels == value, method, len(values)) for value in fitting)


def _drop_duplicates(clusters: list[Candidate]) -> tuple[Candidate, ...]:
    if not clusters:
        return ()
    members = np.array([one.member for one in clusters], np.float32)
    both = members @ members.T
    size = both.diagonal()
    alike = both > DUPLICATE_JACCARD * (size[:, None] + size - both)
    numbers: list[int] = []
    for at in range(len(clusters)):
        if not alike[at, numbers].any():
            numbers.append(at)
    return tuple(clusters[at] for at in numbers)
