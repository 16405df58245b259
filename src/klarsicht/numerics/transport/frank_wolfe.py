# mypy: disable-error-code="no-untyped-call"
"""Frank-Wolfe algorithm for Gromov-Wasserstein between two shapes: full steps, one linear assignment each.

Axes: P points, m pairs, Q columns padded to whole vectors.

The objective is (1/P^2) sum_ik (D_ik - E_p(i)p(k))^2 with D, E the distances inside the two shapes. They are
conditionally negative definite, so it is concave in the plan: along a step it is least at the far end, a vertex, and
vertices are permutations (Maron & Lipman 2018, arXiv 1802.06335). It decreases until a plan solves the assignment of
its own gradient. The gradient exists at any map of points: a start is the nearest point under good duals.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from klarsicht.numerics.compiled.jit import SourceHash, compile_cached, compile_inlined
from klarsicht.numerics.compiled.row_minima import place, relax
from klarsicht.numerics.transport import wasserstein
from klarsicht.numerics.transport.assignment import AssignmentWorkspace, assign, make_workspace, tighten_duals
from klarsicht.numerics.transport.wasserstein import gaussian_duals, plane_costs

SOURCES = (__file__, *wasserstein.SOURCES)
SOURCE_HASH = SourceHash.of(*SOURCES)


class FrankWolfeWorkspace(NamedTuple):
    """Buffers for one pair: distances D (P, P) and E (P, Q) inside the two shapes, E with zeros from column P on; -4 D
    / P; rows of E permuted by a plan; costs C (P, Q) and duals v (Q,); columns of rows (P,) of two plans; the points of
    the first shape rotated to a start; and those of the assignment."""

    D: Any
    E: Any
    step: Any
    permuted: Any
    C: Any
    v: Any
    plan: Any
    next: Any
    rotated: Any
    assignment: AssignmentWorkspace


@compile_inlined
def make_frank_wolfe_workspace(P: int, Q: int) -> FrankWolfeWorkspace:
    C = np.full((P, Q), np.float32(np.inf))
    return FrankWolfeWorkspace(
        np.empty((P, P), np.float32),
        np.zeros((P, Q), np.float32),
        np.empty((P, P), np.float32),
        np.empty((P, Q), np.float32),
        C,
        np.zeros(Q, np.float32),
        np.empty(P, np.int32),
        np.empty(P, np.int32),
        np.empty((P, 2), np.float32),
        make_workspace(C),
    )


@compile_cached
def descend_from_turns(source_hash: Any, points: Any, i: Any, j: Any, turns: Any, Q: int, out: Any) -> None:
    """Set out[m] to the least objective that pair m reaches from rotations turns[m] (n, 3), see `best_rotations`."""
    d = make_frank_wolfe_workspace(points.shape[1], Q)
    for m in range(len(i)):
        x, y = points[i[m]], points[j[m]]
        compare(x, y, d)
        out[m] = np.inf
        for n in range(turns.shape[1]):
            if turns[m, n, 2] != 0:
                nearest(x, y, turns[m, n], d)
                descend(d)
                out[m] = min(out[m], objective(d))


@compile_inlined
def nearest(x: Any, y: Any, turn: Any, d: FrankWolfeWorkspace) -> None:
    """Set d.plan to the point of y nearest to each rotated point of x under the duals of Gaussians."""
    cos, sin, sign = turn
    for i in range(len(x)):
        a, b = sign * x[i, 0], x[i, 1]
        d.rotated[i, 0], d.rotated[i, 1] = cos * a - sin * b, sin * a + cos * b
    plane_costs(d.rotated, y, d.C)
    gaussian_duals(d.rotated, y, d.v)
    for i in range(len(x)):
        d.assignment.near[:] = np.inf
        d.plan[i] = place(d.assignment.near, relax(d.C, i, d.v, np.float32(0), d.assignment.near))


@compile_inlined
def compare(x: Any, y: Any, d: FrankWolfeWorkspace) -> None:
    """Compute the buffers of two shapes that do not depend on the plan."""
    distances(x, d.D)
    distances(y, d.E)
    d.step[:] = d.D * (np.float32(-4) / np.float32(len(x)))


@compile_inlined
def distances(x: Any, D: Any) -> None:
    """Set D[i, k] = |x_i - x_k|."""
    P, a, b = len(x), x[:, 0].copy(), x[:, 1].copy()
    for i in range(P):
        for k in range(P):
            D[i, k] = np.sqrt((a[i] - a[k]) ** 2 + (b[i] - b[k]) ** 2)


@compile_inlined
def descend(d: FrankWolfeWorkspace) -> None:
    """Run Frank-Wolfe with full steps from d.plan, any map, to a permutation that solves its own gradient's
    assignment."""
    P = len(d.plan)
    linearise(d)
    row_duals(d)
    tighten_duals(d.C, d.v, d.assignment)
    assign(d.C, d.v, d.next, d.assignment)
    while True:
        d.plan[:] = d.next
        linearise(d)
        assign(d.C, d.v, d.next, d.assignment)
        here, there = 0.0, 0.0
        for i in range(P):
            here += d.C[i, d.plan[i]]
            there += d.C[i, d.next[i]]
        if there >= here - 1e-6 * abs(here):
            return


@compile_inlined
def row_duals(d: FrankWolfeWorkspace) -> None:
    """Set v_j = -(2 / P) sum_k E_jk^2, optimal if D = E and the plan is the identity, since 2 D E <= D^2 + E^2."""
    P = len(d.plan)
    for j in range(P):
        total = np.float32(0)
        for k in range(P):
            total += d.E[j, k] ** 2
        d.v[j] = np.float32(-2) / np.float32(P) * total


@compile_inlined
def linearise(d: FrankWolfeWorkspace) -> None:
    """Set C = -(4 / P) D E[plan]: P times the gradient of the objective at the plan, without terms constant in it."""
    P = len(d.plan)
    for k in range(P):
        d.permuted[k] = d.E[d.plan[k]]
    np.dot(d.step, d.permuted, d.C)
    d.C[:, P:] = np.inf


@compile_inlined
def objective(d: FrankWolfeWorkspace) -> Any:
    """Compute mean (D - E[p, p])^2 by differences, so that it is 0 for equal shapes."""
    P, total = len(d.plan), 0.0
    for i in range(P):
        for k in range(P):
            total += (d.D[i, k] - d.permuted[i, d.plan[k]]) ** 2
    return total / (P * P)
