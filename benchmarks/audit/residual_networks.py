"""Corrections at one layer, at sums of two branches, and at several layers: held-out truth on residual networks.

    python benchmarks/audit/residual_networks.py --seeds 20 21 22 --json residual.jsonl

Three networks on Fashion-MNIST: a residual one with batch norm whose blocks are modules (*blocks*); one whose forward
is written out, so that no module's input is what two branches read (*written out*); a vision transformer of
torchvision (*transformer*). 30 % of the T-shirts of 20,000 training pictures carry a tag, a stripe or a logo.
Corrections are fitted on 300 true carriers and clean pictures of the network's own, and chosen on 150 others, as
`audit clean` without --method does: *one layer* among inputs of blocks or convolutions and the head; *one tensor*
among these and sums; *several* of these together. Figures are of the 10,000 test pictures, on which nothing was
chosen: *flips*, of other classes' pictures not taken for T-shirts, the share that is with the artifact on; *lost*,
points of accuracy on clean pictures; *left*, the rise of the class's centred logit by the artifact, as a share of that
before.

A figure is one line of the JSON file; one that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from klarsicht.audit.cleaning.corrections import selection, setting_search
from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.corrections.closed_form import COMPOSED, FittingData
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.selection import SettingOutcome
from klarsicht.audit.cleaning.corrections.setting_search import Grid
from klarsicht.audit.cleaning.models import correction_choice
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layers
from klarsicht.numerics.statistics.logits import centred_logit

sys.path.insert(0, str(Path(__file__).parent))
import fashion
from chosen_methods import CHOSEN, FITTED, TRAINED, drawn
from harm_answers import PUT, SHARE, TARGET, inputs, overlay

WAYS = ("one layer", "one tensor", "several")


class Block(nn.Module):
    """Basic residual block (He et al. 2016)."""

    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k)
        self.second, self.second_norm = nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k)
        same = c == k and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(torch.relu(self.first_norm(self.first(x)))))
        y += self.skip(x)
        return torch.relu(y)


class WrittenOut(nn.Module):
    """The residual network, of five blocks, in one forward: no module holds a block."""

    STAGES = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 48, 2))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        for i, (c, k, stride) in enumerate(self.STAGES):
            block = Block(c, k, stride)
            for name, part in block.named_children():
                self.add_module(f"{name}{i}", part)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        for i in range(len(self.STAGES)):
            parts = (getattr(self, f"{name}{i}") for name in ("first", "first_norm", "second", "second_norm", "skip"))
            first, first_norm, second, second_norm, skip = parts
            x = torch.relu(second_norm(second(torch.relu(first_norm(first(x))))) + skip(x))
        return self.head(x.mean((2, 3)))


def blocks() -> nn.Module:
    stem = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    body = nn.Sequential(*(Block(*stage) for stage in WrittenOut.STAGES))
    return nn.Sequential(*stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


class Transformer(nn.Module):
    """torchvision's vision transformer, of 16 patches, in grey."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torchvision.models.VisionTransformer(28, 7, 3, 4, 48, 96, num_classes=10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x.expand(-1, 3, -1, -1))
        return answer


NETWORKS = {"blocks": (blocks, 2), "written out": (WrittenOut, 2), "transformer": (Transformer, 4)}  # and its epochs


def build(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name][0]()


def ways(data: FittingData, test: CorrectionTest) -> dict[str, list[SettingOutcome]]:
    """Settings tried in each of WAYS."""
    bounds, grid = Bounds(), Grid()
    layers = correction_layers(data.classifier.module, data.classifier.head)
    methods = correction_choice.CANDIDATES
    at_layers = setting_search.try_settings(methods, data, test, bounds, replace(grid, layers=layers))
    sums = tuple(layer for layer in data.layers if layer not in layers)
    more = setting_search.try_settings(methods, data, test, bounds, replace(grid, layers=sums)) if sums else []
    tensors = at_layers + more
    several = tensors + setting_search.try_further_layers(tensors, COMPOSED, data, test, bounds, grid)
    return dict(zip(WAYS, (at_layers, tensors, several), strict=True))


def one(seed: int, artifact: str, name: str) -> dict:
    rng = np.random.default_rng(seed)
    x, y = (part[:TRAINED] for part in fashion.pictures("train"))
    shirts = np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(SHARE * len(shirts)), replace=False)] = True
    planted = np.where(carries[:, None, None], PUT[artifact](x), x)
    fashion.network = lambda s: build(name, s)
    start = time.time()
    net = fashion.trained(planted, y, seed, NETWORKS[name][1])
    print(f"{name}, {artifact}, {seed}: trained in {time.time() - start:.0f} s", file=sys.stderr)
    classifier = load_model((net, lambda image: image), classes=fashion.CLASSES)
    place, parts, rows = overlay(artifact), [], rng.permutation(len(x))
    for n in (FITTED, CHOSEN):
        sample, at = drawn(planted, y, carries, rows, n)
        parts.append(sample)
        rows = rows[~np.isin(rows, at)]
    test, truth = fashion.pictures("t10k")
    held_out, marked = inputs(test), inputs(PUT[artifact](test))

    def figures(correction: Correction | None) -> dict:
        plain, under = (compute_logits(classifier, images, correction) for images in (held_out, marked))
        other = truth != TARGET
        free = other & (plain.argmax(1) != TARGET)
        return {
            "flips": float((under.argmax(1)[free] == TARGET).mean()),
            "under": float((under.argmax(1) == truth).mean()), "accuracy": float((plain.argmax(1) == truth).mean()),
            "rise": float((centred_logit(under, TARGET) - centred_logit(plain, TARGET))[other].mean()),
        }  # fmt: skip

    start = time.time()
    data = FittingData(classifier, TARGET, parts[0], place, seed=seed)
    found = ways(data, CorrectionTest(classifier, parts[1], TARGET, place, seed))
    result = {"seed": seed, "artifact": artifact, "network": name, "nothing": figures(None)}
    result["seconds"] = time.time() - start
    known: dict = {}
    for way, candidates in found.items():
        choice = selection.choose_best(candidates)
        seen = {"chosen": str(choice.chosen), "within": choice.chosen.within_bounds, "tried": len(candidates)}
        if str(choice.chosen) not in known:
            known[str(choice.chosen)] = figures(choice.correction)
        result[way] = known[str(choice.chosen)] | seen | {"announced": choice.chosen.gained.value}
    return result


def table(runs: list[dict]) -> None:
    """One line for each network and artifact, means over seeds."""
    print(f"\n| network, artifact | flips before | {' | '.join(f'{way}: flips, left, lost' for way in WAYS)} |")
    print(f"|---|---|{'---|' * len(WAYS)}")
    for name, artifact in dict.fromkeys((run["network"], run["artifact"]) for run in runs):
        some = [run for run in runs if (run["network"], run["artifact"]) == (name, artifact)]
        cells = [f"{100 * np.mean([run['nothing']['flips'] for run in some]):.1f}"]
        for way in WAYS:
            flips = 100 * np.mean([run[way]["flips"] for run in some])
            left = 100 * np.mean([abs(run[way]["rise"]) / run["nothing"]["rise"] for run in some])
            lost = 100 * np.mean([run["nothing"]["accuracy"] - run[way]["accuracy"] for run in some])
            cells.append(f"{flips:.1f}, {left:.0f} %, {lost:+.2f}")
        print(f"| {name}, {artifact} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--artifacts", nargs="+", choices=PUT, default=list(PUT))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    done = {(run["seed"], run["artifact"], run["network"]) for run in found}
    for seed in asked.seeds:
        for name in asked.networks:
            for artifact in asked.artifacts:
                if (seed, artifact, name) not in done:
                    found.append(one(seed, artifact, name))
                    print(json.dumps(found[-1]), file=sys.stderr)
                    with asked.json.open("a") as lines:
                        lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
