"""Segmentation, detection and retrieval through the modules of the page "Your model". Oracles: the books of relevance,
receptive fields, and the closed form of a similarity."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection, segmentation
from torchvision.ops import roi_align

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


TWO_STAGES = ("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn")


@pytest.mark.slow
@pytest.mark.parametrize("name", (TWO_STAGES[0], *(pytest.param(name, marks=HEAVY) for name in TWO_STAGES[1:])))
def test_relevance_of_the_best_box_of_two_stages_is_conserved(tasks, name):
    """Of two images, whose best boxes lie on different levels of the features, too."""
    net = tasks["Region"](normalised(getattr(detection, name)(**NONE)), 1)
    found = explain(load_model(net), torch.rand(2, 3, 96, 96))
    assert found.logits.shape == (2, 91)
    assert np.abs(found.residual).max() < 1e-4


BOXES = ((1.0, 0, 0, 20, 12), (0, 4.5, 3, 21, 18), (1, 8, 10, 22, 24), (0, 2, 2, 9, 23))
"""Two boxes of each of two images: the number of the image, and corners in pixels."""


class Regions(nn.Module):
    """Mean of the two pooled boxes of each image."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(5 * 4, 3)

    def pool(self, features):
        boxes = [one for one in BOXES if one[0] < len(features)]
        by_image = sorted(range(len(boxes)), key=lambda i: boxes[i][0])
        pooled = roi_align(features, torch.tensor(boxes), (2, 2), sampling_ratio=2)[by_image]
        return pooled.reshape(len(features), 2, 5, 2, 2).mean(1)

    def forward(self, x):
        return self.head(self.pool(self.body(x)).flatten(1))


class MultipliedRegions(Regions):
    """The same with matrices: the columns of each are the regions of images with one bright pixel."""

    def pool(self, features):
        basis = torch.eye(24 * 24).reshape(-1, 1, 24, 24)
        regions = torch.stack([_pool_on_every(one, basis) for one in sorted(BOXES)]).reshape(2, 2, -1, 4)
        return features.flatten(2) @ regions.mean(1)[: len(features)]


def test_pooled_regions_are_explained_as_products_with_their_matrices():
    torch.manual_seed(0)
    net, same, x = Regions().eval(), MultipliedRegions().eval(), torch.rand(2, 3, 24, 24)
    same.load_state_dict(net.state_dict())
    models = [load_model((one, lambda _: x[0])) for one in (net, same)]
    found, want = (explain(one, x, [0, 2], method="EpsilonPlusFlat") for one in models)
    np.testing.assert_allclose(found.logits, want.logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.pixels, want.pixels, rtol=1e-3, atol=1e-6)
    assert np.abs(found.residual).max() < 1e-5


def _pool_on_every(box, images):
    corners = torch.tensor(box[1:], dtype=torch.float32).expand(len(images), 4)
    return roi_align(images, torch.cat([torch.arange(len(images))[:, None], corners], 1), (2, 2), sampling_ratio=2)


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
