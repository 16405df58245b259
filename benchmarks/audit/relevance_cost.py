"""Cost of an explanation: relevance propagation here, by zennit, captum and LXT, as multiples of one forward and
backward pass.

    pip install captum lxt
    python benchmarks/audit/relevance_cost.py [--networks ViT-S ...]

One thread; random weights (the cost does not depend on them); the runs of all sides are interleaved, medians of
processor time printed. captum has its epsilon rule for all layers, in the row of the first method; LXT the rules of its
example for vision transformers (gamma, attention weights held fixed), on torchvision's ViT of that size. A side that
gives no answer is named by its error; whether an answer means anything is not asked here (docs/relevance.md).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, resnet50, vgg16, vision_transformer
from zennit import rules as zennit_rules
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlusFlat, LayerMapComposite
from zennit.core import BasicHook
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from klarsicht.audit.explanation.models import classifier
from klarsicht.audit.explanation.relevance.explainer import Explainer

SMALL = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384, "mlp_dim": 1536}
CONVOLUTIONAL = ("EpsilonPlusFlat", "EpsilonGammaBox", "EpsilonAlpha2Beta1")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], type | None, tuple[str, ...]]] = {
    "VGG-16": (vgg16, VGGCanonizer, CONVOLUTIONAL),
    "ResNet-50": (resnet50, ResNetCanonizer, CONVOLUTIONAL),
    "ViT-S": (lambda: timm.create_model("vit_small_patch16_224"), None, ("GammaAttention", "EpsilonPlusFlat")),
    "ViT-S of torchvision": (lambda: VisionTransformer(224, 16, **SMALL), None, ("GammaAttention",)),
}
COMPOSITES: dict[str, Callable] = {
    "EpsilonPlusFlat": EpsilonPlusFlat,
    "EpsilonGammaBox": lambda canonizers: EpsilonGammaBox(low=-3.0, high=3.0, canonizers=canonizers),
    "EpsilonAlpha2Beta1": EpsilonAlpha2Beta1,
}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def gradient(net: nn.Module, x: Tensor, seed: Tensor) -> None:
    y = x.clone().requires_grad_()
    torch.autograd.grad(net(y), y, seed)


def captum(net: nn.Module, x: Tensor, target: Tensor) -> None:
    """Explain by captum with the epsilon rule; captum takes rules off again after each call."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in net.modules():
        if not list(module.children()):
            module.rule = EpsilonRule()
    LRP(net).attribute(x.clone().requires_grad_(), target)


@contextmanager
def lxt_patches() -> Iterator[None]:
    """Let LXT replace forward passes of torch.nn and hooks of zennit, and put them back."""
    from lxt.efficient import monkey_patch, monkey_patch_zennit

    places = [(kind, "forward") for kind in (nn.GELU, nn.LayerNorm, nn.MultiheadAttention)]
    places += [(BasicHook, "forward"), (BasicHook, "backward")]
    kept = [getattr(*place) for place in places]
    try:
        monkey_patch(vision_transformer)
        monkey_patch_zennit()
        yield
    finally:
        for place, value in zip(places, kept, strict=True):
            setattr(*place, value)


def lxt(net: nn.Module, x: Tensor, seed: Tensor) -> None:
    """Explain by the rules of LXT's example for vision transformers."""
    gamma = LayerMapComposite([(nn.Conv2d, zennit_rules.Gamma(0.25)), (nn.Linear, zennit_rules.Gamma(0.05))])
    with lxt_patches(), gamma.context(net):
        gradient(net, x, seed)


def tried(work: Callable[[], object]) -> str:
    """Run once; return the name of the error, or nothing."""
    try:
        work()
    except Exception as error:  # other packages raise nearly anything
        return type(error).__name__
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | method | forward + backward, s an image | zennit | captum | LXT | klarsicht |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.networks:
        build, canonizer, methods = NETWORKS[name]
        torch.manual_seed(0)
        plain, net, other, third = (build().eval().requires_grad_(False) for _ in range(4))
        x, target = torch.randn(asked.batch, 3, 224, 224), torch.zeros(asked.batch, dtype=torch.long)
        seed = torch.eye(1000)[target]
        for method in methods:
            sides: dict[str, Callable[[], object]] = {"gradient": partial(gradient, plain, x, seed)}
            if find_spec("captum") and method == methods[0]:
                sides["captum"] = partial(captum, third, x, target)
            if find_spec("lxt") and "torchvision" in name:
                sides["LXT"] = partial(lxt, other, x, seed)
            # both sides register their rules once, as an audit of many batches does
            canonizers = [canonizer()] if canonizer else []
            composite = COMPOSITES[method](canonizers=canonizers) if method in COMPOSITES else None
            with Explainer(classifier.load_model(net), method) as ours, Gradient(other, composite) as theirs:
                if composite is not None:
                    sides["zennit"] = partial(theirs, x.clone(), seed)
                sides["klarsicht"] = partial(ours, x, target)
                refused = {side: error for side, work in sides.items() if (error := tried(work))}
                taken: dict[str, list[float]] = {side: [] for side in sides if side not in refused}
                for _ in range(asked.repeats):
                    for side in taken:
                        taken[side].append(seconds(sides[side]))
            once = statistics.median(taken["gradient"])
            cells = [
                f"{statistics.median(taken[side]) / once:.2f}" if side in taken else refused.get(side, "")
                for side in ("zennit", "captum", "LXT", "klarsicht")
            ]
            print(f"| {name} | {method} | {once / asked.batch:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
