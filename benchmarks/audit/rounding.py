"""By how much do the logits of networks differ from those of the same networks in double precision?

In units in the last place of the largest logit, the unit of `numerics.statistics.logits.rounding_bound`. Images are
random; weights are drawn anew, batch norms settled on the images first.

    python benchmarks/audit/rounding.py
"""

from __future__ import annotations

import copy

import torch
import torchvision

NETWORKS = ("resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "vit_b_16")


def settled(name: str, images: torch.Tensor) -> torch.nn.Module:
    """A network whose batch norms have the statistics of images (B, 3, H, W)."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net(images)
        if hasattr(net, "heads"):  # the head of this family starts with zeros
            torch.nn.init.normal_(net.heads.head.weight, std=0.05)
    return net.eval()


def main() -> None:
    images = torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    for name in NETWORKS:
        net = settled(name, images)
        with torch.no_grad():
            single, double = net(images), copy.deepcopy(net).double()(images.double())
        units = (single - double).abs().max() / (torch.finfo(torch.float32).eps * double.abs().max())
        print(f"{name:14} largest logit {double.abs().max():8.3f}   {units:6.2f} units")


if __name__ == "__main__":
    main()
