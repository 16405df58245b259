"""Features and logits without relevance: the network's own, and it is given back."""

import pytest
import torch
from torchvision.models import resnet18

from klarsicht.audit.explanation.models import classifier
from klarsicht.audit.explanation.models.forward import centre_targets, open_observer
from klarsicht.numerics.statistics.logits import centred_logit


def test_features_times_head_weights_are_the_logits():
    torch.manual_seed(0)
    net = resnet18().eval()
    x = torch.randn(3, 3, 64, 64)
    with open_observer(classifier.load_model(net)) as observe:
        seen = observe(x)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(seen.logits), net(x))
        torch.testing.assert_close(net.fc(torch.from_numpy(seen.features)), net(x))
    assert seen.prediction.tolist() == net(x).argmax(1).tolist()
    assert not any(m._forward_hooks for m in net.modules())


def test_feature_maps_of_a_convolutional_head_are_summed_over_space():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    x = torch.randn(2, 3, 5, 5)
    with open_observer(classifier.load_model(net)) as observe:
        seen = observe(x)
    torch.testing.assert_close(torch.from_numpy(seen.features), net[0](x).sum((2, 3)).detach())


def test_centred_targets_are_those_of_arrays_and_have_the_slope_of_one_less_the_mean():
    torch.manual_seed(0)
    y, targets = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 4, 2, 2, 1, 3])
    centred = centre_targets(y, targets)
    for i, target in enumerate(targets.tolist()):
        assert centred[i].item() == pytest.approx(centred_logit(y.detach().numpy(), target)[i])  # sums in another order
    (slope,) = torch.autograd.grad(centred.sum(), y)
    torch.testing.assert_close(slope, torch.nn.functional.one_hot(targets, 5) - torch.full((6, 5), 0.2).double())
