"""Relevance in the hands of quantus and pytorch-grad-cam, whose own metrics say what it is worth."""

import numpy as np
import pytest
import torch
from torch import nn

from klarsicht.audit import attribute

pytestmark = pytest.mark.nightly
SPOT = (slice(4, 8), slice(8, 12))
TARGETS = np.array([0, 1, 1, 0])


class SpotNetwork(nn.Module):
    """Two classes by the brightness of one spot, which the rest of the image does not change."""

    def __init__(self):
        super().__init__()
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., *SPOT] = 1
        self.register_buffer("mask", mask)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 2))

    def forward(self, x):
        return self.features(x * self.mask)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(4, 3, 16, 16)


def test_quantus_finds_that_nothing_depends_on_the_other_pixels(x):
    """Pixels are taken away, those for the class first and those against it last: between them nothing changes."""
    quantus = pytest.importorskip("quantus")
    metric = quantus.PixelFlipping(features_in_step=16, perturb_baseline="black", disable_warnings=True)
    curves = metric(
        model=SpotNetwork().eval(),
        x_batch=x.numpy(),
        y_batch=TARGETS,
        explain_func=attribute,
        explain_func_kwargs={"method": "GradientTimesInput"},
        device="cpu",
    )
    for curve in curves:
        np.testing.assert_allclose(curve[4:-4], curve[4], atol=1e-5)
        assert len(curve) > 20 and abs(curve[4] - curve[-1]) > 1e-3


def test_a_metric_of_grad_cam_finds_what_the_network_uses(x):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    network = SpotNetwork().eval()
    own = [targets.ClassifierOutputTarget(int(one)) for one in TARGETS]
    maps = np.abs(attribute(network, x, TARGETS, method="GradientTimesInput").sum(1))
    np.testing.assert_allclose(maps.sum((1, 2)), maps[:, *SPOT].sum((1, 2)), rtol=1e-5)
    least = road.ROADLeastRelevantFirst(percentile=20)(x, maps, own, network)
    most = road.ROADMostRelevantFirst(percentile=90)(x, maps, own, network)
    np.testing.assert_allclose(least, 0, atol=0.02)  # what is blurred is not seen
    assert np.abs(most).max() > 10 * np.abs(least).max()
