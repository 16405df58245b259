"""Squares on surroundings that tell nearly the whole of two classes: what the audit names, and what cleaning gains.

    python benchmarks/audit/squares.py --kind symmetric --seeds 100 101 --folder squares

Own drawing after the published description of "Squares": a red square in a grey frame, dark or bright by the class, on
dark or bright surroundings; 800 images to train on, 64 px, and 1,600 of four equal groups to test on. A ResNet-18 from
nothing is trained by AdamW for 20 epochs, audited (`audit run`, `audit shortcuts`) and cleaned (`audit clean --part
surroundings`), with no label of a group. A row is written for each seed: exceptions that are named, and the mean over
groups and the worst group of the test images before and after.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import models, transforms

from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.surroundings_correction import clean_surroundings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import read_surroundings
from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency
from klarsicht.ground.seeding import generator, integer

SIDE, INNER, FRAME, NOISE = 64, 8, 2, 20.0
GROUPS = {"symmetric": (0.49, 0.01, 0.01, 0.49), "asymmetric": (0.25, 0.25, 0.49, 0.01), "balanced": (0.25,) * 4}
NAMES = ("dark", "light")
EPOCHS, BATCH, RATE, DECAY = 20, 32, 1e-3, 1e-2
CLEANING = CleanSettings(batch=32, rate=5e-4, steps=200)
TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])


def draw_group(n: int, label: int, background: int, rng: np.random.Generator) -> np.ndarray:
    """Draw images of one group, uint8 (n, SIDE, SIDE, 3)."""

    def grey(bright: int) -> np.ndarray:
        return rng.integers(128, 256, n) if bright else rng.integers(0, 128, n)

    inner, around, outer = grey(label), grey(background), INNER + 2 * FRAME
    images = np.broadcast_to(around[:, None, None, None], (n, SIDE, SIDE, 3)).astype(np.float32).copy()
    for image, level in zip(images, inner, strict=True):
        top, left = rng.integers(0, SIDE - outer, 2)
        image[top : top + outer, left : left + outer] = 127
        image[top + FRAME : top + FRAME + INNER, left + FRAME : left + FRAME + INNER] = (level, 0, 0)
    return np.clip(images + rng.normal(0, NOISE, images.shape), 0, 255).astype(np.uint8)


def draw_set(n: int, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw images of all groups with their labels and backgrounds, int (n,), in random order."""
    counts = [round(n * share) for share in GROUPS[kind]]
    drawn = [draw_group(count, group // 2, group % 2, rng) for group, count in enumerate(counts)]
    group = np.repeat(np.arange(4), counts)
    order = rng.permutation(len(group))
    return np.concatenate(drawn)[order], group[order] // 2, group[order] % 2


def as_inputs(images: np.ndarray) -> torch.Tensor:
    """Convert images to model inputs."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(images: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    """Train a ResNet-18 from nothing."""
    torch.manual_seed(integer(seed, "squares network"))
    net, rng = models.resnet18(num_classes=2), generator(seed, "squares batches")
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    x, y = as_inputs(images), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def group_accuracies(net: nn.Module, images: np.ndarray, labels: np.ndarray, backgrounds: np.ndarray) -> list[float]:
    """Compute the share that is right of each group."""
    says = np.concatenate([net(part).argmax(1).numpy() for part in as_inputs(images).split(64)])
    return [float((says == labels)[2 * labels + backgrounds == group].mean()) for group in range(4)]


def write_folder(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images into a folder for each class."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / NAMES[label] / f"{i:04d}.png")


def measure(folder: Path, kind: str, seed: int) -> dict[str, object]:
    """Train, audit and clean one network."""
    rng, place = generator(seed, f"squares {kind}"), folder / f"{kind}-{seed}"
    (images, labels, backgrounds), test = draw_set(800, kind, rng), draw_set(1600, "balanced", rng)
    write_folder(place / "data", images, labels)
    net = train(images, labels, seed)
    classifier = load_model((net, TRANSFORM), classes=NAMES)
    settings = AuditSettings(model="object", data=str(place / "data"), batch=32, seed=seed)
    pipeline.run(settings, place / "run", classifier=classifier, accept_labels=True)
    begun = time.process_time()
    measure_sufficiency(place / "run", classifier=classifier)
    found, asked = read_surroundings(place / "run"), time.process_time() - begun
    wrong_side = backgrounds != labels if kind == "symmetric" else backgrounds == labels
    exceptional = {f"{NAMES[labels[i]]}/{i:04d}.png" for i in np.flatnonzero(wrong_side)}
    named = {one.path for one in found.exceptions}
    before = group_accuracies(net, *test)
    result = clean_surroundings(place / "run", CLEANING, classifier=classifier)
    correction, _ = load_correction(result.folder)
    with correction.applied(net):
        after = group_accuracies(net, *test)
    return {
        "kind": kind, "seed": seed, "p": found.p, "separate": found.separate, "relies": len(found.relied_on),
        "exceptions": len(exceptional), "named": len(exceptional & named), "others named": len(named - exceptional),
        "before": before, "after": after, "CPU s of shortcuts": asked,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(GROUPS), default="symmetric")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("squares"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in given.seeds:
        row = measure(given.folder, given.kind, seed)
        with (given.folder / "rows.jsonl").open("a") as out:
            out.write(json.dumps(row) + "\n")
        before, after = row["before"], row["after"]
        print(json.dumps(row), flush=True)
        print(
            f"{given.kind}, seed {seed}: average {np.mean(before):.3f} -> {np.mean(after):.3f}, worst group "
            f"{min(before):.3f} -> {min(after):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
