"""Assignment against scipy, all permutations, and the optimality of its own duals."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit
from scipy.optimize import linear_sum_assignment

from klarsicht.numerics.compiled.jit import SourceHash, compile_cached
from klarsicht.numerics.compiled.row_minima import padded_width
from klarsicht.numerics.transport.assignment import SOURCES, assign, make_workspace

SOURCE_HASH = SourceHash.of(__file__, *SOURCES)


def solve(costs):
    """Columns (m, P) of the rows of each matrix (m, P, P), from duals that are zero."""
    columns = np.empty(costs.shape[:2], np.int32)
    _solve(SOURCE_HASH, costs, columns, padded_width(costs.shape[2]))
    return columns


@compile_cached
def _solve(source_hash, costs, columns, Q):
    P = costs.shape[1]
    C, v = np.full((P, Q), np.inf, costs.dtype), np.zeros(Q, costs.dtype)
    s = make_workspace(C)
    for m in range(len(costs)):
        C[:, :P] = costs[m]
        v[:] = 0
        assign(C, v, columns[m], s)


def totals(costs, columns):
    return np.take_along_axis(costs.astype(np.float64), columns[..., None].astype(int), 2).sum((1, 2))


def least(costs):
    return np.array([c[linear_sum_assignment(c)].sum() for c in costs.astype(np.float64)])


def is_permutation(columns):
    return (np.sort(columns, 1) == np.arange(columns.shape[1])).all()


@pytest.mark.parametrize("P", [1, 2, 3, 7, 16, 33, 64, 130])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_equals_scipy(P, kind):
    rng = np.random.default_rng(P)
    x, y = rng.standard_normal((2, 6, P, 2))
    plane = ((x[:, :, None] - y[:, None]) ** 2).sum(3)
    costs = np.concatenate([rng.random((6, P, P)) - 0.5, plane, 1e3 * rng.standard_normal((6, P, P))]).astype(kind)
    columns = solve(costs)
    assert columns.dtype == np.int32 and is_permutation(columns)
    np.testing.assert_allclose(
        totals(costs, columns), least(costs), rtol=1e-6 if kind == np.float32 else 1e-12, atol=1e-13
    )


@given(costs=arrays(np.float32, (3, 5, 5), elements=st.integers(-3, 3)))
def test_ties_and_duplicates_reach_the_least_of_all_permutations(costs):
    rows = np.arange(5)
    brute = [min(c[rows, p].sum() for p in map(list, permutations(rows))) for c in costs]
    columns = solve(costs)
    assert is_permutation(columns)
    np.testing.assert_array_equal(totals(costs, columns), brute)


def test_equal_costs_everywhere():
    assert is_permutation(solve(np.zeros((2, 20, 20))))
    assert is_permutation(solve(np.full((2, 20, 20), 1e30, np.float32)))


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
def test_any_duals_lead_to_optimal_ones(seed, scale):
    """Strong duality: u_i = min_j (C_ij - v_j) gives sum u + sum v = the least sum, from whatever duals it began."""
    rng = np.random.default_rng(seed)
    C, v, columns = rng.random((12, 12)), scale * rng.standard_normal(16), np.empty(12, np.int32)
    _with_duals(np.pad(C, ((0, 0), (0, 4)), constant_values=np.inf), v, columns)
    bound = (C - v[:12]).min(1).sum() + v[:12].sum()
    np.testing.assert_allclose([bound, totals(C[None], columns[None])[0]], least(C[None])[0], rtol=1e-10)


@njit
def _with_duals(C, v, columns):
    assign(C, v, columns, make_workspace(C))
