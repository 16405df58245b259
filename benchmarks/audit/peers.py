"""Attribution by klarsicht and by its peers, on one machine: what docs/peers.md is made with.

    pip install captum grad-cam zennit lxt
    PYTHONPATH=NETWORKS MOLES=moles python benchmarks/audit/peers.py ISIC2017

The network of isic.py follows patches, which isic_interventions.py shows without any attribution. Printed are the
share of positive relevance for "benign" on the patch, the sum of relevance over the logit, and processor time over that
of one forward and backward pass, in batches of four.

A method is used as its package's page shows it, with the remedies that the page names. Its lines are those of the
function here.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import isic
from isic_interventions import patch_of

BATCH, PICTURES = 4, 12
Attribute = Callable[[nn.Module, Tensor, Tensor], Tensor]


def klarsicht_by(method: str) -> Attribute:
    def klarsicht(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
        from klarsicht import audit

        return torch.from_numpy(audit.attribute(net, x, targets, method=method))

    return klarsicht


def zennit_by(composite: str) -> Attribute:
    def zennit(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
        from zennit import attribution, canonizers, composites

        merge = [canonizers.SequentialMergeBatchNorm()]
        with attribution.Gradient(net, getattr(composites, composite)(canonizers=merge)) as explain:
            outputs = net(x.detach())
            return explain(x.clone().requires_grad_(), one_hot(outputs, targets))[1]

    return zennit


def captum_by(name: str) -> Attribute:
    def captum(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
        from captum import attr

        return getattr(attr, name)(net).attribute(x.clone().requires_grad_(), target=targets)

    return captum


def captum_steps(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    from captum.attr import IntegratedGradients

    return IntegratedGradients(net).attribute(x, target=targets, n_steps=32, internal_batch_size=len(x))


def grad_cam(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    last = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    with GradCAM(model=net, target_layers=[last]) as cam:
        return torch.from_numpy(cam(x, [ClassifierOutputTarget(int(k)) for k in targets]))[:, None]


def lxt_vit(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    from lxt.efficient import monkey_patch
    from lxt.efficient.models.vit_torch import cp_LRP
    from torchvision.models import vision_transformer

    monkey_patch(vision_transformer, cp_LRP)
    y = x.clone().requires_grad_()
    net(y).gather(1, targets[:, None]).sum().backward()
    return y * y.grad


@dataclass(frozen=True)
class Method:
    """A way of attribution: its package and name, the function, and whether its map's sum is to be the logit."""

    package: str
    name: str
    attribute: Attribute
    conserves: bool = True

    @property
    def lines(self) -> int:
        """Lines of the function's body."""
        text = [line for line in inspect.getsource(self.attribute).splitlines() if line.strip()]
        return len(text) - 1


METHODS = (
    Method("klarsicht", "auto", klarsicht_by("auto")),
    Method("klarsicht", "EpsilonPlusFlatIgnoreBias", klarsicht_by("EpsilonPlusFlatIgnoreBias")),
    Method("klarsicht", "AttnLRP", klarsicht_by("AttnLRP")),
    Method("zennit", "EpsilonPlusFlat", zennit_by("EpsilonPlusFlat")),
    Method("zennit", "EpsilonAlpha2Beta1", zennit_by("EpsilonAlpha2Beta1")),
    Method("captum", "LRP", captum_by("LRP")),
    Method("captum", "InputXGradient", captum_by("InputXGradient"), conserves=False),
    Method("captum", "IntegratedGradients, 32 steps", captum_steps, conserves=False),
    Method("captum", "DeepLift", captum_by("DeepLift"), conserves=False),
    Method("grad-cam", "GradCAM", grad_cam, conserves=False),
    Method("LXT", "CP-LRP of its ViT page", lxt_vit),
)


def one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.one_hot(targets, outputs.shape[1]).to(outputs)


def gradient_cost(net: nn.Module, x: Tensor, targets: Tensor) -> float:
    """Measure processor seconds of one forward and backward pass to the input, after one to warm up."""
    for _ in range(2):
        begun = time.process_time()
        y = x.clone().requires_grad_()
        torch.autograd.grad(net(y).gather(1, targets[:, None]).sum(), y)
    return time.process_time() - begun


def share_on(relevance: Tensor, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the share of positive relevance, summed over channels, that lies on masks (n, H, W)."""
    positive = relevance.detach().sum(1).clamp(min=0).numpy().astype(np.float64)
    return (positive * masks).sum((1, 2)) / np.maximum(positive.sum((1, 2)), 1e-30)


def tell_shares(folder: Path) -> None:
    """Print what every method says of the patches of isic.py's network."""
    rows = [row for row in isic.split_rows(isic.read_rows(folder))["held"] if row["patches"] == "1"]
    x = isic.read_images(folder, rows)
    masks = np.stack([patch_of(image) for image in x])
    seen = np.flatnonzero(masks.any((1, 2)))[:PICTURES]
    x, masks = x[seen], masks[seen]
    print(f"{len(x)} pictures; patches cover {masks.mean():.0%} of them")
    print("package    method                                 share on patch   sum over logit     cost   lines")
    for method in METHODS:
        net, _ = isic.network()  # a new one: a package may leave something behind
        parts = list(zip(x.split(BATCH), masks.reshape(-1, *masks.shape[1:]).astype(float), strict=False))
        targets = torch.zeros(BATCH, dtype=torch.long)
        floor = gradient_cost(net, x[:BATCH], targets)
        shares, sums, begun = [], [], time.process_time()
        try:
            for start in range(0, len(x), BATCH):
                some = x[start : start + BATCH]
                relevance = method.attribute(net, some, targets[: len(some)])
                shares.append(share_on(relevance, masks[start : start + BATCH]))
                with torch.no_grad():
                    sums.append(relevance.detach().flatten(1).sum(1).numpy() / isic.network()[0](some)[:, 0].numpy())
        except Exception as error:  # what a package says is the row
            print(
                f"{method.package:10} {method.name:38} refused: {type(error).__name__}: {str(error)[:90]}", flush=True
            )
            continue
        cost = (time.process_time() - begun) / (floor * len(parts))
        share, ratio = np.concatenate(shares), np.concatenate(sums)
        kept = f"{np.median(ratio):14.2g}" if method.conserves else "             -"
        print(
            f"{method.package:10} {method.name:38} {np.mean(share):14.0%} {kept} {cost:8.1f} {method.lines:7}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tell_shares(given.data)


if __name__ == "__main__":
    main()
