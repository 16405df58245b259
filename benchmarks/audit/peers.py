"""Attribution by klarsicht and by its peers, on one machine: what docs/peers.md is made with.

    pip install autolrp captum grad-cam zennit lxt
    PYTHONPATH=NETWORKS MOLES=moles python benchmarks/audit/peers.py ISIC2017
    python benchmarks/audit/peers.py --refusals

The network of isic.py follows patches, which isic_interventions.py shows without any attribution. Printed are the
share of positive relevance for "benign" on the patch, the sum of relevance over the logit, and processor time over that
of one forward and backward pass, in batches of four.

With --refusals the rules of four packages are asked for a map of one picture by 32 architectures of torchvision and
timm, with random weights: whether a package raises an error, and how often the map's sum is beyond a hundred times the
logit. A map of these rules need not sum to the logit, but its numbers must mean something.

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
from architectures import TORCHVISION
from isic_interventions import patch_of

TIMM = (
    "convnext_atto", "deit_tiny_patch16_224", "edgenext_xx_small", "levit_128s", "mixer_s32_224", "mobilevit_xxs",
    "poolformer_s12", "pvt_v2_b0", "tf_efficientnet_lite0", "xcit_nano_12_p16_224",
)  # fmt: skip
HUNDREDFOLD = 100  # of the logit: beyond it, a sum has blown up
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


def autolrp_map(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    import autolrp

    y = autolrp.tensor(x)
    net(y).gather(1, targets[:, None]).sum().lrp(config=autolrp.LRPConfig.composite())
    return y.relevance


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
    Method("autoLRP", "composite", autolrp_map),
    Method("captum", "LRP", captum_by("LRP")),
    Method("captum", "InputXGradient", captum_by("InputXGradient"), conserves=False),
    Method("captum", "IntegratedGradients, 32 steps", captum_steps, conserves=False),
    Method("captum", "DeepLift", captum_by("DeepLift"), conserves=False),
    Method("grad-cam", "GradCAM", grad_cam, conserves=False),
    Method("LXT", "CP-LRP of its ViT page", lxt_vit),
)


RULES = (
    Method("klarsicht", "EpsilonPlusFlat", klarsicht_by("EpsilonPlusFlat")),
    Method("zennit", "EpsilonPlusFlat", zennit_by("EpsilonPlusFlat")),
    Method("autoLRP", "composite", autolrp_map),
    Method("captum", "LRP", captum_by("LRP")),
)
SIDES = {"inception_v3": 299}


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


def build(name: str) -> nn.Module:
    """Build an architecture of torchvision or timm with random weights, the same each time."""
    import timm
    import torchvision

    torch.manual_seed(0)
    if name in TIMM:
        return timm.create_model(name).eval()
    more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **more).eval()


def tell_refusals() -> None:
    """Print which packages give a map of each architecture, and how many of all."""
    names, counts = [*TORCHVISION, *TIMM], {}
    for name in names:
        cells = []
        for method in RULES:
            x = torch.rand(1, 3, SIDES.get(name, 224), SIDES.get(name, 224), generator=torch.Generator().manual_seed(0))
            net = build(name)
            with torch.no_grad():
                logits = net(x)
            target = logits.argmax(1)
            try:
                sums = float(method.attribute(net, x, target).detach().double().sum() / logits[0, target])
                bounded = abs(sums) <= HUNDREDFOLD
                cells.append(f"{sums:.3g}")
            except Exception as error:  # what a package says is the row
                bounded = None
                cells.append(type(error).__name__)
            counts.setdefault(method.package, []).append(bounded)
        print(f"{name:24} {'   '.join(f'{cell:>22}' for cell in cells)}", flush=True)
    for package, answers in counts.items():
        refused, bounded = answers.count(None), answers.count(True)
        print(f"{package}: of {len(answers)}, {refused} refused; the sum of {bounded} is within a hundred logits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--refusals", action="store_true", help="only which architectures a package refuses")
    given = parser.parse_args()
    if not given.refusals and given.data is None:
        parser.error("name the folder of pictures, or --refusals")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if given.refusals:
        tell_refusals()
    else:
        tell_shares(given.data)


if __name__ == "__main__":
    main()
