"""Features of a layer under parts: closed forms and a slow loop; the layer halfway through known networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.hooks import middle_layer
from klarsicht.audit.explanation.relevance.explainer import Explainer
from klarsicht.audit.explanation.relevance.part_features import MAX_PARTS, appearance, parts_of
from klarsicht.ground.errors import UsageError


def looped(masses, activations, factor):
    """Position by position; `factor` cells of a map lie on one of the layer, along each side."""
    seen = np.zeros((*masses.shape[:2], activations.shape[1]))
    for b, p, y, x in np.ndindex(masses.shape):
        seen[b, p] += masses[b, p, y, x] * activations[b, :, y // factor, x // factor]
    return seen / np.linalg.norm(seen, axis=2, keepdims=True)


def test_appearance_is_the_mean_of_activations_weighted_by_mass():
    rng = np.random.default_rng(0)
    masses, activations = rng.random((2, 3, 8, 8)), rng.standard_normal((2, 5, 4, 4))
    np.testing.assert_allclose(appearance(masses, activations), looped(masses, activations, 2), rtol=1e-9)


def test_a_finer_layer_is_averaged_under_each_cell():
    rng = np.random.default_rng(1)
    masses, activations = rng.random((2, 3, 4, 4)), rng.standard_normal((2, 5, 12, 8))
    coarse = activations.reshape(2, 5, 4, 3, 4, 2).mean((3, 5))
    np.testing.assert_allclose(appearance(masses, activations), looped(masses, coarse, 1), rtol=1e-9)


def test_a_part_under_which_one_channel_is_active_sees_that_channel():
    masses, activations = np.zeros((1, 2, 4, 4)), np.zeros((1, 3, 4, 4))
    masses[0, 0, 1, 1], activations[0, 2, 1, 1], activations[0, 0, 3, 3] = 1e-20, 7, 9
    assert appearance(masses, activations).tolist() == [[[0, 0, 1], [0, 0, 0]]]


def test_what_is_stored_are_labels_and_one_direction_for_each_part():
    maps = np.zeros((2, 16, 16), np.float32)
    maps[0, 2:5, 2:5], maps[0, 10:13, 10:13], maps[1] = 2, 1, -1
    activations = np.zeros((2, 2, 16, 16), np.float32)
    activations[:, 0, :8], activations[:, 1, 8:] = 1, 3
    stored = parts_of(maps, activations)
    assert (stored["parts"].dtype, stored["appearance"].dtype) == (np.int8, np.float16)
    assert stored["parts"][0, 3, 3] == 1 and stored["parts"][0, 11, 11] == 2 and not stored["parts"][1].any()
    assert stored["appearance"].shape == (2, MAX_PARTS, 2)
    assert stored["appearance"][0, :3].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert not stored["appearance"][1].any()


def test_a_layer_without_positions_is_refused():
    with pytest.raises(UsageError, match="--parts-layer"):
        parts_of(np.ones((2, 8, 8), np.float32), np.ones((2, 5), np.float32))


def chain():
    """Sides 32, 16, 16, 8 before its convolutions."""
    pool = nn.MaxPool2d(2)
    return nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Conv2d(4, 6, 1), nn.Conv2d(6, 8, 1), pool, nn.Conv2d(8, 9, 1))


@pytest.mark.parametrize(
    ("network", "side", "name", "shape"),
    [
        (resnet18, 224, "layer3.0.downsample.0", (128, 28, 28)),  # what the second stage made
        (resnet18, 64, "layer3.0.downsample.0", (128, 8, 8)),
        (chain, 32, "3", (6, 16, 16)),
    ],
)
def test_the_middle_is_halfway_between_the_sides_of_picture_and_last_maps(network, side, name, shape):
    module, seen = network().eval(), []
    with torch.no_grad():
        assert middle_layer(module, lambda: module(torch.zeros(1, 3, side, side))) == name
        module.get_submodule(name).register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1:]))
        module(torch.zeros(1, 3, side, side))
    assert seen == [shape]


def test_a_network_of_one_resolution_is_seen_at_its_last_convolution_and_one_without_any_nowhere():
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(80, 2))
    assert middle_layer(flat, lambda: flat(torch.zeros(1, 3, 4, 4))) == "2"
    assert middle_layer(nn.Linear(3, 2), lambda: None) == ""
    assert not flat[0]._forward_hooks


def test_the_explainer_keeps_what_goes_into_the_middle_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(80, 2))
    x = torch.randn(2, 3, 4, 4)
    for method in ("EpsilonPlusFlat", "GradientTimesInput"):
        with Explainer(load_model(net), method, middle="2") as explain:
            found = explain(x, torch.tensor([0, 1]))
        np.testing.assert_allclose(found.middle, net[:2](x).detach(), rtol=1e-5)
