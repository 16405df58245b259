"""What goes into a layer, on a network whose layers pass their input on."""

import numpy as np
import pytest
import torch
from tests.audit.shortcut import classifier, sample
from torch import nn

from klarsicht.audit.corrections.activations import compute_activations, compute_logits, compute_logits_jointly
from klarsicht.audit.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.models.classifier import load_model
from klarsicht.numerics.erasure import orthogonal_eraser


def test_pooled_inputs_are_the_means_of_what_the_layer_receives():
    some = sample(10)
    found = compute_activations(classifier(), some.images, "last")
    x = torch.stack(list(some.images))
    np.testing.assert_allclose(found.pooled, x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.spread, x.amax((2, 3)) - x.mean((2, 3)), atol=1e-6)


def test_images_of_different_sizes_are_answered_in_order():
    images = [torch.full((4, 2 + i % 3, 4), float(i)) for i in range(20)]
    np.testing.assert_allclose(compute_logits(classifier(), images)[:, 1], 4 * np.arange(20), atol=1e-4)


@pytest.mark.parametrize("layer", ["body", "last", "head"])
def test_each_image_is_measured_in_the_run_that_gave_its_answer(layer):
    """Of a correction of one class, only the images that the plain model takes for it are measured corrected."""
    some, model = sample(30), classifier()
    erasure = Erasure("last", orthogonal_eraser(np.eye(4)[:, 3:], np.zeros(4)))
    taken = compute_logits(model, some.images).argmax(1) == 0
    plain, erased = (compute_activations(model, some.images, layer, c).pooled for c in (None, erasure))
    found = compute_activations(model, some.images, layer, WhenPredicted(erasure, 0)).pooled
    assert 0 < taken.sum() < 30
    np.testing.assert_allclose(found, np.where(taken[:, None], erased, plain), atol=1e-6)


def test_erasures_at_a_layer_that_runs_twice_are_those_one_after_another():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 4)

        def forward(self, x):
            return self.head(self.inner(self.inner(x)).mean((2, 3)))

    torch.manual_seed(0)
    net, rng = load_model(Twice().eval()), np.random.default_rng(0)
    erasures = [Erasure("inner", orthogonal_eraser(rng.standard_normal((3, 1)), np.ones(3))) for _ in range(2)]
    images = list(torch.rand(5, 3, 4, 4))
    for found, erasure in zip(compute_logits_jointly(net, images, erasures), erasures, strict=True):
        np.testing.assert_allclose(found, compute_logits(net, images, erasure), atol=1e-6)
