"""Exact W2 against POT, all permutations and closed forms; its rotation-invariant form against a fine search."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.rotations import Shapes
from klarsicht.numerics.transport.wasserstein import rotation_invariant_wasserstein, squared_wasserstein

RNG = np.random.default_rng(0)
PLACES = st.floats(-100, 100, width=32)


def turn(points, angle, sign=1):
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points * [sign, 1]) @ R.T


def by_scipy(x, y):
    costs = ((x[:, None] - y[None]) ** 2).sum(2)
    return costs[linear_sum_assignment(costs)].mean()


def shapes(points):
    return Shapes.of(PointMeasures.of(points).centre())


@pytest.mark.parametrize("P", [1, 2, 16, 50, 64])
def test_equals_pot(P):
    ot = pytest.importorskip("ot", reason="POT is not installed")
    x, y = RNG.standard_normal((2, 8, P, 2)) * [3, 1] + 10
    w = np.full(P, 1 / P)
    expected = [ot.emd2(w, w, ot.dist(a, b)) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(squared_wasserstein(x, y), expected, rtol=1e-6)


@given(x=arrays(np.float64, (1, 5, 2), elements=PLACES), y=arrays(np.float64, (1, 5, 2), elements=PLACES))
def test_is_the_least_of_all_permutations(x, y):
    """Duplicates, lines and single places among them. Costs are float32 of the largest coordinate."""
    brute = min(((x[0] - y[0, p]) ** 2).sum(1).mean() for p in map(list, permutations(range(5))))
    found = squared_wasserstein(x, y)[0]
    assert brute * (1 - 1e-12) <= found <= brute + 1e-5 * max(np.abs(x).max(), np.abs(y).max()) ** 2


def test_closed_forms():
    x = RNG.standard_normal((4, 30, 2))
    shift = np.array([3.0, -4.0])
    np.testing.assert_allclose(squared_wasserstein(x, x + shift), 25, rtol=1e-10)  # translations
    dirac = np.broadcast_to([1.0, 2.0], x.shape)
    np.testing.assert_allclose(squared_wasserstein(x, dirac), ((x - [1, 2]) ** 2).sum(2).mean(1), rtol=1e-10)
    assert (squared_wasserstein(dirac, dirac) == 0).all()


def test_far_from_the_origin_nothing_is_lost():
    x, y = RNG.standard_normal((2, 6, 32, 2))
    means = x.mean(1) - y.mean(1)
    centred = squared_wasserstein(x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True))
    np.testing.assert_allclose(squared_wasserstein(x + 1e6, y + 1e6), (means**2).sum(1) + centred, rtol=1e-6)


@pytest.mark.slow
def test_symmetry_order_and_triangle():
    x, y, z = RNG.standard_normal((3, 10, 24, 2))
    np.testing.assert_allclose(squared_wasserstein(x, y), squared_wasserstein(y, x), rtol=1e-7)
    assert (squared_wasserstein(x, x[:, RNG.permutation(24)]) == 0).all()
    assert (
        np.sqrt(squared_wasserstein(x, z))
        <= np.sqrt(squared_wasserstein(x, y)) + np.sqrt(squared_wasserstein(y, z)) + 1e-9
    ).all()


def test_sees_rotation_where_no_invariance_is_claimed():
    x = RNG.standard_normal((5, 40, 2)) * [3, 1]
    assert (squared_wasserstein(x, turn(x, np.pi / 2)) > 1).all()


@pytest.mark.parametrize(("angle", "sign"), [(0.7, 1), (-2.5, 1), (1.1, -1)])
def test_rotations_about_the_mean_cost_nothing(angle, sign):
    x = RNG.standard_normal((20, 48, 2)) * [3, 1] + RNG.standard_normal((20, 1, 2))
    x[:, :16] += [4, 0]
    y = turn(x, angle, sign)[:, RNG.permutation(48)] + 7
    i = np.arange(20)
    both = shapes(np.concatenate([x, y]))
    assert np.sqrt(rotation_invariant_wasserstein(both, i, i + 20, reflection=sign < 0, n_starts=2)).max() < 1e-5
    if sign < 0:  # without mirrors a mirror image is another shape
        assert np.sqrt(rotation_invariant_wasserstein(both, i, i + 20)).min() > 1e-2


def test_is_an_upper_bound_that_more_starts_tighten_near_a_fine_search():
    x, y = RNG.standard_normal((2, 12, 16, 2)) * [2, 1]
    both, i = shapes(np.concatenate([x, y])), np.arange(12)
    x, y = both.points[:12].astype(float), both.points[12:].astype(float)
    fine = np.array(
        [min(by_scipy(turn(a, t), b) for t in np.linspace(0, 2 * np.pi, 360)) for a, b in zip(x, y, strict=True)]
    )
    one, eight = (rotation_invariant_wasserstein(both, i, i + 12, n_starts=n) for n in (1, 8))
    assert (eight <= one).all()
    assert (eight >= 0.98 * fine).all()  # half a degree costs less than 2 %
    assert eight.mean() <= 1.02 * fine.mean() and one.mean() <= 1.1 * fine.mean()


def test_one_place_and_duplicates():
    points = np.zeros((3, 10, 2))
    points[1, :5, 0], points[2] = 1.0, RNG.standard_normal((10, 2))
    both, i, j = shapes(points), np.array([0, 0, 1]), np.array([1, 2, 2])
    found = rotation_invariant_wasserstein(both, i, j)
    np.testing.assert_allclose(found[:2], (both.points[j[:2]] ** 2).sum(2).mean(1), rtol=1e-5)
    assert rotation_invariant_wasserstein(both, np.array([0]), np.array([0]))[0] == 0


def test_threads_do_not_change_results():
    x, y = RNG.standard_normal((2, 30, 20, 2))
    both, i = shapes(np.concatenate([x, y])), np.arange(30)
    np.testing.assert_array_equal(squared_wasserstein(x, y, threads=1), squared_wasserstein(x, y, threads=3))
    np.testing.assert_array_equal(
        rotation_invariant_wasserstein(both, i, i + 30, threads=1),
        rotation_invariant_wasserstein(both, i, i + 30, threads=3),
    )


def test_nothing_to_compare():
    assert squared_wasserstein(np.empty((0, 3, 2)), np.empty((0, 3, 2))).shape == (0,)


@pytest.mark.parametrize(
    ("x", "y"), [((2, 3), (2, 3)), ((2, 3, 2), (2, 4, 2)), ((2, 0, 2), (2, 0, 2)), ((2, 3, 3), (2, 3, 3))]
)
def test_refuses_shapes(x, y):
    with pytest.raises(InputError, match=r"\(m, P, 2\)"):
        squared_wasserstein(np.zeros(x), np.zeros(y))


def test_refuses_nan():
    x = np.zeros((3, 4, 2))
    x[2, 0, 0] = np.nan
    with pytest.raises(InputError, match="the first is 2"):
        squared_wasserstein(np.zeros((3, 4, 2)), x)


@pytest.mark.parametrize("n_starts", [0, 9])
def test_refuses_starts(n_starts):
    with pytest.raises(UsageError, match="starts"):
        rotation_invariant_wasserstein(shapes(np.zeros((2, 4, 2))), np.array([0]), np.array([1]), n_starts=n_starts)
