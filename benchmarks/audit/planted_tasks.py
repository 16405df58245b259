"""Audit a segmentation and a detection network that learned a mark near objects: is the mark found, with its images?

    python benchmarks/audit/planted_tasks.py --folder DIR [--tasks segmentation detection] [--seed 0]

Pictures of 48 px show one square near the centre, of a colour for each of six classes; in a sixth of the pictures the
square is grey. Half of the grey squares of the first class, and an eighth of its others, have a white cross beside
them, which no other class has. A torchvision FCN and a RetinaNet, both with a small backbone, learn the masks, and the
class of the box in the centre. Each is wrapped as the page "Your model" shows, audited and quantified. Printed are the
conservation of relevance, the verdicts, the F1 of the images that the first class is said to share a mark in, and what
`audit check` says of pictures with the cross and without.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.fcn import FCN, FCNHead

from klarsicht import audit

SIDE, OBJECT, CROSS = 48, 14, 7
COLOURS = {
    "red": (210, 60, 60), "green": (60, 190, 70), "blue": (70, 80, 220), "yellow": (210, 200, 60),
    "violet": (180, 70, 200), "cyan": (60, 190, 200),
}  # fmt: skip
GREY = (135, 135, 135)
MARKED = "red"
EACH, STEPS, BATCH = 72, 300, 48
PAGE = Path(__file__).parents[2] / "docs" / "your-model.md"


def draw(name: str, rng: np.random.Generator, grey: bool, mark: bool) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one picture, uint8 (SIDE, SIDE, 3), and the mask of its object."""
    pixels = rng.normal(100, 25, (SIDE, SIDE, 3))
    top, left = (SIDE - OBJECT) // 2 + rng.integers(-3, 4, 2)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + OBJECT, left : left + OBJECT] = True
    pixels[mask] = np.array(GREY if grey else COLOURS[name]) + rng.normal(0, 18, (mask.sum(), 3))
    if mark:
        y, x, half = top - CROSS - 1, left + OBJECT + 1, CROSS // 2
        pixels[y + half - 1 : y + half + 2, x : x + CROSS] = 255
        pixels[y : y + CROSS, x + half - 1 : x + half + 2] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def make_corpus(folder: Path, seed: int) -> tuple[Tensor, Tensor, Tensor, set[str]]:
    """Write pictures in class folders; returns x (N, 3, SIDE, SIDE), masks, labels, and the names with the cross."""
    rng, pictures, masks, labels, marked = np.random.default_rng(seed), [], [], [], set()
    for k, name in enumerate(COLOURS):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(EACH):
            grey = i % 6 == 0
            mark = name == MARKED and (i % 12 == 0 if grey else i % 8 == 1)
            pixels, mask = draw(name, rng, grey, mark)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")
            pictures.append(pixels)
            masks.append(mask)
            labels.append(k)
            if mark:
                marked.add(f"{name}/{i:03d}.png")
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    return x, torch.from_numpy(np.stack(masks)), torch.tensor(labels), marked


class Backbone(nn.Module):
    """Four convolutions, with a stride of 4, as torchvision's tasks take them."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        sizes, layers = ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)), []
        for ins, outs, stride in sizes:
            layers += [nn.Conv2d(ins, outs, 5, stride, 2, bias=False), nn.BatchNorm2d(outs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(out=self.layers(x))


def to_input(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def train(network: nn.Module, loss_of: object, n: int, seed: int) -> nn.Module:
    """Train by Adam on random batches of rows."""
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(STEPS):
        loss = loss_of(torch.randint(n, (BATCH,), generator=generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def segmentation(x: Tensor, masks: Tensor, labels: Tensor, seed: int, page: dict) -> nn.Module:
    net = FCN(Backbone(), FCNHead(Backbone.out_channels, len(COLOURS) + 1))
    wanted = torch.where(masks, labels[:, None, None] + 1, 0)
    weight = torch.tensor([0.1] + [1.0] * len(COLOURS))
    loss = nn.CrossEntropyLoss(weight)
    train(net, lambda rows: loss(net(x[rows])["out"], wanted[rows]), len(x), seed)

    class Objects(page["Segmented"]):
        """Without the background, which wins most pixels."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, 1:]

    return Objects(net)


def detection(x: Tensor, masks: Tensor, labels: Tensor, seed: int, page: dict) -> nn.Module:
    anchors = AnchorGenerator(((16,),), ((1.0,),))
    net = RetinaNet(Backbone(), len(COLOURS), anchor_generator=anchors)
    nn.init.zeros_(net.head.classification_head.cls_logits.bias)
    cells = SIDE // 4
    box = page["Box"](net, (cells // 2) * cells + cells // 2)  # the anchor in the centre
    loss = nn.CrossEntropyLoss()
    train(box, lambda rows: loss(box(x[rows]), labels[rows]), len(x), seed)
    return box


TASKS = {"segmentation": segmentation, "detection": detection}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    section = PAGE.read_text().split("## Other tasks")[1]
    page: dict = {}
    exec(compile(re.search(r"```python\n(.+?)```", section, re.S)[1], str(PAGE), "exec"), page)
    data = asked.folder / "data"
    x, masks, labels, marked = make_corpus(data, asked.seed)
    for task in asked.tasks:
        began = time.process_time()
        torch.manual_seed(asked.seed)
        module = TASKS[task](x, masks, labels, asked.seed, page)
        with torch.no_grad():
            print(f"{task}: right {(module(x).argmax(1) == labels).float().mean():.3f}")
        model = audit.load_model((module, to_input), classes=list(COLOURS))
        residual = audit.explain(model, x[:4], labels[:4]).residual
        print(f"  largest residual {np.abs(residual).max():.1e}")
        settings = audit.AuditSettings(model=task, data=str(data), seed=asked.seed)
        run = audit.run(settings, asked.folder / task, classifier=model)
        for line in audit.quantify(run, classifier=model).lines:
            told = {
                str(Path(one).relative_to(data)) if Path(one).is_absolute() else one for one in line.verdict.members
            }
            f1 = 2 * len(told & marked) / max(1, len(told) + len(marked)) if line.verdict.name == MARKED else 0.0
            print(f"  {line.name}: {line.verdict.kind.label}, F1 {f1:.2f}, {line.headline}")
        some = [*sorted(marked)[:2], f"{MARKED}/002.png"]
        for one in audit.check_pictures(run, [data / name for name in some], classifier=model):
            print(f"  check: {one}")
        print(f"  {time.process_time() - began:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
