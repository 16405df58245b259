# mypy: disable-error-code="no-untyped-call"
"""Lower bounds of Gromov-Wasserstein distances from invariants of each shape, which exclude most pairs without a plan.

Axes: N shapes, S signs, P points, m pairs.

With H = I - 1 1^T / P, distances D split orthogonally into H D H, row means r = H D 1 / P and the grand mean g; plans
keep the split. So for every plan p

    GW^2(p) = |H D H - H E H [p]|^2 / P^2 + 2 |r - r'[p]|^2 / P + (g - g')^2,

and each term alone is minimised by sorting: eigenvalues for the first (Hoffman & Wielandt 1953), values for the second.
Kept joint, the first is at least the distance of sorted rows, so both are one cost of a linear assignment: the third
lower bound (TLB) of Memoli (2011, section 6), of centred distances. Averaging quantiles only decreases it (Jensen), and
so do projections on orthonormal axes, sorted one by one, which leaves a Euclidean distance and no assignment. The
second lower bound (SLB) sorts all distances at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.fft import dct

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.numerics.compiled import jit
from klarsicht.numerics.compiled.jit import SourceHash, compile_cached
from klarsicht.numerics.transport.rotations import Shapes

SOURCE_HASH = SourceHash.of(__file__, jit.__file__)

ROW = 16  # quantiles of a row of distances
ALL = 64  # quantiles of all distances
MARGIN = 1e-5  # relative to norms and distances; exceeds their rounding in float32
CHUNK = 256  # shapes whose distances are held in memory together


class Invariants(NamedTuple):
    """Embeddings of N shapes whose Euclidean distances do not exceed GW, float32 (N, .); 5 kB a shape at 64 points.

    Attributes:
        spectral: spectrum of the centred distances, and means.
        sorted_distances: all distances, sorted (SLB).
        projections: each point's sorted centred distances and mean, on orthonormal axes, sorted on each (TLB).
    """

    spectral: Floats
    sorted_distances: Floats
    projections: Floats


def invariants(shapes: Shapes) -> Invariants:
    """Compute the invariants of shapes, CHUNK at a time."""
    starts = range(0, len(shapes), CHUNK)
    parts = [_chunk_invariants(shapes.points[n : n + CHUNK], shapes.weights) for n in starts]
    return Invariants(*(np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True)))


def embedding_bound(e: Floats, i: Ints, j: Ints) -> Doubles:
    """Bound GW^2 of pairs from below, (m,): |e_i - e_j|^2 of any embedding of `Invariants`, less rounding errors."""
    out = np.empty(len(i))
    _embedded(SOURCE_HASH, e, i, j, out)
    return out


def _chunk_invariants(points: Floats, weights: Floats) -> tuple[Doubles, Doubles, Doubles]:
    """Compute the embeddings of some shapes, in float64."""
    P = points.shape[2]
    places = points.astype(np.float64)
    D = np.sqrt(((places[..., :, None, :] - places[..., None, :, :]) ** 2).sum(-1))
    rows = D.mean(3)
    means = rows.mean(2)
    r = rows - means[..., None]
    centred = D - rows[..., None] - r[..., None, :]
    profiles = np.concatenate([_quantiles(centred, ROW), np.sqrt(2) * r[..., None]], 3)
    axes = profiles @ dct(np.eye(profiles.shape[3]), norm="ortho")
    spectrum = np.linalg.eigvalsh(centred) / P
    return (
        _concatenate_signs(weights, spectrum, np.sort(r, 2) * np.sqrt(2 / P), means[..., None]),
        _concatenate_signs(weights, _quantiles(D.reshape(*D.shape[:2], P * P), ALL)),
        _concatenate_signs(weights, np.sort(axes, 2) / np.sqrt(P), means[..., None]),
    )


def _quantiles(values: Doubles, q: int) -> Doubles:
    """Average the quantile function of the last axis over q equal parts, divided by sqrt(q): (..., q); fewer values
    stay.
    """
    n = values.shape[-1]
    q = min(n, q)
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(np.sort(values, -1), -1)], -1)
    edges = np.arange(q + 1) * n / q
    low = np.minimum(edges.astype(int), n - 1)
    reached = sums[..., low] + (edges - low) * (sums[..., low + 1] - sums[..., low])
    means: Doubles = np.diff(reached) * (np.sqrt(q) / n)
    return means


def _concatenate_signs(weights: Floats, *parts: Doubles) -> Doubles:
    """Concatenate parts (N, S, ...) to (N, .), each sign multiplied by the root of its weight."""
    flat = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], 2)
    return (flat * np.sqrt(weights)[:, None]).reshape(len(flat), -1)


@compile_cached
def _embedded(source_hash: Any, e: Any, i: Any, j: Any, out: Any) -> None:
    """Kernel of `embedding_bound`."""
    for m in range(len(i)):
        a, b, square, size = e[i[m]], e[j[m]], np.float32(0), np.float32(0)
        for k in range(len(a)):
            square += (a[k] - b[k]) ** 2
            size += a[k] ** 2 + b[k] ** 2
        out[m] = max(np.sqrt(square) * (1 - MARGIN) - MARGIN * np.sqrt(size), 0.0) ** 2
