"""Noise clipped at black and at white: moments by numerical integration, and means that are found again."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from klarsicht.burst.noise.clipped_noise import clipped_moments, distance_from_limit, unclip


@pytest.mark.parametrize("u", [np.inf, 0.5, 3.0])
@pytest.mark.parametrize("t", [-1.0, 0.0, 0.3, 2.5, 6.0])
def test_moments_are_those_of_the_clipped_density(t, u):
    ends = np.clip([t - 12, t + 12], 0, u)
    first, second = (quad(lambda y, k=k: y**k * norm.pdf(y - t), *ends)[0] for k in (1, 2))
    above = norm.sf(u - t)
    if above:
        first, second = first + u * above, second + u**2 * above
    mean, g = clipped_moments(np.array([t]), u)
    assert mean[0] == pytest.approx(first, rel=1e-6)
    assert g[0] == pytest.approx(second - first**2, rel=1e-6, abs=1e-9)


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


def test_what_was_cut_off_at_white_is_found_again():
    """From simulated pixels, of noise so strong that the darkest are cut off at both ends."""
    rng, light = np.random.default_rng(1), np.array([0.05, 0.3, 0.7, 0.95, 1.1])

    def variance(m):
        return 0.2**2 + 0.05 * m

    pixels = np.clip(light + np.sqrt(variance(light)) * rng.standard_normal((400_000, 5)), 0, 1)
    found = unclip(pixels.mean(0), variance, white=1.0)
    np.testing.assert_allclose(found.mean, light, atol=2e-3)
    np.testing.assert_allclose(pixels.var(0) / found.variance_left, variance(light), rtol=0.02)


@pytest.mark.parametrize("s", [0.01, 0.3])
def test_the_distance_from_a_limit_is_that_of_the_light(s):
    """Without being told of the noise; far away it is mean over deviation, and samples of two kinds are near."""
    rng, t = np.random.default_rng(2), np.array([-1.0, 0.0, 1.0, 2.0, 5.0, 20.0])
    beyond = np.maximum(s * (t + rng.standard_normal((100_000, 6))), 0)
    found = distance_from_limit(beyond.mean(0), beyond.var(0))
    np.testing.assert_allclose(found, np.minimum(t, 12), atol=0.05)
    few = np.where(rng.random(100_000) < 0.1, s, 0)
    assert distance_from_limit(few.mean(keepdims=True), few.var(keepdims=True))[0] < -0.5
