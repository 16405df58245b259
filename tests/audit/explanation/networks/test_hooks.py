"""Channel axis of a layer's input, against the networks' own configurations, stage by stage."""

import pytest
import torch
from torch import nn

from klarsicht.audit.explanation.networks.hooks import (
    Tap,
    channel_axis,
    late_layer,
    leading_tokens,
    replace_first_tensor,
    takes_channels_last,
)


def swin():
    timm = pytest.importorskip("timm")
    shape = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **shape).eval()


def mambaout():
    timm = pytest.importorskip("timm")
    return timm.create_model("mambaout_femto", num_classes=5).eval()


def convnext_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], num_labels=5)
    return transformers.ConvNextForImageClassification(config).eval()


@pytest.mark.parametrize(
    ("network", "stage", "channels"),
    [
        (swin, "layers.2", 48),  # begins with a norm of four merged patches, 4 x 48
        (swin, "layers.2.blocks.0", 96),
        (mambaout, "stages.3", 192),  # its channels are last, and it begins with a convolution
        (convnext_of_transformers, "convnext.encoder.stages.1", 16),  # a norm of channels, which come first
        (convnext_of_transformers, "convnext.encoder.stages.2", 24),
    ],
)
def test_a_stages_input_has_the_channels_that_its_network_was_built_with(network, stage, channels):
    net = network()
    with torch.no_grad(), Tap(net, stage) as tap:
        net(torch.rand(2, 3, 64, 64))
        assert tap.input.ndim == 4
        assert tap.input.shape[tap.channels] == channels


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_blocks_with_scales_of_their_own_take_tokens(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, img_size=32, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    assert dict(net.blocks[0].named_parameters(recurse=False))
    assert takes_channels_last(net.blocks[0])


def test_where_sizes_do_not_tell_the_kind_of_the_first_weights_does():
    assert channel_axis(nn.LayerNorm(8), (2, 8, 4, 8)) == -1
    assert channel_axis(nn.Conv2d(8, 8, 1), (2, 8, 4, 8)) == 1


def test_the_first_tensor_is_replaced_by_position_or_by_name():
    one, two = torch.ones(2), torch.zeros(2)
    (first, second), _ = replace_first_tensor((one, two), {}, torch.neg)
    assert torch.equal(first, -one)
    assert second is two
    _, named = replace_first_tensor((), {"mask": None, "hidden": one, "other": two}, torch.neg)
    assert torch.equal(named["hidden"], -one)
    assert named["other"] is two


@pytest.mark.parametrize(
    ("shape", "aspect", "tokens"),
    [
        ((2, 196, 8), 1.0, 0),
        ((2, 197, 8), 1.0, 1),  # class token
        ((2, 198, 8), 1.0, 2),  # and one of distillation
        ((2, 261, 8), 1.0, 5),  # and four registers
        ((2, 14 * 28 + 1, 8), 0.5, 1),
        ((2, 197), 1.0, 0),
        ((2, 8, 14, 14), 1.0, 0),
        ((2, 14, 14, 8), 1.0, 0),
    ],
)
def test_tokens_before_the_grid_are_counted(shape, aspect, tokens):
    assert leading_tokens(shape, aspect) == tokens


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("vit_tiny_patch16_224", {"depth": 3}, "blocks.2"),
        ("convnext_atto", {}, "stages.3"),
        ("swin_tiny_patch4_window7_224", {}, "layers.3"),
        ("resnet10t", {}, "layer4"),
    ],
)
def test_the_late_layer_of_networks_of_blocks_is_not_all_of_them(name, options, layer):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, num_classes=2, **options)
    assert late_layer(net, next(n for n, m in reversed(list(net.named_modules())) if isinstance(m, nn.Linear))) == layer
