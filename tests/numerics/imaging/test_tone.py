"""Curves against the constants printed in the papers, numpy against torch, inverses, integration."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from klarsicht.numerics.imaging import tone

GRID = np.linspace(-0.5, 3, 3501)
CURVES = [tone.tone_curve, tone.inverse_tone_curve]


def literal_curve(x, b=0.0031308, a=0.0557170, k0=12.71171, slope=0.439882):
    """KPN's curve, branch by branch, with the constants as printed."""
    if x < b:
        return k0 * x
    return (1 + a) * x ** (1 / 2.4) - a if x <= 1 else 1 + slope * (x - 1)


def test_curve_is_the_papers_branches():
    np.testing.assert_allclose(tone.tone_curve(GRID), [literal_curve(x) for x in GRID], atol=3e-6)


def test_constants_are_the_printed_ones():
    assert pytest.approx(0.0557170, abs=5e-8) == tone.OFFSET
    assert pytest.approx(12.71171, abs=5e-6) == tone.SLOPE_BELOW
    assert pytest.approx(0.439882, abs=5e-7) == tone.SLOPE_ABOVE


@pytest.mark.parametrize("curve", CURVES)
def test_torch_gives_what_numpy_gives(curve):
    ours = curve(torch.from_numpy(GRID))
    assert isinstance(ours, torch.Tensor)
    np.testing.assert_allclose(ours.numpy(), curve(GRID), rtol=1e-12, atol=1e-14)
    assert curve(GRID.astype(np.float32)).dtype == np.float32


@given(st.floats(-5, 5))
def test_tone_curve_and_its_inverse(x):
    assert tone.inverse_tone_curve(tone.tone_curve(np.float64(x))) == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("x", [-0.2, 0.001, 0.0031308, 0.2, 1.0, 1.7])
def test_slope_of_the_curve_is_continuous(x):
    """Autograd against central differences, at the joints too."""
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(tone.tone_curve(at), at)
    numeric = (literal_curve(x + 1e-5) - literal_curve(x - 1e-5)) / 2e-5
    assert slope.item() == pytest.approx(numeric, rel=3e-3)


@pytest.mark.parametrize(("shot", "read"), [(0.01, 0.0063), (0.0331, 0.0851)])
def test_stabilised_deviation_is_one(shot, read):
    z = np.random.default_rng(0).standard_normal(200_000)
    for x in (0.1, 0.3, 1.0):
        noisy = x + np.sqrt(read**2 + shot * x) * z
        assert tone.stabilise(noisy, read, shot).std() == pytest.approx(1, abs=0.05)


def mean_of_stabilised(electrons, read):
    """E f(x) by summing over Poisson counts and integrating over Gaussian read noise."""
    z, w = np.polynomial.hermite_e.hermegauss(100)
    counts = np.arange(400)
    f = 2 * np.sqrt(np.maximum(counts[:, None] + read * z + 3 / 8 + read**2, 0)) @ (w / w.sum())
    return poisson.pmf(counts, electrons) @ f


@pytest.mark.parametrize(("read", "worst"), [(0.0, 0.06), (0.5, 0.06), (1.0, 0.06), (2.4, 0.04), (4.0, 0.04)])
def test_inverse_is_unbiased_to_the_stated_error(read, worst):
    shot = 0.02
    for electrons in (0.0, 0.3, 1.0, 3.0, 10.0, 40.0, 100.0):
        D = np.float64(mean_of_stabilised(electrons, read))
        light = tone.unstabilise(D, read * shot, shot)
        assert light / shot == pytest.approx(electrons, abs=worst)


def test_algebraic_inverse_is_the_worse_one():
    """The bias which the unbiased inverse is there for: a quarter of an electron."""
    D = mean_of_stabilised(20.0, 0.0)
    assert pytest.approx(20 - 0.25, abs=0.03) == D**2 / 4 - 3 / 8
    assert abs(20 - tone.unstabilise(np.float64(D), 0.0, 1.0)) < 0.03


def test_gradients_are_finite_off_black():
    x = torch.tensor([-1.0, 1e-6, 0.5, 2.0], requires_grad=True)
    for curve in CURVES:
        (slope,) = torch.autograd.grad(curve(x).sum(), x)
        assert all(map(math.isfinite, slope.tolist()))
