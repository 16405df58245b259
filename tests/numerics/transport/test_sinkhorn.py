"""Sinkhorn divergence against POT, its two limits, and its laws."""

import numpy as np
import ot
import pytest
import torch

from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.transport.sinkhorn import sinkhorn_divergence
from klarsicht.numerics.transport.wasserstein import squared_wasserstein


def clouds(n, P, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, P, 2)))


def shares(n, P, seed):
    w = np.random.default_rng(seed).random((n, P)) + 0.1
    return torch.from_numpy(w / w.sum(1, keepdims=True))


def by_pot(x, y, a, b, e):
    """The same regularised costs, each term in POT's log domain; entropy counted against the product of weights."""

    def of(p, q, v, w):
        C = ot.dist(p, q)
        plan = ot.sinkhorn(v, w, C, e, method="sinkhorn_log", numItermax=2000, stopThr=1e-9)  # to 1e-6 of the limit
        return (plan * C).sum() + e * (plan * np.log(plan / np.outer(v, w))).sum()

    return of(x, y, a, b) - of(x, x, a, a) / 2 - of(y, y, b, b) / 2


@pytest.mark.parametrize("blur", [0.5, 1.5])
def test_equals_pot(blur):
    x, y, a, b = clouds(3, 12), clouds(3, 9, 1) + 0.5, shares(3, 12, 2), shares(3, 9, 3)
    expected = [by_pot(*(r.numpy() for r in rows), blur**2) for rows in zip(x, y, a, b, strict=True)]
    np.testing.assert_allclose(sinkhorn_divergence(x, y, a, b, blur=blur), expected, rtol=1e-3, atol=1e-5)


def test_small_blur_is_w2_and_large_blur_the_difference_of_means():
    x, y = clouds(4, 16), clouds(4, 16, 1) * 1.5 + 1
    np.testing.assert_allclose(
        sinkhorn_divergence(x, y, blur=0.1), squared_wasserstein(x.numpy(), y.numpy()), rtol=0.005
    )
    means = (x.mean(1) - y.mean(1)).square().sum(1)
    np.testing.assert_allclose(sinkhorn_divergence(x, y, blur=60), means, rtol=0.01)


def test_laws():
    x, y = clouds(5, 20), clouds(5, 20, 1)
    np.testing.assert_allclose(sinkhorn_divergence(x, x, blur=0.3), np.zeros(5), atol=1e-3 * 0.3**2)
    np.testing.assert_allclose(
        sinkhorn_divergence(x, y, blur=0.3), sinkhorn_divergence(y, x, blur=0.3), rtol=1e-3, atol=1e-5
    )
    assert (sinkhorn_divergence(x, y, blur=0.3) > 0).all()
    apart = sinkhorn_divergence(x, x + torch.tensor([3.0, 4.0]).double(), blur=0.3)
    np.testing.assert_allclose(apart, [25] * 5, rtol=1e-4)


def test_points_of_no_weight_do_not_count():
    x, y = clouds(1, 6), clouds(1, 6, 1)
    padded = torch.cat((x, 100 + x), 1)
    a = torch.cat((torch.full((1, 6), 1 / 6), torch.zeros(1, 6)), 1).double()
    np.testing.assert_allclose(
        sinkhorn_divergence(padded, y, a, blur=0.5), sinkhorn_divergence(x, y, blur=0.5), rtol=1e-3
    )


def test_a_gradient_flows_and_falls():
    x, y = clouds(1, 8).requires_grad_(), clouds(1, 8, 1) + 2
    before = sinkhorn_divergence(x, y, blur=0.5).sum()
    (slope,) = torch.autograd.grad(before, x)
    assert sinkhorn_divergence(x.detach() - 0.5 * slope, y, blur=0.5).sum() < before


@pytest.mark.parametrize("blur", [0, -1, float("nan")])
def test_refuses_blur(blur):
    with pytest.raises(UsageError, match="positive"):
        sinkhorn_divergence(clouds(1, 3), clouds(1, 3), blur=blur)


@pytest.mark.parametrize("a", [torch.ones(1, 3), torch.ones(1, 4) / 4, torch.tensor([[1.5, -0.5, 0.0]])])
def test_refuses_weights(a):
    with pytest.raises(InputError, match="weights"):
        sinkhorn_divergence(clouds(1, 3), clouds(1, 3), a.double(), blur=1)
