"""Factors at the border: literal sums of every kernel, and the law that a flat picture stays flat."""

import numpy as np
import pytest
import torch

from klarsicht import burst
from klarsicht.burst.merging.kernel_maps import expand_kernels, interpolate_taps
from klarsicht.burst.network.borders import LARGEST, border_factors
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
