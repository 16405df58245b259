"""The books: closed forms, laws that hold for any network, and planted violations that must be refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from zennit.layer import Sum

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.composites import PROPAGATIONS
from klarsicht.audit.explanation.relevance.conservation import (
    LayerBalance,
    RelevanceBalance,
    check_conservation,
    conserves,
)
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import ModelError, NotConserving, UnsupportedLayer


class Residual(nn.Module):
    """conv - relu - conv, plus the input: by a layer, or by a bare addition."""

    def __init__(self, channels, named=True):
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.sum = Sum() if named else None

    def forward(self, x):
        y = self.conv2(self.relu(self.conv1(x)))
        return x + y if self.sum is None else self.sum(torch.stack([x, y], dim=-1))


class Wave(nn.Module):
    """A function that no rule covers."""

    def forward(self, x):
        return x.cos()


def vgg_like():
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)),
    )


def resnet_like(middle=None):
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()),
        *(middle or Residual(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )


@pytest.fixture(autouse=True)
def same_weights():
    torch.manual_seed(11)


def explained(network, method="EpsilonPlusFlat", dtype=torch.float32):
    x = torch.randn(4, 3, 12, 10, dtype=dtype)
    return explain(load_model(network.to(dtype)), x, torch.tensor([0, 1, 2, 3]), method=method)


@pytest.mark.parametrize("method", PROPAGATIONS)
@pytest.mark.parametrize("network", [vgg_like, resnet_like])
def test_every_loss_is_accounted_for(network, method):
    assert abs(explained(network(), method, torch.float64).residual).max() < 1e-12
    assert abs(explained(network(), method).residual).max() < 1e-6


def test_two_layers_with_biases_by_hand():
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 1.0]]))
        network[1].bias.copy_(torch.tensor([1.0, -1.0]))
        network[3].weight.copy_(torch.tensor([[2.0, 1.0]]))
        network[3].bias.fill_(4.0)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    found = explain(load_model(network), x, torch.tensor([0]), method="EpsilonAlpha2Beta1")
    # hidden (6, 4), logit 12 + 4 + 4 = 20: shares 12/20, 4/20, bias 4/20; then 1/6 + 3/4, 4/6 + 2/4, biases 1/6, -1/4
    above, below = (found.balance.layers[0], found.balance.layers[1])
    assert (above.name, below.name) == ("3", "1")
    assert float(above.bias) == pytest.approx(4 / 20, rel=1e-6)
    assert float(below.bias) == pytest.approx(12 / 20 * 1 / 6 - 4 / 20 * 1 / 4, rel=1e-6)
    assert found.total[0] == pytest.approx(12 / 20 * 5 / 6 + 4 / 20 * 5 / 4, rel=1e-6)
    assert found.absorbed[0] == pytest.approx(1 - found.total[0], rel=1e-6)


def test_relevance_of_padding_counts_as_absorbed():
    network = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 1, 2, bias=False), nn.Flatten(), nn.Linear(1, 1))
    nn.init.ones_(network[3].bias)
    found = explain(load_model(network), torch.ones(1, 1, 1, 1), torch.tensor([0]))
    pad = next(entry for entry in found.balance.layers if entry.name == "0")
    # the flat rule gives each of the four pixels under the kernel a quarter, and three of them are padding
    assert float(pad.bias) == pytest.approx(0.75 * float(pad.incoming), rel=1e-6)
    assert found.total[0] == pytest.approx(0.25 * float(pad.incoming), rel=1e-6)


@pytest.mark.parametrize("method", PROPAGATIONS)
def test_a_functional_addition_is_as_a_layer_of_additions(method):
    named, functional_sum = resnet_like(Residual(6)), resnet_like(Residual(6, named=False))
    functional_sum.load_state_dict(named.state_dict())
    torch.manual_seed(1)
    one = explained(named, method)
    torch.manual_seed(1)
    two = explained(functional_sum, method)
    assert (one.maps == two.maps).all()


def test_a_hidden_nonlinearity_is_refused_and_named():
    network = vgg_like()
    network[4] = Wave()
    with pytest.raises(UnsupportedLayer, match=r"4\.cos"):
        explained(network)


def test_a_custom_autograd_function_is_refused_and_located():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x**2

        @staticmethod
        def backward(ctx, R):
            return 2 * R

    network = vgg_like()
    network[4].forward = Hidden.apply
    with pytest.raises(NotConserving, match=r"between 3 and .*functional .*Hidden"):
        explained(network)


def test_functional_activations_that_conserve_are_let_through():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            x = functional.max_pool2d(functional.relu(self.conv1(x), inplace=True), 2)
            return self.fc(functional.relu(self.conv2(x)).amax((2, 3)))

    assert abs(explained(Functional()).residual).max() < 1e-6


def test_logits_that_are_no_numbers_are_refused():
    classifier = load_model(vgg_like())
    nn.init.constant_(classifier.module[3].bias, float("inf"))  # loading refuses such weights by their name
    with pytest.raises(ModelError, match="not numbers"):
        explain(classifier, torch.randn(4, 3, 12, 10), torch.tensor([0, 1, 2, 3]))


def test_relevance_that_is_no_number_is_refused():
    one = torch.ones(2, dtype=torch.float64)
    x = torch.zeros(2, 1, requires_grad=True)
    with pytest.raises(NotConserving):
        check_conservation(RelevanceBalance(one, torch.nan * one, ()), (x * 1).grad_fn)


def test_a_layer_that_hands_down_the_wrong_sum_is_named():
    one = torch.ones(2, dtype=torch.float64)
    entry = LayerBalance("block.conv", one, 0.9 * one, 0 * one, 0 * one, 0 * one, one)
    x = torch.zeros(2, 1, requires_grad=True)
    with pytest.raises(NotConserving, match=r"within block\.conv"):
        check_conservation(RelevanceBalance(one, 0.9 * one, (entry,)), (x * 1).grad_fn)


def test_a_swallowed_map_is_right_but_not_useful():
    network = vgg_like()
    nn.init.constant_(network[3].bias, 1e4)
    found = explained(network)
    assert abs(found.residual).max() < 1e-6
    assert found.conserving is False
    assert max(found.balance.layers, key=lambda entry: float(entry.absorbed.median())).name == "3"


def test_the_share_absorbed_is_judged_in_the_median_and_in_either_sign():
    assert conserves(torch.tensor([0.1, 0.2, 5.0]))
    assert not conserves(torch.tensor([-3.0, -2.0, 0.1]))
