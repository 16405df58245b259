"""Relevance of volumes. Oracles: the same network in two axes, zennit, nibabel, and the books of relevance."""

import nibabel
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import video
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.audit.explanation.relevance.pooling import pool_relevance
from klarsicht.ground.errors import UsageError

TARGETS = torch.tensor([2, 0])


@pytest.fixture(autouse=True)
def same_weights():
    torch.manual_seed(2)


def flat_and_deep():
    """A network of images, and the one of volumes of a single slice that computes the same."""
    flat = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    deep = nn.Sequential(
        *(nn.Conv3d(1, 6, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d((1, 2, 2))),
        *(nn.Conv3d(6, 8, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    deep.load_state_dict({k: v[:, :, None] if v.ndim == 4 else v for k, v in flat.state_dict().items()})
    return flat.eval(), deep.eval()


@pytest.mark.parametrize("method", ["EpsilonPlusFlat", "EpsilonAlpha2Beta1", "GradientTimesInput"])
def test_a_volume_of_one_slice_is_explained_as_the_slice(method):
    flat, deep = flat_and_deep()
    x = torch.rand(2, 1, 16, 12)
    one = explain(load_model(flat), x, TARGETS, method=method)
    other = explain(load_model(deep), x[:, :, None], TARGETS, method=method)
    np.testing.assert_allclose(other.pixels[:, :, 0], one.pixels, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.head, one.head, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.concepts, one.concepts, rtol=1e-4, atol=1e-6)


def test_relevance_of_a_volume_agrees_with_zennit():
    network = nn.Sequential(
        *(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(6, 8, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool3d(4), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()
    x = torch.rand(2, 1, 8, 8, 8)
    with Gradient(network, EpsilonPlusFlat()) as attribute:
        _, want = attribute(x, torch.eye(4)[TARGETS])
    found = explain(load_model(network), x, TARGETS, method="EpsilonPlusFlat", map_side=4)
    assert np.abs(found.pixels - want.numpy()).max() < 1e-5 * want.abs().max()
    blocks = found.pixels.sum(1).reshape(2, 4, 2, 4, 2, 4, 2).sum((2, 4, 6))
    np.testing.assert_allclose(found.maps, blocks, atol=1e-6)


def test_pooling_of_a_volume_keeps_its_sum():
    R = torch.randn(2, 3, 5, 9, 7)
    small = pool_relevance(R, 4)
    assert small.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(small.sum((1, 2, 3)), R.sum((1, 2, 3, 4)), atol=1e-4)


@pytest.mark.slow
def test_a_residual_network_of_volumes_is_conserved_and_its_map_is_written(tmp_path):
    network = video.r3d_18(weights=None, num_classes=4).eval()
    found = explain(load_model(network), torch.rand(1, 3, 8, 32, 32), [1])
    assert abs(found.residual) < 1e-4
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 64, 64), np.float32), np.diag([2.0, 1, 1, 1])), tmp_path / "a.nii")
    found.save_nifti(tmp_path / "map.nii.gz", tmp_path / "a.nii")
    written = nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), found.pixels[0].sum(0))
    np.testing.assert_allclose(np.diag(written.affine), [4, 2, 2, 1])
    with pytest.raises(UsageError, match="no images to draw on"):
        found.overlay()
    with pytest.raises(UsageError, match="the number of a volume; got 1"):
        found.save_nifti(tmp_path / "map.nii", tmp_path / "a.nii", 1)
    assert "<table" in found._repr_html_()


def test_only_volumes_are_written_as_nifti(tmp_path):
    flat, _ = flat_and_deep()
    found = explain(load_model(flat), torch.rand(1, 1, 16, 12), [1])
    with pytest.raises(UsageError, match="only relevance of volumes"):
        found.save_nifti(tmp_path / "map.nii", tmp_path / "a.nii")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["mc3_18", "r2plus1d_18"])
def test_further_residual_networks_of_volumes_are_conserved(name):
    network = getattr(video, name)(weights=None, num_classes=4).eval()
    assert abs(explain(load_model(network), torch.rand(1, 3, 8, 32, 32), [1]).residual) < 1e-4


@pytest.mark.nightly
def test_a_densenet_of_monai_is_conserved():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=2).eval()
    found = explain(load_model(network), torch.rand(1, 1, 48, 48, 48), [1])
    assert abs(found.residual) < 1e-4 and found.pixels.shape == (1, 1, 48, 48, 48)
