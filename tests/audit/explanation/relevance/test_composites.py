"""Composites against zennit's own, and what has no rule."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import Bottleneck, ResNet
from zennit import composites as zennit
from zennit import rules as zennit_rules
from zennit.attribution import Gradient
from zennit.layer import Sum
from zennit.torchvision import ResNetCanonizer

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance import rules
from klarsicht.audit.explanation.relevance.composites import composite
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import UnsupportedLayer, UsageError

PEERS = {
    "EpsilonPlusFlat": zennit.EpsilonPlusFlat,
    "EpsilonGammaBox": lambda **more: zennit.EpsilonGammaBox(low=0.0, high=1.0, **more),
    "EpsilonAlpha2Beta1": zennit.EpsilonAlpha2Beta1,
}


@pytest.fixture(autouse=True)
def same_weights():
    torch.manual_seed(5)


def lived(network):
    """Batch norms as after training; eps zero, since zennit's merge forgets it and scales by 1 / sqrt(1 + eps)."""
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 0.0
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.1)
    return network.eval()


def plain():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AvgPool2d(4)),
        *(nn.Flatten(), nn.Linear(128, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 5)),
    )


def bottlenecks():
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5)


@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize("build", [plain, lambda: resnet18(num_classes=5), bottlenecks])
def test_maps_agree_with_zennit(build, method):
    network, x, target = lived(build()), torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    with Gradient(network, PEERS[method](canonizers=[ResNetCanonizer()])) as attribute:
        _, want = attribute(x, torch.eye(5)[target])
    got = explain(load_model(network), x, target, method=method, map_side=32).maps
    assert abs(got - want.sum(1).numpy()).max() < 1e-5 * want.sum(1).abs().max()


def blocks():
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            act=nn.ReLU(),
            stage=nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            pool=nn.AvgPool2d(8),
            flat=nn.Flatten(),
            hidden=nn.Linear(8, 16),
            act2=nn.ReLU(),
            head=nn.Linear(16, 5),
        )
    )


def test_rules_by_name_and_type_agree_with_zennit():
    """The name of a layer goes before that of the module that holds it, and both before a type."""
    network, x, target = blocks(), torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
    own = {
        "stage": rules.alpha_beta(2, 1),
        "stage.2": rules.gamma(0.5),
        nn.Linear: rules.epsilon_of(0.01),
        "head": rules.zplus,
    }
    theirs = zennit.NameMapComposite(
        [
            (["stem"], zennit_rules.Flat()),
            (["stage.0"], zennit_rules.AlphaBeta(2, 1)),
            (["stage.2"], zennit_rules.Gamma(0.5)),
            (["hidden"], zennit_rules.Epsilon(0.01)),
            (["head"], zennit_rules.ZPlus()),
            (["act", "act2", "stage.1", "stage.3"], zennit_rules.Pass()),
            (["pool"], zennit_rules.Norm()),
        ]
    )
    with Gradient(network, theirs) as attribute:
        _, want = attribute(x, torch.eye(5)[target])
    got = explain(load_model(network), x, target, method="EpsilonPlusFlat", rules=own).pixels
    assert abs(got - want.numpy()).max() < 1e-5 * want.abs().max()


def test_a_rule_of_the_first_layer_replaces_the_methods_and_no_other_layer_gets_that():
    network, x, target = blocks(), torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
    plain = explain(load_model(network), x, target, method="EpsilonAlpha2Beta1", rules={"stem": rules.flat}).pixels
    flat_first = explain(
        load_model(network), x, target, method="EpsilonPlusFlat", rules={"stage": rules.alpha_beta(2, 1)}
    ).pixels
    assert (plain == flat_first).all()


class PaddedConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


def test_a_convolution_with_a_forward_of_its_own_is_as_the_layers_it_calls():
    torch.manual_seed(1)
    own = PaddedConv(3, 4, 3)
    plain = nn.Conv2d(3, 4, 3)
    plain.load_state_dict(own.state_dict())
    rest = (nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    x, target = torch.randn(2, 3, 6, 6), torch.tensor([0, 1])
    networks = nn.Sequential(own, *rest), nn.Sequential(nn.ZeroPad2d(1), plain, *rest)
    one, two = (explain(load_model(network), x, target) for network in networks)
    assert (one.maps == two.maps).all()


def test_a_function_without_a_rule_is_refused_by_name():
    class Exponential(nn.Module):
        def forward(self, x):
            return x.exp()

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Exponential(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(UnsupportedLayer, match=r"1\.exp.*GradientTimesInput"):
        explain(load_model(network), torch.randn(1, 3, 8, 8), torch.tensor([0]))


class TwiceCalled(nn.Module):
    """The same convolution and the same pooling, called twice."""

    def __init__(self, shared):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = self.conv1 if shared else nn.Conv2d(4, 4, 3, padding=1)
        self.pool1 = nn.AvgPool2d(2)
        self.pool2 = self.pool1 if shared else nn.AvgPool2d(2)
        self.fc = nn.Linear(4 * 4, 3)

    def forward(self, x):
        return self.fc(self.pool2(self.conv2(self.pool1(self.conv1(x)).relu()).relu()).flatten(1))


def test_a_layer_called_twice_is_as_two_layers():
    shared, unrolled = TwiceCalled(True), TwiceCalled(False)
    for name in ("conv1", "conv2"):
        getattr(unrolled, name).load_state_dict(shared.conv1.state_dict())
    unrolled.fc.load_state_dict(shared.fc.state_dict())
    x, target = torch.randn(2, 4, 8, 8), torch.tensor([0, 2])
    method = "EpsilonAlpha2Beta1"  # no special first layer, so that both see the same rules
    to_tensor = (lambda picture: torch.zeros(4, 8, 8),)
    one, two = (explain(load_model((m, *to_tensor)), x, target, method=method) for m in (shared, unrolled))
    assert (one.maps == two.maps).all()


class NormDefinedElsewhere(nn.Module):
    """Norms defined in another order than they run in, of different widths."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm2 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(6)
        self.conv2, self.norm1 = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(4)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.norm1(self.conv1(x)))
        return self.fc(self.pool(self.relu(self.norm2(self.conv2(x)))).flatten(1))


def folded(conv, norm):
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, 3)
    plain.weight.data = conv.weight * scale[:, None, None, None]
    plain.bias.data = (conv.bias - norm.running_mean) * scale + norm.bias
    return plain


def test_norms_are_merged_in_the_order_of_execution():
    network = lived(NormDefinedElsewhere())
    plain = nn.Sequential(
        *(folded(network.conv1, network.norm1), nn.ReLU(), folded(network.conv2, network.norm2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.fc),
    )
    x, target = torch.randn(2, 3, 12, 12), torch.tensor([0, 2])
    got, want = (explain(load_model(m), x, target).maps for m in (network, plain))
    assert abs(got - want).max() < 1e-5 * abs(want).max()


class NormAndBypass(nn.Module):
    """A convolution whose output goes into a norm and around it: merging the norm would change the way around."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.sum = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Sum()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x):
        z = self.conv(x)
        return self.fc(self.pool(self.sum(torch.stack([z, self.norm(z)], -1)).relu()).flatten(1))


def test_a_norm_beside_a_bypass_is_not_merged():
    network, x = lived(NormAndBypass()), torch.randn(2, 3, 8, 8)
    found = explain(load_model(network), x, torch.tensor([0, 1]))
    assert abs(found.logits - network(x).detach().numpy()).max() < 1e-5
    assert abs(found.residual).max() < 1e-6


class OneConvolutionTwoNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 3)

    def forward(self, x):
        x = self.relu(self.norm1(self.conv(x)))
        return self.fc(self.pool(self.relu(self.norm2(self.conv(x)))).flatten(1))


def test_a_convolution_called_twice_is_merged_with_the_norm_of_each_call():
    network = lived(OneConvolutionTwoNorms())
    x = torch.randn(2, 3, 8, 8)
    found = explain(load_model(network), x, torch.tensor([0, 1]))
    assert abs(found.logits - network(x).detach().numpy()).max() < 1e-5
    assert abs(found.residual).max() < 1e-6


def test_an_unknown_composite_is_answered_with_near_names():
    with pytest.raises(UsageError, match="EpsilonPlusFlat"):
        composite("EpsilonPlus", ((0.0,), (1.0,)))


class TwoNormsInARow(nn.Module):
    """A norm of a norm: only the first belongs to the convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm1, self.norm2 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x):
        z = self.norm1(self.conv(x))
        return self.fc(self.pool((z + self.norm2(z)).relu()).flatten(1))


def test_a_norm_of_a_merged_norm_is_computed():
    network, x = lived(TwoNormsInARow()), torch.randn(2, 3, 8, 8)
    found = explain(load_model(network), x, torch.tensor([0, 1]))
    assert abs(found.logits - network(x).detach().numpy()).max() < 1e-5
    assert abs(found.residual).max() < 1e-6
