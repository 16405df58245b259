"""What goes into a layer, on a network whose layers pass their input on."""

import numpy as np
import torch
from tests.audit.shortcut import classifier, sample

from klarsicht.audit.corrections.activations import compute_activations, compute_logits


def test_pooled_inputs_are_the_means_of_what_the_layer_receives():
    some = sample(10)
    found = compute_activations(classifier(), some.images, "last")
    x = torch.stack(list(some.images))
    np.testing.assert_allclose(found.pooled, x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.spread, x.amax((2, 3)) - x.mean((2, 3)), atol=1e-6)


def test_images_of_different_sizes_are_answered_in_order():
    images = [torch.full((4, 2 + i % 3, 4), float(i)) for i in range(20)]
    np.testing.assert_allclose(compute_logits(classifier(), images)[:, 1], 4 * np.arange(20), atol=1e-4)
