"""Filters: the network's own forward pass, the mean by hand, and what linear weights must obey."""

import numpy as np
import pytest
import torch

from klarsicht.burst.merging.filters import MeanFilter, NetworkFilter, check_colour, mean_noise, split_groups
from klarsicht.burst.network.checkpoints import load_network, save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 1e-3)
pytestmark = pytest.mark.usefixtures("plain_kernels")


def network(colour, preset="swift"):
    return build_network(NetworkSettings(preset=preset, width=0.25, colour=colour, frames=4), seed=1).eval()


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).random((3, 4, 48, 64), np.float32)


@pytest.fixture(scope="module")
def agreement():
    return np.concatenate([np.ones((1, 48, 64), np.float32), np.random.default_rng(1).random((2, 48, 64), np.float32)])


@torch.no_grad()
def test_a_network_filters_as_its_forward_pass(frames, agreement):
    net = network("mosaic")
    read, shot = torch.full((1, 4), 0.01), torch.full((1, 4), 1e-3)
    margin = net.preset.stride
    wide, trust = (np.pad(x, [(0, 0)] * (x.ndim - 2) + [(margin, margin)] * 2, "reflect") for x in (frames, agreement))
    wanted = net(torch.from_numpy(wide)[None], read, shot, None, torch.from_numpy(trust)[None]).merged[0]
    wanted = wanted[..., margin:-margin, margin:-margin]
    weighing = NetworkFilter(net).compute_weights(frames, [LEVEL] * 4, agreement)
    R = net.preset.spec.radius
    inside = (..., slice(R, -R), slice(R, -R))  # at the border, the forward pass reads what is mirrored
    np.testing.assert_allclose(weighing(frames)[inside], wanted.numpy()[inside], atol=1e-6)


def test_weights_are_linear_and_stay(frames, agreement):
    weighing = NetworkFilter(network("mosaic")).compute_weights(frames, [LEVEL] * 4, agreement)
    other = np.random.default_rng(2).standard_normal(frames.shape).astype(np.float32)
    np.testing.assert_allclose(weighing(2 * frames + other), 2 * weighing(frames) + weighing(other), atol=2e-5)


def test_a_grey_network_treats_equal_channels_alike(agreement):
    net = NetworkFilter(network("grey"))
    grey = np.random.default_rng(3).random((3, 1, 48, 64), np.float32)
    colours = np.repeat(grey, 3, 1)
    noise = [NoiseLevel(0.01 * 3**0.5, 3e-3)] * 3  # whose mean has LEVEL
    assert mean_noise(noise).profile == pytest.approx(LEVEL.profile)
    alike = net.compute_weights(colours, noise, agreement)(colours)
    wanted = net.compute_weights(grey, [LEVEL], agreement)(grey)
    np.testing.assert_allclose(alike, np.repeat(wanted, 3, 0), atol=1e-5)


def test_the_mean_is_weighted_by_agreement(frames, agreement):
    wanted = np.zeros(frames.shape[1:])
    for y in range(48):
        for x in range(64):
            w = agreement[:, y, x]
            wanted[:, y, x] = (w[:, None] * frames[:, :, y, x]).sum(0) / w.sum()
    np.testing.assert_allclose(MeanFilter().compute_weights(frames, [LEVEL] * 4, agreement)(frames), wanted, rtol=1e-5)


@pytest.mark.parametrize(("count", "groups"), [(1, [[0]]), (4, [[0, 1, 2, 3]]), (6, [[0, 1, 3, 5], [0, 2, 4]])])
def test_more_frames_make_groups_around_the_reference(count, groups):
    assert split_groups(MeanFilter(frames=4), count) == groups


def test_networks_for_other_frames_are_refused(tmp_path):
    save_network(network("mosaic"), tmp_path / "n.safetensors", {})
    net = load_network(tmp_path / "n.safetensors")
    with pytest.raises(UsageError, match="mosaic frames cannot filter rgb"):
        check_colour(net, "rgb")
    check_colour(net, "mosaic")
    with pytest.raises(UsageError, match="predicts no kernels"):
        direct = NetworkFilter(network("grey", "direct"))
        direct.compute_weights(np.ones((1, 1, 32, 32), np.float32), [LEVEL], np.ones((1, 32, 32), np.float32))
