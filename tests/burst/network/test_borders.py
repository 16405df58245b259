"""Kernels at the border: literal sums of every kernel, NumPy's reflection, and the laws that a flat picture stays flat
and that its outermost pixels are as clean as the rest."""

import numpy as np
import pytest
import torch

from klarsicht import burst
from klarsicht.burst.merging.kernel_maps import expand_kernels, interpolate_taps
from klarsicht.burst.network.borders import LARGEST, border_factors, predict_kernels, reflect_indices
from klarsicht.burst.network.heads import Kernels
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

RNG = np.random.default_rng(0)


def kernels(spec, size, valid=(1, 1, 0)):
    taps = RNG.random((1, len(valid) * spec.taps, *map(spec.coarse, size)), np.float32)
    frames = RNG.random((1, len(valid), 2, *size), np.float32)
    return Kernels(torch.from_numpy(taps), torch.from_numpy(frames), spec, torch.tensor([valid], dtype=torch.float32))


@pytest.mark.parametrize("size", [(24, 33), (7, 40), (3, 5)])
@pytest.mark.parametrize("spec", [KernelSpec((1, 5)), KernelSpec((3,), separable=False, upscale=1), KernelSpec((1,))])
def test_the_factor_is_all_weights_over_those_inside(spec, size):
    """Written out: each pixel's kernels of the valid frames, and which of their entries lie in the picture."""
    given = kernels(spec, size)
    found, R = border_factors(given)[0].numpy(), spec.radius
    for y in range(size[0]):
        for x in range(size[1]):
            taps = interpolate_taps(given.taps[0], torch.tensor([y]), torch.tensor([x]), spec.upscale)
            weights = expand_kernels(taps.reshape(1, 3, spec.taps), spec).sum(1)[0, :2].sum(0).numpy()
            rows, columns = np.arange(y - R, y + R + 1), np.arange(x - R, x + R + 1)
            inside = np.outer((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))
            wanted = np.clip(weights.sum() / weights[inside].sum(), 1 / LARGEST, LARGEST)
            assert found[y, x] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["swift", "swift-raw"])
def test_the_border_of_a_flat_scene_is_as_bright_as_the_rest(name):
    level = NoiseLevel(0.02, 0.01)
    network = burst.load_network(name)
    scene = np.full((4, 4 if name == "swift-raw" else 1, 64, 64), 0.3, np.float32)
    noisy = scene + RNG.standard_normal(scene.shape).astype(np.float32) * np.sqrt(level.variance(scene))
    picture = burst.denoise_burst(network, burst.Burst(noisy.astype(np.float32), level))
    edges = [picture[:, 0], picture[:, -1], picture[..., 0], picture[..., -1]]
    assert [float(edge.mean()) for edge in edges] == pytest.approx([0.3] * 4, rel=0.05)


@pytest.mark.parametrize("length", [1, 2, 5, 40])
def test_values_are_mirrored_as_numpy_does(length):
    values = np.arange(length)
    wanted = np.pad(values, (7, 9), mode="reflect") if length > 1 else np.zeros(17, int)
    np.testing.assert_array_equal(values[reflect_indices(length, 7, 9)], wanted)


@pytest.mark.parametrize(("name", "channels"), [("swift", 3), ("swift-raw", 4)])
def test_the_outermost_pixels_are_as_clean_as_the_rest(name, channels):
    level, network = NoiseLevel(0.02, 0.01), burst.load_network(name)
    scene = np.full((4, channels, 160, 160), 0.3, np.float32)
    errors = []
    for seed in range(3):
        noise = np.random.default_rng(seed).standard_normal(scene.shape).astype(np.float32)
        noisy = scene + noise * np.sqrt(level.variance(scene))
        errors.append(burst.denoise_burst(network, burst.Burst(noisy.astype(np.float32), level)) - 0.3)
    deviation = np.sqrt(np.square(errors).mean((0, 1)))
    ring = np.ones((160, 160), bool)
    ring[4:-4, 4:-4] = False
    inner = deviation[48:-48, 48:-48]
    assert np.sqrt(np.square(deviation[ring]).mean()) < 1.6 * np.sqrt(np.square(inner).mean())


def test_a_part_has_the_kernels_of_the_whole():
    network = burst.load_network("swift")
    frames = torch.from_numpy(RNG.random((1, 2, 1, 480, 416), np.float32))
    levels = torch.tensor([0.02]), torch.tensor([0.01])
    whole = predict_kernels(network, frames, *levels).taps
    for part in [(slice(0, 32), slice(384, 416)), (slice(224, 256), slice(208, 240)), (slice(448, 480), slice(0, 32))]:
        taps = predict_kernels(network, frames, *levels, part=part).taps
        at = tuple(slice(s.start // 2, s.stop // 2) for s in part)
        torch.testing.assert_close(taps, whole[..., *at], atol=2e-5, rtol=1e-3)
