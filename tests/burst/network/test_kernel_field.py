"""KernelField: its kernels are the weights, its parts add up, its energies are sums of squares."""

import numpy as np
import pytest
import torch

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.network.kernel_field import KernelField
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

SIZE = (7, 10)
SPECS = [KernelSpec((1, 3, 5)), KernelSpec((1, 3, 5), averaged=False), KernelSpec((3, 5), separable=False, upscale=1)]


def field(spec: KernelSpec, frames: int = 3) -> KernelField:
    shape = frames * spec.taps, *(spec.coarse(side) for side in SIZE)
    taps = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return KernelField(taps, spec, SIZE)


def burst(frames: int = 3, valid: int = 3) -> Burst:
    X = np.random.default_rng(1).normal(size=(frames, 2, *SIZE)).astype(np.float32)
    return Burst(X, NoiseLevel(0.01, 0.01), np.arange(frames) < valid)


@pytest.mark.parametrize("spec", SPECS)
def test_kernel_times_pixels_is_the_output(spec):
    """Sum of weight times pixel equals the filtered value, at corners and inside."""
    K, B = field(spec), burst()
    R = spec.radius
    around = np.pad(B.frames, ((0, 0), (0, 0), (R, R), (R, R)))
    for y, x in ((0, 0), (3, 4), (6, 9)):
        window = around[:, :, y : y + 2 * R + 1, x : x + 2 * R + 1]
        value = np.einsum("nij,ncij->nc", K.kernel_at(y, x).numpy(), window)
        np.testing.assert_allclose(K.apply(B).per_frame[:, :, y, x], value, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_sizes_apart_add_up(spec):
    K, B = field(spec), burst()
    apart = [f.merged for f in K.apply_each_size(B).values()]
    torch.testing.assert_close(sum(apart) * spec.gain, K.apply(B).merged, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_energy_is_the_mean_square_of_the_kernels(spec):
    """Size by size, from the kernels of every pixel."""
    K = field(spec)
    pixels = list(np.ndindex(SIZE))
    for s, side in enumerate(spec.sizes):
        one = K.select_size(side)
        squares = sum(one.kernel_at(y, x).square().sum((1, 2)) for y, x in pixels) / len(pixels)
        torch.testing.assert_close(K.energy()[:, s], squares * spec.gain**2, rtol=1e-12, atol=0)


def test_energy_by_bands(monkeypatch):
    K = field(SPECS[0])
    whole = K.energy()
    monkeypatch.setattr(reference, "BUDGET", 1)
    torch.testing.assert_close(K.energy(), whole, rtol=1e-12, atol=0)


def test_invalid_frames_do_not_count():
    K, B = field(SPECS[0]), burst(valid=2)
    each, merged = K.apply(B)
    torch.testing.assert_close(merged, each[:2].mean(0))


def test_what_does_not_fit_is_refused():
    K = field(SPECS[0])
    with pytest.raises(UsageError, match="pixel"):
        K.kernel_at(7, 0)
    with pytest.raises(UsageError, match="kernel size"):
        K.select_size(7)
    with pytest.raises(UsageError, match="needs"):
        KernelField(K.taps, K.spec, (20, 20))
