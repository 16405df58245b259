"""Projections on lines, against closed forms and finer sums."""

import numpy as np
import pytest
import torch

from klarsicht.numerics.transport.sliced import average_quantiles, directions


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


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
