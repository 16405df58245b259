"""Relevance of positions of the last grid: by closed form, of linear heads, and of a convolution as head."""

import numpy as np
import pytest
import torch
from tests.audit.verdicts.content import leaning_network as made
from torch import nn
from torchvision.models import squeezenet1_0

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.verdicts.content.acting_regions import ActingRegions, LastGrid
from klarsicht.ground.errors import ModelError


def test_relevance_is_the_part_of_the_logit_of_each_tile():
    """Of a network with a linear head it is weight x feature / positions; the parts add up to the logit."""
    classifier = made.leaning()
    image = made.transform(made.draw(5, True))[None]
    grid = LastGrid.of(classifier)
    found = grid.find_regions(classifier, image, (1, 0))
    with torch.no_grad():
        features = classifier.module.relu(classifier.module.features(image))[0]
        logits = classifier.logits(image)[0]
    for target, regions in found.items():
        weight = classifier.module.head.weight[target].detach()
        truth = torch.einsum("chw,c->hw", features, weight) / features[0].numel()
        assert regions.relevance[0] == pytest.approx(truth.numpy(), abs=1e-5)
        assert regions.relevance.sum() == pytest.approx(float(logits[target]), abs=1e-4)


def test_content_is_the_mean_of_features_weighted_by_relevance():
    classifier = made.leaning()
    image = made.transform(made.draw(5, True))[None]
    regions = LastGrid.of(classifier).find_regions(classifier, image, (1,))[1]
    with torch.no_grad():
        a = classifier.module.relu(classifier.module.features(image))[0].flatten(1).numpy()
    weight = np.maximum(regions.relevance[0].ravel(), 0)
    assert regions.content[0] == pytest.approx(a @ weight / weight.sum(), abs=1e-5)
    assert ActingRegions.join([regions, regions]).content.shape == (2, made.THINGS + 1)


def test_the_network_is_given_back():
    classifier = made.leaning()
    image, before = made.transform(made.draw(5, True))[None], classifier.module.training
    LastGrid.of(classifier).find_regions(classifier, image, (1,))
    assert classifier.module.training == before
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in classifier.module.modules())
    assert all(p.requires_grad and p.grad is None for p in classifier.module.parameters())


def test_a_convolution_as_head_is_read_at_its_input():
    net = squeezenet1_0(num_classes=5).eval()
    classifier = load_model((net, lambda picture: torch.zeros(3, 64, 64)))
    grid = LastGrid.of(classifier)
    regions = grid.find_regions(classifier, torch.rand(2, 3, 64, 64), (3,))[3]
    assert regions.relevance.shape == (2, 3, 3) and regions.content.shape == (2, 512)


class Flat(nn.Module):
    """Pixels as one vector, and a head."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 2 * 2, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_a_network_without_positions_is_refused():
    with pytest.raises(ModelError, match="no place where content has positions"):
        LastGrid.of(load_model((Flat().eval(), lambda picture: torch.zeros(3, 2, 2))))
