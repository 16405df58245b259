"""Spectral embedding of a neighbour graph: the smallest eigenpairs of its normalised Laplacian (Ng, Jordan and Weiss
2002; for attributions Lapuschkin et al. 2019, Nature Communications 10:1096, SpRAy).

A plain Lanczos solver fails on repeated eigenvalues. A graph of c connected components has the eigenvalue 0 with
multiplicity c: components are solved one by one. And one Krylov space holds only one vector of each eigenspace:
computed eigenvectors are deflated until no smaller eigenvalue is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as dense
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu

from klarsicht.ground.arrays import Doubles
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.neighbours import NeighbourGraph

Pairs = tuple[Doubles, Doubles]

DENSE = 512  # most rows for which a dense solver is faster
KRYLOV = 60  # vectors kept by Lanczos: few restarts on the clustered end of the spectrum
RESTARTS = 40  # without convergence the graph is long and thin and its factors are sparse: inverse iteration
TOLERANCE = 1e-8
SHIFT = 1e-6  # L + SHIFT is positive definite


@dataclass(frozen=True)
class Embedding:
    """Spectral embedding of N rows in d coordinates: eigenvectors (N, d) of I - D^-1/2 W D^-1/2, orthonormal, largest
    entry positive; their eigenvalues (d,), ascending, in [0, 2]; and the connected component of each row, int32
    (N,)."""

    raw: Doubles
    values: Doubles
    components: NDArray[np.int32]

    @property
    def vectors(self) -> Doubles:
        """Rows of `raw` normalised to length 1, float64 (N, d); a row that is zero in all eigenvectors stays 0."""
        lengths = np.linalg.norm(self.raw, axis=1, keepdims=True)
        return np.asarray(np.divide(self.raw, lengths, out=np.zeros_like(self.raw), where=lengths > 0))


def affinity(graph: NeighbourGraph) -> sparse.csr_array:
    """Make the affinity of a neighbour graph, sparse float64 (N, N): 1 where either row is among the k nearest of the
    other."""
    ends = np.arange(0, graph.indices.size + 1, graph.k, dtype=np.int32)
    directed = sparse.csr_array((np.ones(graph.indices.size), graph.indices.ravel(), ends), (graph.n, graph.n))
    return directed.maximum(directed.T).tocsr()


def embed(affinity: sparse.csr_array, dimensions: int, seed: int = 0) -> Embedding:
    """Compute the `dimensions` smallest eigenpairs of the normalised Laplacian of a symmetric affinity (N, N); of equal
    ones first those of large components. The seed only draws start vectors. Raises UsageError: dimensions outside 1..N;
    InputError: an affinity that is not square, symmetric and non-negative."""
    _check(affinity, dimensions)
    n = affinity.shape[0]
    count, components = connected_components(affinity, directed=False)
    members = np.split(np.argsort(components, kind="stable"), np.cumsum(np.bincount(components))[:-1])
    eigenpairs = [smallest_eigenpairs(affinity[rows][:, rows], dimensions, seed) for rows in members]
    part = np.repeat(np.arange(count), [len(values) for values, _ in eigenpairs])
    column = np.concatenate([np.arange(len(values)) for values, _ in eigenpairs])
    values = np.concatenate([values for values, _ in eigenpairs])
    order = np.lexsort((-np.bincount(components)[part], values))[:dimensions]
    raw = np.zeros((n, len(order)))
    for at, pair in enumerate(order):
        raw[members[part[pair]], at] = eigenpairs[part[pair]][1][:, column[pair]]
    return Embedding(raw, values[order], components)


def smallest_eigenpairs(W: sparse.csr_array, d: int, seed: int = 0) -> Pairs:
    """Compute the d (or all N) smallest eigenpairs of a *connected* graph's normalised Laplacian: (d,), (N, d)."""
    degree = np.asarray(W.sum(axis=1)).ravel()
    if len(degree) == 1:
        return np.zeros(1), np.ones((1, 1))
    scale = sparse.diags_array(1 / np.sqrt(degree))
    M = (scale @ W @ scale).tocsr()
    d = min(d, len(degree))
    constant = np.sqrt(degree / degree.sum())
    values, V = _dense(M, d) if len(degree) <= max(DENSE, 4 * d) else _sparse(M, d, constant, seed)
    values[0], V[:, 0] = 0, constant
    return values, V * np.sign(V[np.abs(V).argmax(0), np.arange(d)])


def _dense(M: sparse.csr_array, d: int) -> Pairs:
    """Compute the d smallest eigenpairs of I - M with a dense solver."""
    values, V = dense.eigh(np.eye(M.shape[0]) - M.toarray(), subset_by_index=(0, d - 1))
    return np.maximum(values, 0), V


def _sparse(M: sparse.csr_array, d: int, constant: Doubles, seed: int) -> Pairs:
    """Run Lanczos on I + M; where it does not converge, on the inverse of I - M + SHIFT."""
    try:
        V = _leading_eigenvectors(lambda x: x + M @ x, d, 2.0, constant, seed)
    except ArpackNoConvergence:
        L = (1 + SHIFT) * sparse.eye_array(M.shape[0]) - M
        V = _leading_eigenvectors(splu(L.tocsc()).solve, d, 1 / SHIFT, constant, seed)
    return _rayleigh_ritz(M, V)


def _leading_eigenvectors(
    apply: Callable[[Doubles], Doubles], d: int, largest: float, constant: Doubles, seed: int
) -> Doubles:
    """Compute the leading eigenvectors (N, d) of a positive semidefinite operator whose largest eigenpair is known;
    computed ones are deflated until none is left above the least of them. Every search starts at a new random vector,
    since the previous one is parallel to the computed eigenvector within an eigenspace."""
    theta, V = np.array([largest]), constant[:, None]
    random = np.random.default_rng(seed)
    while True:
        start = random.standard_normal(len(constant))
        new, vectors = _lanczos(apply, (theta, V), max(1, d - len(theta)), start)
        if len(theta) == d and new.max() <= theta.min() * (1 + 10 * TOLERANCE):
            return V
        theta, V = np.append(theta, new), np.column_stack((V, vectors))
        order = np.argsort(-theta)[:d]
        theta, V = theta[order], V[:, order]


def _lanczos(apply: Callable[[Doubles], Doubles], eigenpairs: Pairs, k: int, start: Doubles) -> Pairs:
    """Compute the k largest eigenpairs of an operator after deflating the known eigenpairs."""
    theta, V = eigenpairs
    n = len(start)
    rest = LinearOperator((n, n), matvec=lambda x: apply(x) - V @ (theta * (V.T @ x)), dtype=np.float64)
    pairs: Pairs = eigsh(rest, k, which="LA", v0=start, ncv=max(KRYLOV, 3 * k), maxiter=RESTARTS, tol=TOLERANCE)
    return pairs


def _rayleigh_ritz(M: sparse.csr_array, V: Doubles) -> Pairs:
    """Compute the eigenpairs of I - M within the span of V, ascending."""
    Q, _ = np.linalg.qr(V)
    values, mix = np.linalg.eigh(Q.T @ (Q - M @ Q))
    return np.maximum(values, 0), Q @ mix


def _check(affinity: Any, dimensions: int) -> None:
    n = affinity.shape[0]
    if affinity.shape != (n, n) or (affinity.data < 0).any() or abs(affinity - affinity.T).sum() > 0:
        rule = "symmetric, non-negative, (N, N), large where rows are alike; as affinity(graph) gives"
        raise InputError("not an affinity", got=f"shape {affinity.shape}", rule=rule)
    if not 1 <= dimensions <= n:
        raise UsageError("dimensions out of range", got=dimensions, rule=f"1 to {n} for {n} rows")
