"""Rotational alignment of pairs of point sets by sliced Wasserstein distance; gives the starts of iterative solvers.

Axes: N shapes, P points, A angles over the full circle, q quantiles.

The sorted projections S_i(a) of a shape on direction a are the quantile function of its projection. Rotating the shape
by -s steps shifts them cyclically, S_i(a + s), and reflecting x -> -x reverses them, S_i(A/2 - a). So the sliced
distance to S_j is least where the correlation over shifts of a half circle is largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.compiled import jit
from klarsicht.numerics.compiled.jit import SourceHash, compile_cached, compile_inlined, run_parallel
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.sliced import quantile_means

ANGLES = 32  # a multiple of 4
QUANTILES = 16
MOST_STARTS = 8  # a correlation of two shapes seldom has more local maxima
CHUNK = 1024  # shapes projected together
RESOLVED = np.float32(1e-6)  # relative resolution of a sum of squares in float32

SOURCE_HASH = SourceHash.of(__file__, jit.__file__)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shapes:
    """N measures in the layout of the kernels that compare pairs of them: points float32 (N, P, 2), and quantiles of
    their projections on A directions, float32 (N, A, q)."""

    points: Floats
    projections: Floats

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def of(cls, measures: PointMeasures) -> Shapes:
        """Convert measures without moving them: centre them before, and scale them for invariance to size."""
        points = np.ascontiguousarray(measures.points, np.float32)
        P, angles = points.shape[1], 2 * np.pi * np.arange(ANGLES) / ANGLES
        directions = np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        shadows = np.empty((len(points), ANGLES, min(P, QUANTILES)), np.float32)
        means = quantile_means(P, shadows.shape[2]).astype(np.float32)
        for n in range(0, len(points), CHUNK):
            projections = np.sort((points[n : n + CHUNK] @ directions).transpose(0, 2, 1), axis=2)
            shadows[n : n + CHUNK] = projections @ means
        return cls(points, shadows)


def best_rotations(
    shapes: Shapes,
    i: Ints,
    j: Ints,
    *,
    reflection: bool,
    n_starts: int,
    within: float = np.inf,
    threads: int | None = None,
) -> Floats:
    """Find the rotations of least sliced distance from shapes i to shapes j, best first: float32 (m, n_starts, 3).

    Each is (cos, sin, sign), for x -> R (sign x, y), accurate to a degree or two; -1 is a reflection. The sign is 0
    where there are fewer local optima, or where the squared sliced distance exceeds `within` times the least. Raises
    UsageError: n_starts outside 1..8, or within below 1."""
    if not 1 <= n_starts <= MOST_STARTS:
        raise UsageError("number of starts", got=n_starts, rule=f"1 to {MOST_STARTS}")
    if not within >= 1:
        raise UsageError("within", got=within, rule="1 (the best start alone) or more")
    turns, S, share = np.zeros((len(i), n_starts, 3), np.float32), shapes.projections, np.float32(within)
    run_parallel(
        lambda a, b: _best_turns(SOURCE_HASH, S, i[a:b], j[a:b], 1 + reflection, share, turns[a:b]), len(i), threads
    )
    return turns


def minimum_over_rotations(turns: Floats, value: Callable[[Ints, Floats], Doubles]) -> Doubles:
    """Minimise value(pairs, one rotation for each) over the rotations (m, n, 3) of each pair; (m,)."""
    least = np.full(len(turns), np.inf)
    for n in range(turns.shape[1]):
        pairs = np.flatnonzero(turns[:, n, 2])
        least[pairs] = np.minimum(least[pairs], value(pairs, turns[pairs, n]))
    return least


def rotate_points(points: Floats, turns: Floats) -> Floats:
    """Rotate points (m, ..., 2), each set by its own rotation (m, 3)."""
    cos, sin, sign = (t.reshape(-1, *[1] * (points.ndim - 2)) for t in turns.T)
    x, y = sign * points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)


@compile_cached
def _best_turns(source_hash: Any, shadows: Any, i: Any, j: Any, mirrors: int, within: Any, turns: Any) -> None:
    score = np.empty((2, shadows.shape[1]), np.float32)
    for m in range(len(i)):
        S, T = shadows[i[m]], shadows[j[m]]
        correlate(S, T, score)
        pick(score, mirrors, energy(S, T), within, turns[m])


@compile_inlined
def energy(S: Any, T: Any) -> Any:
    """Compute (|S|^2 + |T|^2) / 2 over a half circle: the score of two shapes that differ by a rotation only."""
    total = np.float32(0)
    for a in range(len(S) // 2):
        for k in range(S.shape[1]):
            total += S[a, k] * S[a, k] + T[a, k] * T[a, k]
    return total / 2


@compile_inlined
def correlate(S: Any, T: Any, score: Any) -> None:
    """Set score[m, s] = sum_a <S(a + s), T(a)> over a half circle, (2, A); S (A, q) is reflected where m = 1."""
    A, q = S.shape
    half, around, below = A // 2, np.empty((A + A // 2, q), np.float32), T[: A // 2].copy().reshape(-1)
    for m in range(2):
        for a in range(A + half):
            around[a] = S[(half - a) % A if m else a % A]
        above = around.reshape(-1)
        for s in range(A):
            total = np.float32(0)
            for k in range(half * q):
                total += above[s * q + k] * below[k]
            score[m, s] = total


@compile_inlined
def pick(score: Any, mirrors: int, full: Any, within: Any, turns: Any) -> None:
    """Set turns[n] = (cos, sin, sign) of the n-th highest local maximum of the scores, down to `within` times the least
    squared sliced distance, which is proportional to full - height; the rest stays unchanged."""
    A = score.shape[1]
    height, place = np.full((mirrors, A), np.float32(-np.inf)), np.empty((mirrors, A), np.float32)
    for m in range(mirrors):
        for s in range(A):
            height[m, s], place[m, s] = parabola_peak(score[m, s - 1], score[m, s], score[m, (s + 1) % A])
    least = max(full - height.max(), RESOLVED * full)
    for n in range(len(turns)):
        m, s = np.divmod(np.argmax(height), A)
        if height[m, s] == -np.inf or (n > 0 and full - height[m, s] > within * least):
            return
        height[m, s] = -np.inf
        angle = -2 * np.pi * (s + place[m, s]) / A
        turns[n, 0], turns[n, 1], turns[n, 2] = np.cos(angle), np.sin(angle), 1 - 2 * m


@compile_inlined
def parabola_peak(before: Any, here: Any, after: Any) -> tuple[Any, Any]:
    """Fit a parabola to three scores: its height, -inf where the second is no maximum, and its offset from that."""
    slope, bend = (after - before) / 2, before - 2 * here + after
    if here < max(before, after):
        return np.float32(-np.inf), np.float32(0)
    if bend == 0:
        return here, np.float32(0)
    return here - slope * slope / (2 * bend), -slope / bend
