"""Gromov-Wasserstein against POT from the same start, all permutations, isometries; its search against all pairs."""

from itertools import permutations

import numpy as np
import pytest

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.compiled.jit import compile_inlined
from klarsicht.numerics.compiled.row_minima import padded_width
from klarsicht.numerics.search.blocks import all_pairs, search
from klarsicht.numerics.transport import frank_wolfe
from klarsicht.numerics.transport.gromov import Gromov, squared_gromov_wasserstein
from klarsicht.numerics.transport.measures import PointMeasures
from klarsicht.numerics.transport.rotations import Shapes

make, compare, descend, objective = (
    getattr(frank_wolfe, name) for name in ("make_frank_wolfe_workspace", "compare", "descend", "objective")
)


@compile_inlined
def descend_from(points, i, j, Q, plans, out):
    """Set out[m] to the objective that pair m reaches from plans[m], and plans[m] to the final plans."""
    d = make(points.shape[1], Q)
    for m in range(len(i)):
        compare(points[i[m]], points[j[m]], d)
        d.plan[:] = plans[m]
        descend(d)
        plans[m] = d.plan
        out[m] = objective(d)


def descend_from_plans(of, i, j, plans):
    """Objectives (m,) from given plans (m, P), permutations, in place of the best rotations; and the final plans."""
    out, plans = np.zeros(len(i)), np.array(plans, np.int32)
    descend_from(of.points, i, j, padded_width(plans.shape[1]), plans, out)
    return out, plans


def planted(n, P, seed=0):
    """Bars, L's, crosses and arcs of P points, jittered, turned, mirrored, moved, in any order: (n, P, 2)."""
    rng = np.random.default_rng(seed)
    t = np.linspace(-1, 1, P)
    half = np.arange(P) % 2 == 0
    kinds = [
        np.stack([t, 0 * t], 1),
        np.where(half[:, None], np.stack([t, -1 + 0 * t], 1), np.stack([-1 + 0 * t, t], 1)),
        np.where(half[:, None], np.stack([t, 0 * t], 1), np.stack([0 * t, 0.6 * t], 1)),
        np.stack([np.cos(2 * t), np.sin(2 * t)], 1),
    ]
    points = np.stack([kinds[k] for k in rng.integers(4, size=n)]) + 0.08 * rng.standard_normal((n, P, 2))
    moved = [turn(x, a, s) for x, a, s in zip(points, rng.uniform(0, 7, n), rng.choice([-1, 1], n), strict=True)]
    return np.stack([rng.permutation(x) for x in moved])


def turn(points, angle, sign=1):
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points * [sign, 1]) @ R.T


def shapes(points):
    return Shapes.of(PointMeasures.of(points).scale())


def distances(of):
    """(N, P, P) in float64."""
    x = of.points.astype(float)
    return np.sqrt(((x[:, :, None] - x[:, None]) ** 2).sum(3))


def by_all_permutations(D, E):
    p = np.array(list(permutations(range(len(D)))))
    return ((D - E[p[:, :, None], p[:, None, :]]) ** 2).mean((1, 2)).min()


def pairs_of(n, m, seed=1):
    rng = np.random.default_rng(seed)
    i = rng.integers(n, size=m)
    return i, (i + rng.integers(1, n, m)) % n


@pytest.mark.parametrize("P", [1, 2, 3, 5, 7])
def test_never_below_all_permutations_and_often_there(P):
    of = (
        shapes(np.random.default_rng(P).standard_normal((40, P, 2)))
        if P > 1
        else Shapes.of(PointMeasures.of(np.ones((40, 1, 2))))
    )
    i = np.arange(20)
    D = distances(of)
    least = np.array([by_all_permutations(D[a], D[a + 20]) for a in i])
    found = squared_gromov_wasserstein(of, i, i + 20, n_starts=8, within=np.inf)
    assert (found >= least * (1 - 1e-5) - 1e-9).all()
    assert found.mean() <= 1.12 * least.mean() + 1e-9
    assert (found <= least * 1.0001 + 1e-9).mean() >= 0.5


def as_plan(permutation):
    plan = np.zeros((len(permutation),) * 2)
    plan[np.arange(len(permutation)), permutation] = 1 / len(permutation)
    return plan


@pytest.mark.parametrize("P", [8, 32])
def test_equals_pot_from_the_same_start(P):
    ot = pytest.importorskip("ot", reason="POT is not installed")
    rng, of = np.random.default_rng(P), shapes(planted(20, P))
    D, w = distances(of), np.full(P, 1 / P)
    i, j = pairs_of(20, 25)
    plans = np.stack([rng.permutation(P) for _ in i]).astype(np.int32)
    expected = [
        ot.gromov.gromov_wasserstein2(D[a], D[b], w, w, "square_loss", G0=as_plan(p), tol_rel=0, tol_abs=1e-12)
        for a, b, p in zip(i, j, plans, strict=True)
    ]
    found, reached = descend_from_plans(of, i, j, plans)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    at = [((D[a] - D[b][p][:, p]) ** 2).mean() for a, b, p in zip(i, j, reached, strict=True)]
    np.testing.assert_allclose(found, at, rtol=1e-5)


@pytest.mark.parametrize(("P", "n_starts"), [(16, 1), (32, 1), (64, 3)])
def test_mean_objective_is_not_above_pots(P, n_starts):
    ot = pytest.importorskip("ot", reason="POT is not installed")
    of, w = shapes(planted(40, P)), np.full(P, 1 / P)
    D = distances(of)
    i, j = pairs_of(40, 40)
    pots = [ot.gromov.gromov_wasserstein2(D[a], D[b], w, w, "square_loss") for a, b in zip(i, j, strict=True)]
    assert squared_gromov_wasserstein(of, i, j, n_starts=n_starts).mean() <= 1.01 * np.mean(pots)


def test_more_starts_never_raise_it():
    of = shapes(planted(40, 24))
    i, j = pairs_of(40, 60)
    values = [squared_gromov_wasserstein(of, i, j, n_starts=n, within=np.inf) for n in (1, 2, 4)]
    assert (values[1] <= values[0]).all() and (values[2] <= values[1]).all()


@pytest.mark.parametrize(("angle", "sign"), [(0.9, 1), (-2.2, 1), (0.3, -1)])
def test_isometries_cost_nothing(angle, sign):
    """Turned, mirrored, moved, in another order: the same shape."""
    x = planted(30, 48)
    y = np.stack([np.random.default_rng(5).permutation(turn(p, angle, sign)) + 9 for p in x])
    i = np.arange(30)
    assert np.sqrt(squared_gromov_wasserstein(shapes(np.concatenate([x, y])), i, i + 30)).max() < 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_steps_of_the_circle_change_nothing(sign):
    """Rotations by 11.25 degrees permute the angles of the start, so the same plan is found."""
    x = planted(30, 48)
    y = turn(x, 3 * np.pi / 16, sign)
    of = shapes(np.concatenate([x, y]))
    i, j = pairs_of(30, 100)
    difference = np.abs(
        np.sqrt(squared_gromov_wasserstein(of, i, j)) - np.sqrt(squared_gromov_wasserstein(of, i + 30, j))
    )
    assert (difference < 1e-5).mean() >= 0.98  # but for summits of equal height
    assert difference.mean() < 1e-4


def test_both_directions_nearly_agree():
    """They start from different maps of points: least values nearby, one percent apart in the mean."""
    of = shapes(planted(40, 32))
    i, j = pairs_of(40, 100)
    there, back = np.sqrt(squared_gromov_wasserstein(of, i, j)), np.sqrt(squared_gromov_wasserstein(of, j, i))
    assert np.abs(there - back).mean() < 0.02 * there.mean()


def test_size_counts_unless_scaled():
    x = planted(4, 20)
    i = np.arange(4)
    both = PointMeasures.of(np.concatenate([x, 2 * x]))
    assert squared_gromov_wasserstein(Shapes.of(both.scale()), i, i + 4).max() < 1e-10
    D = distances(Shapes.of(both.centre()))[:4]
    np.testing.assert_allclose(
        squared_gromov_wasserstein(Shapes.of(both.centre()), i, i + 4), (D**2).mean((1, 2)), rtol=1e-5
    )


def test_one_place_against_a_shape_is_its_mean_square_distance():
    """Closed form: every plan gives mean D^2; duplicates everywhere."""
    points = np.zeros((3, 12, 2))
    points[1], points[2, :6, 0] = planted(1, 12)[0], 1
    of = Shapes.of(PointMeasures.of(points).centre())
    D = distances(of)
    found = squared_gromov_wasserstein(of, np.array([0, 0, 0]), np.array([0, 1, 2]))
    np.testing.assert_allclose(found, (D**2).mean((1, 2)), rtol=1e-5)


def test_threads_do_not_change_results():
    of = shapes(planted(20, 24))
    i, j = pairs_of(20, 50)
    np.testing.assert_array_equal(
        squared_gromov_wasserstein(of, i, j, threads=1), squared_gromov_wasserstein(of, i, j, threads=3)
    )


@pytest.mark.slow
def test_candidates_find_nearly_all_neighbours():
    metric = Gromov()
    rows = metric.prepare(PointMeasures.of(planted(150, 32)))
    D = all_pairs(metric, rows, 150)
    np.fill_diagonal(D, np.inf)
    wanted = np.argsort(D, 1)[:, :8]
    found = search(metric, rows, 8, np.arange(150), 64).indices
    assert np.mean([len(set(a) & set(b)) / 8 for a, b in zip(found, wanted, strict=True)]) >= 0.9


@pytest.mark.parametrize(("wrong", "words"), [({"n_starts": 0}, "starts"), ({"within": 0.5}, "within")])
def test_refuses_settings(wrong, words):
    with pytest.raises(UsageError, match=words):
        squared_gromov_wasserstein(shapes(planted(2, 5)), np.array([0]), np.array([1]), **wrong)
