"""Vector loops against numpy."""

import numpy as np
import pytest
from numba import njit

from klarsicht.numerics.compiled.row_minima import WIDTH, padded_width, place, relax


@njit
def _relax(C, i, v, u, d):
    return relax(C, i, v, u, d)


@njit
def _place(d, least):
    return place(d, least)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("Q", [16, 64, 144])
def test_relax_is_an_elementwise_minimum_and_place_finds_it(kind, Q):
    rng = np.random.default_rng(Q)
    C, v, d = (rng.standard_normal(shape).astype(kind) for shape in ((3, Q), Q, Q))
    C[1, Q - 3 :], v[5], d[7] = np.inf, -np.inf, np.inf
    u = kind(0.25)
    wanted = np.minimum(d, C[1] - v - u)
    least = _relax(C, 1, v, u, d)
    np.testing.assert_allclose(d, wanted, rtol=1e-5 if kind == np.float32 else 1e-12, atol=1e-6)
    assert least == d.min() and _place(d, least) == d.argmin()


def test_place_takes_the_first_of_equals():
    d = np.ones(48, np.float32)
    d[[20, 21, 40]] = -1
    assert _place(d, np.float32(-1)) == 20


def test_padded_is_the_next_multiple():
    assert [padded_width(P) for P in (1, WIDTH, WIDTH + 1, 64)] == [WIDTH, WIDTH, 2 * WIDTH, 64]
