"""Weights with channels last give the same logits, and are given back."""

import pytest
import torch
from torch import nn

from klarsicht.audit.explanation.networks.eval_mode import as_channels_last, channels_last


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(512, 5)
    ).eval()


def test_logits_are_those_in_double_precision():
    """Oracle: the same network in float64."""
    net, x = network(), torch.rand(4, 3, 12, 12)
    with torch.no_grad():
        exact = network().double()(x.double())
        with channels_last(net):
            assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
            found = net(as_channels_last(x))
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_same_weights_are_put_back_after_an_error():
    net = network()
    places = {name: (weight.data_ptr(), weight.stride()) for name, weight in net.state_dict().items()}
    with pytest.raises(RuntimeError), channels_last(net):
        raise RuntimeError
    assert places == {name: (weight.data_ptr(), weight.stride()) for name, weight in net.state_dict().items()}
