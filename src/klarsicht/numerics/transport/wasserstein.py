# mypy: disable-error-code="no-untyped-call"
"""Exact Wasserstein distances of small equal-weight point sets on the plane, in a fixed pose and up to rotation.

Axes: m pairs, P points, Q columns padded to whole vectors.

Equal weights make an optimal plan a permutation p (Birkhoff), so W2^2 = min_p (1/P) sum_i |x_i - y_p(i)|^2, one linear
assignment. Its initial duals are those of Gaussians with the same moments, where the optimal map is linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Doubles, Floats, Ints
from klarsicht.ground.errors import InputError
from klarsicht.numerics.compiled.jit import SourceHash, compile_cached, compile_inlined, run_parallel
from klarsicht.numerics.compiled.row_minima import padded_width, relax
from klarsicht.numerics.transport import assignment
from klarsicht.numerics.transport.assignment import assign, make_workspace, tighten_duals
from klarsicht.numerics.transport.rotations import Shapes, best_rotations, minimum_over_rotations, rotate_points

SOURCES = (__file__, *assignment.SOURCES)
SOURCE_HASH = SourceHash.of(*SOURCES)
MARGIN = 1e-5  # relative to the square of the largest coordinates; exceeds the rounding of a cost in float32

Points = NDArray[np.floating[Any]]


def squared_wasserstein(x: Points, y: Points, *, threads: int | None = None) -> Doubles:
    """Compute the exact squared 2-Wasserstein distance W2^2(x_m, y_m) of points (m, P, 2), float64 (m,), in the square
    of their unit, within rounding of the assignment's costs. Raises InputError: other shapes, or points that are not
    finite."""
    x, y = check_pairs(x, y)
    columns = optimal_plans(*_normalise_pairs(x, y), threads=threads)
    matched = np.take_along_axis(y, columns[..., None].astype(np.intp), 1)
    return np.asarray(((x - matched) ** 2).sum(2).mean(1))


def rotation_invariant_wasserstein(
    shapes: Shapes, i: Ints, j: Ints, *, reflection: bool = False, n_starts: int = 1, threads: int | None = None
) -> Doubles:
    """Minimise W2^2(R mu_i, mu_j) over rotations R about the origin, and reflections if `reflection`; float64 (m,).

    Assignment and the best rotation for it (Procrustes) alternate until the assignment repeats, from the n_starts
    rotations of least sliced distance: an upper bound of the minimum. Raises UsageError: n_starts outside 1..8."""
    turns = best_rotations(shapes, i, j, reflection=reflection, n_starts=n_starts, threads=threads)
    return minimum_over_rotations(turns, lambda pairs, turn: _from_rotations(shapes, i[pairs], j[pairs], turn, threads))


def _from_rotations(shapes: Shapes, i: Ints, j: Ints, turns: Floats, threads: int | None) -> Doubles:
    """Run the alternation from one rotation of each pair; squared distances (m,)."""
    x, y, out = rotate_points(shapes.points[i], turns), shapes.points[j], np.empty(len(i))
    Q = padded_width(x.shape[1])
    run_parallel(lambda a, b: _alternate(SOURCE_HASH, x[a:b], y[a:b], Q, out[a:b]), len(i), threads)
    return out


def optimal_plans(x: Floats, y: Floats, *, threads: int | None = None) -> NDArray[np.int32]:
    """Compute the optimal plan of each pair, the point of y_m for each of x_m, (m, P); x, y: float32 (m, P, 2)."""
    plans, Q = np.empty(x.shape[:2], np.int32), padded_width(x.shape[1])
    run_parallel(lambda a, b: _least_plans(SOURCE_HASH, x[a:b], y[a:b], Q, plans[a:b]), len(x), threads)
    return plans


def check_pairs(x: Any, y: Any) -> tuple[Doubles, Doubles]:
    """Convert pairs of point sets to float64; raises InputError as `squared_wasserstein`."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 3 or x.shape != y.shape or x.shape[1] == 0 or x.shape[2] != 2:
        raise InputError("pairs of point sets", got=(x.shape, y.shape), rule="both are (m, P, 2) with P >= 1")
    off = np.flatnonzero(~(np.isfinite(x).all((1, 2)) & np.isfinite(y).all((1, 2))))
    if len(off):
        raise InputError("points that are not finite", got=f"{len(off)} of {len(x)} pairs, the first is {off[0]}")
    return x, y


def _normalise_pairs(x: Doubles, y: Doubles) -> tuple[Floats, Floats]:
    """Centre both sets of each pair and scale them to a largest coordinate of 1.

    This keeps the optimal assignments and reduces the rounding of float32 costs.
    """
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    unit = np.maximum(np.abs(x).max((1, 2)), np.abs(y).max((1, 2)))
    unit = np.where(unit > 0, unit, 1)[:, None, None]
    return (x / unit).astype(np.float32), (y / unit).astype(np.float32)


@compile_cached
def _least_plans(source_hash: Any, x: Any, y: Any, Q: int, plans: Any) -> None:
    P = x.shape[1]
    C, v = np.full((P, Q), np.float32(np.inf)), np.zeros(Q, np.float32)
    s = make_workspace(C)
    for m in range(len(x)):
        gaussian_duals(x[m], y[m], v)
        match(x[m], y[m], C, v, plans[m], s)


@compile_cached
def _alternate(source_hash: Any, x: Any, y: Any, Q: int, out: Any) -> None:
    """Kernel of `_from_rotations`. x, y: (m, P, 2), x is rotated in place."""
    P = x.shape[1]
    C, v, plan = np.full((P, Q), np.float32(np.inf)), np.zeros(Q, np.float32), np.empty(P, np.int32)
    s = make_workspace(C)
    for m in range(len(x)):
        gaussian_duals(x[m], y[m], v)
        out[m] = alternate(x[m], y[m], C, v, plan, s)


@compile_inlined
def alternate(x: Any, y: Any, C: Any, v: Any, plan: Any, s: Any) -> Any:
    """Alternate assignment and Procrustes rotation from the current pose of x; returns the final W2^2."""
    best = np.inf
    while True:
        match(x, y, C, v, plan, s)
        cos, sin = procrustes(x, y, plan)
        rotate(x, cos, sin)
        value = mean_square(x, y, plan)
        if value >= best * (1 - 1e-6):
            return min(value, best)
        best = value


@compile_inlined
def match(x: Any, y: Any, C: Any, v: Any, plan: Any, s: Any) -> None:
    """Compute the optimal plan of two point sets from duals v, which become optimal."""
    plane_costs(x, y, C)
    tighten_duals(C, v, s)
    assign(C, v, plan, s)


@compile_inlined
def rotate(x: Any, cos: Any, sin: Any) -> None:
    for i in range(len(x)):
        a, b = x[i, 0], x[i, 1]
        x[i, 0], x[i, 1] = cos * a - sin * b, sin * a + cos * b


@compile_inlined
def procrustes(x: Any, y: Any, plan: Any) -> tuple[Any, Any]:
    """Compute cos and sin of the R that minimises the sum of |R x_i - y_p(i)|^2: the angle of sum conj(x_i) y_p(i)."""
    a, b = 0.0, 0.0
    for i in range(len(x)):
        p, q = x[i], y[plan[i]]
        a += p[0] * q[0] + p[1] * q[1]
        b += p[0] * q[1] - p[1] * q[0]
    size = np.hypot(a, b)
    return (np.float32(a / size), np.float32(b / size)) if size > 0 else (np.float32(1), np.float32(0))


@compile_inlined
def mean_square(x: Any, y: Any, plan: Any) -> float:
    """Compute the mean squared distance of assigned points."""
    total = 0.0
    for i in range(len(x)):
        j = plan[i]
        total += (x[i, 0] - y[j, 0]) ** 2 + (x[i, 1] - y[j, 1]) ** 2
    return total / len(x)


@compile_inlined
def plane_costs(x: Any, y: Any, C: Any) -> None:
    """Set C[i, j] = |x_i - y_j|^2."""
    P, a, b = len(x), y[:, 0].copy(), y[:, 1].copy()
    for i in range(P):
        for j in range(P):
            C[i, j] = (x[i, 0] - a[j]) ** 2 + (x[i, 1] - b[j]) ** 2


@compile_inlined
def gaussian_duals(x: Any, y: Any, v: Any) -> None:
    """Set v_j = |y|^2 - y^T B y, optimal where both are Gaussian: B = S_y^-1 # S_x maps y to x (Gelbrich 1990).

    The geometric mean of 2 x 2 matrices has a closed form (Bhatia 2007, 4.1.12): F # G = sqrt(f g / det K) K with
    K = F/f + G/g, f^2 = det F, g^2 = det G. Collinear points are treated as a thin ellipse.
    """
    a, b, c, f = moments(x)
    p, q, r, g = moments(y)
    k, n, m = a / f + r / g, b / f - q / g, c / f + p / g
    scale = np.sqrt(f / g / (k * m - n * n))
    for j in range(len(y)):
        s, t = y[j, 0], y[j, 1]
        v[j] = s * s + t * t - scale * (k * s * s + 2 * n * s * t + m * t * t)


@compile_inlined
def moments(x: Any) -> tuple[float, float, float, float]:
    """Compute a, b, c of [[a, b], [b, c]] = mean x x^T, made definite, and the root of its determinant."""
    a, b, c = 0.0, 0.0, 0.0
    for i in range(len(x)):
        a += x[i, 0] * x[i, 0] / len(x)
        b += x[i, 0] * x[i, 1] / len(x)
        c += x[i, 1] * x[i, 1] / len(x)
    thin = 1e-3 * (a + c) + 1e-12
    a, c = a + thin, c + thin
    return a, b, c, np.sqrt(a * c - b * b)


def dual_lower_bound(points: NDArray[np.float32], i: Ints, j: Ints) -> Doubles:
    """Bound W2^2 of pairs (i, j) of point sets float32 (N, P, 2) from below, float64 (m,), less rounding errors; it may
    be negative, and is tight where each set's mean is near the origin."""
    bounds, Q = np.empty(len(i)), padded_width(points.shape[1])
    run_parallel(lambda a, b: _below(SOURCE_HASH, points, i[a:b], j[a:b], Q, bounds[a:b]), len(i))
    largest = np.abs(points).max((1, 2)).astype(np.float64)
    rounding: Doubles = MARGIN * (largest[i] + largest[j]) ** 2
    return bounds - rounding


@compile_cached
def _below(source_hash: Any, points: Any, i: Any, j: Any, Q: int, bounds: Any) -> None:
    P = points.shape[1]
    C, v = np.full((P, Q), np.float32(np.inf)), np.zeros(Q, np.float32)
    s = make_workspace(C)
    for m in range(len(i)):
        x, y = points[i[m]], points[j[m]]
        plane_costs(x, y, C)
        gaussian_duals(x, y, v)
        tighten_duals(C, v, s)
        bounds[m] = dual_value(C, v, s)


@compile_inlined
def dual_value(C: Any, v: Any, s: Any) -> float:
    """Compute the dual objective mean_i min_j (C[i, j] - v_j) + mean_j v_j."""
    P, total = len(C), 0.0
    for i in range(P):
        s.near[:] = np.inf
        total += relax(C, i, v, v.dtype.type(0), s.near) + v[i]
    return total / P
