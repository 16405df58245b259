"""Erasure: LEACE's laws, its own reference implementation where installed, scikit-learn's classifiers."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, Ridge

from klarsicht.ground.errors import InputError
from klarsicht.numerics.erasure import (
    RIDGE_OF_CHANGE,
    Eraser,
    covariance,
    oblique_eraser,
    orthogonal_eraser,
    pattern,
    principal_directions,
    regression_eraser,
)

RNG = np.random.default_rng(0)


def rows(n=400, C=6, seed=0):
    """Rows of a skew covariance, a label that shifts them along one direction."""
    draw = np.random.default_rng(seed)
    y = draw.random(n) < 0.3
    v = np.array([1.0, 0.5, 0, 0, 0, 0])[:C]
    mix = draw.standard_normal((C, C)) * np.array([3, 2, 1, 0.5, 0.2, 0.1])[:C]
    return draw.standard_normal((n, C)) @ mix.T + 2 * np.outer(y, v), y


@pytest.fixture(params=["orthogonal", "oblique"])
def eraser(request):
    V, z = RNG.standard_normal((6, 2)), RNG.standard_normal(6)
    return orthogonal_eraser(V, z) if request.param == "orthogonal" else oblique_eraser(V, covariance(rows()[0]), z)


def test_erasing_twice_is_erasing_once(eraser):
    X, _ = rows()
    np.testing.assert_allclose(eraser(eraser(X)), eraser(X), atol=1e-10)


def test_nothing_of_the_directions_is_left_and_the_reference_stays(eraser):
    X, _ = rows()
    np.testing.assert_allclose(eraser.amounts(eraser(X)), 0, atol=1e-10)
    np.testing.assert_allclose(eraser(eraser.reference[None])[0], eraser.reference, atol=1e-12)
    np.testing.assert_allclose(eraser(eraser.reference + eraser.left.T), np.stack([eraser.reference] * 2), atol=1e-10)


def test_half_the_strength_moves_half_way(eraser):
    X, _ = rows()
    np.testing.assert_allclose(eraser(X, 0.5), (X + eraser(X)) / 2, atol=1e-10)


def test_one_orthogonal_direction_is_the_published_formula():
    X, v, z = rows()[0], RNG.standard_normal(6), RNG.standard_normal(6)
    v /= np.linalg.norm(v)
    literal = np.stack([a + v * (v @ z - v @ a) for a in X])
    np.testing.assert_allclose(orthogonal_eraser(v[:, None], z)(X), literal, atol=1e-12)


def test_several_orthogonal_directions_are_the_closed_form():
    X, C, z = rows()[0], RNG.standard_normal((6, 3)), RNG.standard_normal(6)
    P = C @ np.linalg.inv(C.T @ C) @ C.T
    np.testing.assert_allclose(orthogonal_eraser(C, z)(X), X - (X - z) @ P.T, atol=1e-10)


@pytest.mark.parametrize("kind", ["orthogonal", "oblique"])
def test_after_erasing_the_pattern_no_linear_classifier_finds_the_label(kind):
    X, y = rows(2000)
    V = pattern(X, y)[:, None]
    erased = (orthogonal_eraser(V, X.mean(0)) if kind == "orthogonal" else oblique_eraser(V, covariance(X), X.mean(0)))(
        X
    )
    np.testing.assert_allclose(pattern(erased, y), 0, atol=1e-10)
    fit = LogisticRegression(C=1e6, max_iter=2000)
    assert np.ptp(fit.fit(X, y).predict_proba(X)[:, 1]) > 0.5
    found = fit.fit(erased, y).predict_proba(erased)[:, 1]
    np.testing.assert_allclose(found, y.mean(), atol=2e-3)  # the best linear prediction is the constant one


def test_rows_without_any_variance_are_erased_as_orthogonally():
    """A layer that is silent on clean images: every direction is as likely, and the ridge is all there is."""
    V = np.eye(5)[:, :2]
    eraser = oblique_eraser(V, covariance(np.zeros((20, 5))), np.zeros(5))
    x = np.random.default_rng(0).normal(size=(4, 5))
    np.testing.assert_allclose(eraser(x)[:, :2], 0, atol=1e-9)
    np.testing.assert_allclose(eraser(x)[:, 2:], x[:, 2:], atol=1e-9)


def test_oblique_is_leace_written_out():
    """P = I - W^+ P_{W s} W with W = S^(-1/2), s = cov(x, y); x' = x - P (x - E x)."""
    X, y = rows()
    S, s = np.cov(X.T, bias=True), pattern(X, y)
    W = fractional_matrix_power(S, -0.5)
    u = W @ s / np.linalg.norm(W @ s)
    literal = X - (X - X.mean(0)) @ (np.linalg.inv(W) @ np.outer(u, u) @ W).T
    np.testing.assert_allclose(oblique_eraser(s[:, None], S, X.mean(0))(X), literal, atol=1e-8)


def test_oblique_equals_the_authors_package():
    torch, package = pytest.importorskip("torch"), pytest.importorskip("concept_erasure")
    X, y = rows()
    fitter = package.LeaceFitter(6, 1, dtype=torch.float64, shrinkage=False)
    fitter.update(torch.from_numpy(X), torch.from_numpy(y.astype(float))[:, None])
    S = np.cov(X.T)
    ours = oblique_eraser(pattern(X, y)[:, None], S, X.mean(0))(X)
    np.testing.assert_allclose(ours, fitter.eraser(torch.from_numpy(X)).numpy(), atol=1e-6)


def test_no_other_erasure_of_the_same_directions_moves_rows_less_in_any_norm():
    X, z = rows()[0], np.zeros(6)
    X = X - X.mean(0)
    V, S = RNG.standard_normal((6, 2)), np.cov(X.T, bias=True)
    ours = oblique_eraser(V, S, z)
    for seed in range(50):
        draw = np.random.default_rng(seed)
        free = draw.standard_normal((2, 6)) * 0.3
        L = ours.left
        other = Eraser(L, ours.right + free - free @ L @ np.linalg.pinv(L), z)  # also R L = I
        np.testing.assert_allclose(other.right @ L, np.eye(2), atol=1e-10)
        M = draw.standard_normal((6, 6))
        assert (((ours(X) - X) @ M) ** 2).sum() <= (((other(X) - X) @ M) ** 2).sum()


def test_oblique_moves_clean_rows_far_less_than_orthogonal_where_variances_differ():
    clean = np.random.default_rng(1).standard_normal((1000, 2)) * [10, 0.1]
    V = np.array([[1.0], [1.0]])
    moved = {
        name: np.sqrt(((e(clean) - clean) ** 2).sum(1).mean())
        for name, e in (
            ("orthogonal", orthogonal_eraser(V, [0, 0])),
            ("oblique", oblique_eraser(V, covariance(clean), [0, 0])),
        )
    }
    assert moved["oblique"] < moved["orthogonal"] / 20


def test_the_covariance_is_scikit_learns_and_never_singular():
    X, _ = rows(30)
    np.testing.assert_allclose(covariance(X), LedoitWolf().fit(X).covariance_, rtol=1e-4, atol=1e-5)
    assert np.linalg.eigvalsh(covariance(np.ones((5, 3))))[0] > 0
    assert np.linalg.eigvalsh(covariance(np.outer(np.arange(5.0), [1, 0, 0])))[0] > 0


def test_principal_directions_are_those_of_a_generalised_eigenproblem():
    from scipy.linalg import eigh

    d, S = RNG.standard_normal((50, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.1]), covariance(rows()[0])
    vectors = eigh(d.T @ d, S)[1]
    ours = principal_directions(d, S, 2)
    theirs = S @ vectors[:, ::-1][:, :2]
    for one, other in zip(ours.T, theirs.T, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert abs(cosine) == pytest.approx(1, abs=1e-8)


def test_principal_directions_beside_a_first_one_span_what_they_should():
    """Effects in a plane: the first direction and one more erase them whole, wherever the first lies in the plane."""
    plane = RNG.standard_normal((2, 6))
    effects, S = RNG.standard_normal((40, 2)) @ plane, covariance(rows()[0])
    V = principal_directions(effects, S, 5, first=plane[0] + plane[1])
    assert V.shape == (6, 2)
    z = np.zeros(6)
    np.testing.assert_allclose(oblique_eraser(V, S, z)(effects), 0, atol=1e-8)


def test_a_regression_eraser_subtracts_what_scikit_learns_ridge_predicts():
    draw = np.random.default_rng(2)
    X = draw.standard_normal((200, 6)) * [3, 1, 1, 2, 0.5, 1] + 4
    change = X @ draw.standard_normal((6, 6)) + draw.standard_normal((200, 6)) + 7
    ridge = Ridge(alpha=RIDGE_OF_CHANGE * X.var(0).mean() * len(X)).fit(X, change)
    np.testing.assert_allclose(X - regression_eraser(X, change, 9)(X), ridge.predict(X), atol=1e-8)
    # of two axes: the best approximation of rank two of the predicted changes about their mean (Eckart and Young 1936)
    U, sizes, V = np.linalg.svd(ridge.predict(X) - change.mean(0), full_matrices=False)
    expected = (U[:, :2] * sizes[:2]) @ V[:2] + change.mean(0)
    np.testing.assert_allclose(X - regression_eraser(X, change, 2)(X), expected, atol=1e-8)


def test_a_change_that_is_a_constant_is_subtracted_whole_and_rows_without_variance_are_no_trouble():
    X, shift = RNG.standard_normal((50, 3)), np.array([1.0, -2, 0])
    np.testing.assert_allclose(regression_eraser(X + shift, np.tile(shift, (50, 1)), 3)(X + shift), X, atol=1e-12)
    still = np.ones((50, 3))
    np.testing.assert_array_equal(regression_eraser(still, np.zeros((50, 3)), 3)(still), still)


@pytest.mark.parametrize("V", [np.zeros((4, 1)), np.ones((4, 2)), np.empty((4, 0)), np.full((4, 1), np.nan)])
def test_directions_that_are_none_are_refused(V):
    with pytest.raises(InputError, match="direction"):
        orthogonal_eraser(V, np.zeros(4))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        Eraser(np.ones((4, 1)), np.ones((4, 1)), np.zeros(4))
