"""Fisher separability against generalised eigenvalues, scikit-learn, closed forms and invariance."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.clustering.fisher import SHRINKAGE, Separability, fisher_many, whiten


def fisher(Z, member):
    """Separability of one candidate."""
    one = fisher_many(Z, np.asarray(member)[None])
    return Separability(float(one.tau[0]), float(one.share[0]))


def planted(seed, n=200, d=5, size=40, distance=2.0):
    rng = np.random.default_rng(seed)
    member = np.arange(n) < size
    Z = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return Z + distance * member[:, None] * rng.standard_normal(d), member


def scatters(Z, member):
    """Between, within and total scatter over n, from their definitions."""
    S_b = S_w = 0
    for side in (Z[member], Z[~member]):
        gap = side.mean(0) - Z.mean(0)
        S_b = S_b + len(side) * np.outer(gap, gap) / len(Z)
        S_w = S_w + (side - side.mean(0)).T @ (side - side.mean(0)) / len(Z)
    return S_b, S_w, np.cov(Z.T, bias=True)


@pytest.mark.parametrize("seed", range(4))
def test_tau_is_the_generalised_eigenvalue(seed):
    """S_b v = l (S_w + e S_t) v."""
    Z, member = planted(seed)
    S_b, S_w, S_t = scatters(Z, member)
    largest = scipy.linalg.eigh(S_b, S_w + SHRINKAGE * S_t, eigvals_only=True)[-1]
    np.testing.assert_allclose(fisher(Z, member).tau, largest, rtol=1e-9)


def test_tau_is_the_scatter_ratio_of_scikit_learns_discriminant():
    Z, member = planted(1)
    scores = LinearDiscriminantAnalysis(solver="eigen").fit(Z, member).transform(Z)
    S_b, S_w, S_t = scatters(scores, member)
    expected = S_b.item() / (S_w + SHRINKAGE * S_t).item()
    np.testing.assert_allclose(fisher(Z, member).tau, expected, rtol=1e-9)


def test_two_gaussians_have_the_distance_between_them():
    """Shares 1 : 4, means 3 apart, covariance I: D^2 = 9, tau = 9 * .16, but for the shrinkage."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((100_000, 3))
    member = np.arange(100_000) < 20_000
    Z[member, 1] += 3
    found = fisher(Z, member)
    tau = 9 * 0.16
    assert found.share == 0.2
    np.testing.assert_allclose(found.tau, tau, rtol=0.02)
    np.testing.assert_allclose(found.d2, 9, rtol=0.02)
    np.testing.assert_allclose(found.rho2, tau / (1 + tau), rtol=0.01)


def test_values_without_noise_follow_the_formula_exactly():
    """Points at +-1 around means 6 apart, 1 in 4: S_w = 1, tau = 36 * 3 / 16, shrunk as documented."""
    Z = np.array([-1, 1] * 3 + [5, 7], float)[:, None]
    member = np.arange(8) >= 6
    tau = 36 * 3 / 16
    found = fisher(Z, member)
    np.testing.assert_allclose(found.tau, tau / (1 + SHRINKAGE * (1 + tau)))
    np.testing.assert_allclose(found.d2, found.tau / (3 / 16))


@given(seed=st.integers(0, 10_000), d=st.integers(1, 6))
def test_invertible_affine_maps_change_nothing(seed, d):
    Z, member = planted(seed, d=d)
    rng = np.random.default_rng(seed + 1)
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = axes * 10 ** rng.uniform(-2, 2, d)
    np.testing.assert_allclose(fisher(Z @ A + rng.uniform(-9, 9, d), member).tau, fisher(Z, member).tau, rtol=1e-5)


def test_a_split_without_scatter_scores_highest_and_stays_finite():
    """A disconnected artifact: constant rows on either side."""
    member = np.arange(50) < 3
    constant = np.where(member[:, None], [1.0, 0, 0.1], [0, 1.0, 0.1])
    np.testing.assert_allclose(fisher(constant, member).tau, 1 / SHRINKAGE)
    assert fisher(constant, member).tau > fisher(*planted(0, distance=5.0)).tau


def test_an_embedding_that_does_not_vary_separates_nothing():
    assert fisher(np.full((30, 2), 0.1), np.arange(30) < 9).tau == 0


def test_redundant_columns_change_nothing():
    Z, member = planted(3)
    doubled = np.column_stack((Z, Z @ np.ones((5, 2)), np.full(200, 1 / 3)))
    np.testing.assert_allclose(fisher(doubled, member).tau, fisher(Z, member).tau, rtol=1e-7)


def test_whitened_has_unit_total_scatter():
    W = whiten(planted(4)[0])
    np.testing.assert_allclose(np.cov(W.T, bias=True), np.eye(5), atol=1e-10)
    np.testing.assert_allclose(W.mean(0), 0, atol=1e-12)


def test_many_equal_one_by_one():
    Z, _ = planted(5)
    members = np.random.default_rng(6).random((30, 200)) < np.linspace(0.05, 0.9, 30)[:, None]
    many = fisher_many(Z, members)
    for at, member in enumerate(members):
        _, S_w, S_t = scatters(Z, member)
        d = Z[member].mean(0) - Z[~member].mean(0)
        p = member.mean()
        tau = p * (1 - p) * d @ np.linalg.solve(S_w + SHRINKAGE * S_t, d)
        np.testing.assert_allclose([many.tau[at], many.share[at]], [tau, p], rtol=1e-8)


def test_refuses_splits_and_shapes_without_meaning():
    Z, member = planted(7)
    for wrong in (np.zeros(200, bool), np.ones(200, bool)):
        with pytest.raises(UsageError, match="without a rest"):
            fisher(Z, wrong)
    with pytest.raises(InputError, match="do not fit"):
        fisher(Z, member[:-1])
    Z[17, 2] = np.nan
    with pytest.raises(InputError, match="row 17"):
        fisher(Z, member)
