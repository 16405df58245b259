"""Noise clipped at black: moments by numerical integration, and means that are found again."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from klarsicht.burst.noise.clipped_noise import clipped_moments, unclip


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 6.0])
def test_moments_are_those_of_the_clipped_density(t):
    first, second = (quad(lambda y, k=k: y**k * norm.pdf(y - t), 0, t + 12)[0] for k in (1, 2))
    h, g = clipped_moments(np.array([t]))
    assert h[0] == pytest.approx(first, rel=1e-7)
    assert g[0] == pytest.approx(second - first**2, rel=1e-6)


def test_means_and_variances_are_found_again():
    """From simulated pixels, for noise that grows with the light; all zero is not possible."""
    rng, light = np.random.default_rng(0), np.array([0.0, 0.02, 0.05, 0.2, 0.8])

    def variance(m):
        return 0.05**2 + 0.01 * m

    pixels = np.maximum(light + np.sqrt(variance(light)) * rng.standard_normal((400_000, 5)), 0)
    found = unclip(np.append(pixels.mean(0), 0.0), variance)
    np.testing.assert_allclose(found.mean[:5], light, atol=4e-4)
    np.testing.assert_allclose(pixels.var(0) / found.variance_left[:5], variance(light), rtol=0.02)
    assert found.possible.tolist() == [True] * 5 + [False]


def test_the_slope_is_the_derivative():
    """By differences of the light that clipped means belong to, under noise that does not depend on it."""
    means = np.linspace(0.045, 0.3, 20)
    above, below = (unclip(np.append(means + d, 0.5), lambda m: np.full_like(m, 0.1**2)) for d in (1e-3, -1e-3))
    there = unclip(np.append(means, 0.5), lambda m: np.full_like(m, 0.1**2))
    np.testing.assert_allclose((above.mean - below.mean)[:-1] / 2e-3, there.slope[:-1], rtol=0.01)


def test_without_noise_nothing_changes():
    light = np.linspace(0, 1, 50)
    np.testing.assert_allclose(unclip(light, np.zeros_like).mean, light, atol=1e-5)
