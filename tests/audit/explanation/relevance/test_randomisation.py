"""Redrawn weights. Laws: a map of the input alone cannot change, one of random signs has no correlation."""

import pytest
import torch
from torch import nn

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.randomisation import correlate_with_redrawn, redraw_weights
from klarsicht.ground.seeding import generator

TARGETS = torch.tensor([0, 2, 1])


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.rand(3, 3, 8, 8)


def test_redrawn_weights_are_the_same_numbers_in_another_order():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    before = [weight.clone() for weight in network.parameters()]
    drawn = redraw_weights(network, generator(0, "test"))
    for old, weight, new in zip(before, network.parameters(), drawn.parameters(), strict=True):
        assert torch.equal(old, weight)
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(before[0], next(drawn.parameters()))


def test_maps_of_a_network_that_has_one_weight_do_not_change(x):
    """Every weight is the same number, so no permutation does anything: 1."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    for weight in network.parameters():
        nn.init.constant_(weight, 0.1)
    assert correlate_with_redrawn(load_model(network), x, TARGETS, "EpsilonPlusFlat") == pytest.approx(1)


def test_maps_of_gradients_of_a_linear_network_lose_their_signs(x):
    """x w of redrawn weights: the signs of w are those of other pixels, so ranks are unrelated."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    found = correlate_with_redrawn(load_model(network), x, TARGETS, "GradientTimesInput")
    assert abs(found) < 0.2
