"""Transport on the line and by lines, against scipy, POT, closed forms and finer sums."""

import numpy as np
import ot
import pytest
import torch
from scipy.stats import wasserstein_distance

from klarsicht.numerics.transport.sliced import average_quantiles, directions, sliced_wasserstein, wasserstein_1d
from klarsicht.numerics.transport.wasserstein import squared_wasserstein


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def weights(*shape, seed=1):
    w = np.random.default_rng(seed).random(shape)
    return torch.from_numpy(w / w.sum(-1, keepdims=True))


@pytest.mark.parametrize(("P", "Q"), [(1, 1), (5, 5), (7, 4), (3, 50)])
def test_first_order_equals_scipy(P, Q):
    x, y, a, b = normal(6, P), normal(6, Q, seed=2), weights(6, P), weights(6, Q, seed=3)
    expected = [wasserstein_distance(*rows) for rows in zip(x, y, a, b, strict=True)]
    np.testing.assert_allclose(wasserstein_1d(x, y, a, b, p=1), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_any_order_equals_pot(p):
    x, y, a, b = normal(4, 9), normal(4, 6, seed=2), weights(4, 9), weights(4, 6, seed=3)
    expected = [ot.wasserstein_1d(*(r.numpy() for r in rows), p=p) for rows in zip(x, y, a, b, strict=True)]
    np.testing.assert_allclose(wasserstein_1d(x, y, a, b, p=p), expected, rtol=1e-9)


def test_equal_weights_are_sorted_differences():
    x, y = normal(5, 8), normal(5, 8, seed=2)
    expected = (np.sort(x) - np.sort(y)) ** 2
    np.testing.assert_allclose(wasserstein_1d(x, y), expected.mean(1), rtol=1e-12)


def test_weights_of_zero_do_not_count():
    x = torch.tensor([[0.0, 5.0, 1.0]])
    a = torch.tensor([[0.5, 0.0, 0.5]])
    assert wasserstein_1d(x, torch.tensor([[0.0, 1.0]]), a).item() == 0


def test_sliced_of_a_translation_is_its_length():
    x, move = normal(3, 20, 2), torch.tensor([3.0, -4.0], dtype=torch.float64)
    np.testing.assert_allclose(sliced_wasserstein(x, x + move), [25] * 3, rtol=1e-12)


def test_sliced_is_below_the_exact_distance_and_is_the_mean_of_lines():
    x, y = normal(10, 30, 2), normal(10, 30, 2, seed=2) * torch.tensor([2.0, 0.5])
    found = sliced_wasserstein(x, y, angles=64)
    assert (found.numpy() <= squared_wasserstein(x.numpy(), y.numpy()) * (1 + 1e-9)).all()
    angles = np.arange(64) * np.pi / 64
    by_lines = [
        2 * wasserstein_1d(x @ torch.tensor(u), y @ torch.tensor(u))
        for u in np.stack([np.cos(angles), np.sin(angles)], 1)
    ]
    np.testing.assert_allclose(found, torch.stack(by_lines).mean(0), rtol=1e-12)


def test_sliced_of_centred_gaussians_is_the_difference_of_their_sizes():
    """N(0, r^2 I) and N(0, s^2 I): every line shows (r - s)^2, twice that in the plane."""
    grid = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(64) + 0.5) / 64)
    x = torch.cartesian_prod(grid, grid).double()
    assert sliced_wasserstein(x, 3 * x).item() == pytest.approx(8, rel=0.03)


def test_float32_is_as_near_to_float64_as_stated():
    x, y = normal(50, 64, 2), normal(50, 64, 2, seed=2)
    size = max(x.abs().max(), y.abs().max()).item()
    gap = (sliced_wasserstein(x.float(), y.float()).double() - sliced_wasserstein(x, y)).abs().max().item()
    assert gap <= 1e-6 * size**2


def test_directions_are_unit_vectors_whose_squares_add_up_to_the_identity():
    u = directions(7, torch.empty(0, dtype=torch.float64))
    np.testing.assert_allclose(u.norm(dim=1), np.ones(7))
    np.testing.assert_allclose(u.T @ u, 3.5 * np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("P", "Q"), [(64, 16), (10, 4), (5, 5), (3, 7)])
def test_averaged_is_the_integral_of_the_step_function(P, Q):
    places = normal(2, P).sort(-1).values
    fine = np.lcm(P, Q)
    steps = places.repeat_interleave(int(fine) // P, dim=-1)
    np.testing.assert_allclose(
        average_quantiles(places, Q), steps.unflatten(-1, (Q, -1)).mean(-1), rtol=1e-5, atol=1e-7
    )
