"""Segmentation, detection and retrieval through the modules of the page "Your model". Oracles: the books of relevance,
receptive fields, and the closed form of a similarity."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection, segmentation

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import explain

PAGE = Path(__file__).parents[4] / "docs" / "your-model.md"
NONE = {"weights": None, "weights_backbone": None}
SEGMENTATION = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_resnet50")
DETECTION = ("ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn")
HEAVY = pytest.mark.nightly


@pytest.fixture(scope="module")
def tasks():
    section = PAGE.read_text().split("## Other tasks")[1].split("\n## ")[0]
    space = {}
    exec(compile(re.search(r"```python\n(.+?)```", section, re.S)[1], str(PAGE), "exec"), space)
    return space


def normalised(net):
    """Batch norms that shift and scale, as after training."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", (*SEGMENTATION, pytest.param("fcn_resnet101", marks=HEAVY)))
def test_relevance_of_a_segmented_class_is_conserved(tasks, name):
    net = tasks["Segmented"](normalised(getattr(segmentation, name)(**NONE)))
    found = explain(load_model(net), torch.rand(1, 3, 96, 96))
    assert found.logits.shape == (1, 21)
    assert abs(found.residual) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", (*DETECTION, pytest.param("retinanet_resnet50_fpn_v2", marks=HEAVY)))
def test_relevance_of_a_box_is_conserved(tasks, name):
    net = tasks["Box"](normalised(getattr(detection, name)(**NONE)), 100)
    found = explain(load_model(net), torch.rand(1, 3, 96, 96))
    assert found.logits.shape == (1, 91)
    assert abs(found.residual) < 1e-4


@pytest.mark.slow
def test_relevance_of_a_box_stays_in_its_receptive_field(tasks):
    """The first box of SSD300 is at the top left; conv4_3 of VGG-16 sees 92 px, and its head 3 x 3 of these, 8 px
    apart."""
    torch.manual_seed(0)
    net = tasks["Box"](detection.ssd300_vgg16(**NONE).eval(), 0)
    found = explain(load_model(net), torch.rand(1, 3, 300, 300))
    assert abs(found.residual) < 1e-4
    seen = np.abs(found.pixels[0]).sum(0)
    far = 92 // 2 + 8 + 8  # half of what is seen, from the centre of the head's last position
    assert seen[:far, :far].sum() > 0
    assert seen[far:].sum() == seen[:, far:].sum() == 0


def test_a_similarity_is_explained_by_its_own_gradient(tasks):
    """Of features that are the pixels themselves, the gradient of a cosine at x is (r - cos x / |x|) / |x|."""
    references, x = torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4)
    identity = nn.Linear(48, 48, bias=False)
    identity.weight.data = torch.eye(48)
    net = tasks["Similarity"](nn.Sequential(nn.Flatten(), identity), references)
    found = explain(load_model((net, lambda _: x[0])), x, [1], method="GradientTimesInput")
    a, r = x.flatten(), references[1].flatten() / references[1].norm()
    cosine = float(a @ r / a.norm())
    want = a * (r - cosine * a / a.norm()) / a.norm()
    np.testing.assert_allclose(found.pixels.flatten(), want, atol=1e-6)
    assert found.logits[0, 1] == pytest.approx(cosine, abs=1e-6)
