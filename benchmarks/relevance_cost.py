"""What an explanation costs: relevance propagation here and by zennit, as multiples of one forward and backward pass.

    python benchmarks/relevance_cost.py

One thread; random weights (the cost does not depend on them); the runs of all sides are interleaved, medians printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchvision.models import resnet50, vgg16
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from klarsicht.audit.models import classifier
from klarsicht.audit.relevance.explainer import Explainer

NETWORKS = {"VGG-16": (vgg16, VGGCanonizer), "ResNet-50": (resnet50, ResNetCanonizer)}
COMPOSITES: dict[str, Callable] = {
    "EpsilonPlusFlat": EpsilonPlusFlat,
    "EpsilonGammaBox": lambda canonizers: EpsilonGammaBox(low=-3.0, high=3.0, canonizers=canonizers),
    "EpsilonAlpha2Beta1": EpsilonAlpha2Beta1,
}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | method | forward + backward, s an image | zennit | klarsicht |\n|---|---|---|---|---|")
    for name, (build, canonizer) in NETWORKS.items():
        torch.manual_seed(0)
        plain, net = (build().eval().requires_grad_(False) for _ in range(2))
        x, target = torch.randn(asked.batch, 3, 224, 224), torch.zeros(asked.batch, dtype=torch.long)
        seed = torch.eye(1000)[target]

        def gradient(net=plain, x=x, seed=seed) -> None:
            y = x.clone().requires_grad_()
            torch.autograd.grad(net(y), y, seed)

        for method, composite in COMPOSITES.items():
            # both sides register their rules once, as an audit of many batches does
            with (
                Gradient(build().eval().requires_grad_(False), composite(canonizers=[canonizer()])) as theirs,
                Explainer(classifier.load_model(net), method) as ours,
            ):
                sides = {
                    "gradient": gradient,
                    "zennit": lambda theirs=theirs, x=x, seed=seed: theirs(x.clone(), seed),
                    "ours": lambda ours=ours, x=x, target=target: ours(x, target),
                }
                for work in sides.values():
                    work()
                taken = {side: [] for side in sides}
                for _ in range(asked.repeats):
                    for side, work in sides.items():
                        taken[side].append(seconds(work))
            once, zennit, here = (statistics.median(taken[side]) for side in sides)
            print(
                f"| {name} | {method} | {once / asked.batch:.3f} | {zennit / once:.2f} | {here / once:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
