"""Verdicts on arrays of 16 bits and on tiles of four channels beside those on 8-bit files of the same images.

    python benchmarks/audit/array_corpora.py IMAGENET32 --seeds 0 1 2

Ten ImageNet classes at 32 px, 250 images each; four of them get an artifact (tag, text, border, noise) in 30 % of their
images, and a small network is trained on the 250. The first 80 images of a class are audited and quantified:

- 8: grey levels, PNG files in class folders
- 16: the same levels as 16-bit codes, level times 257, .npy files: every number is the same share of its range
- 12: grey of 12 bits, 0 to 4095, rounded from colour anew, so that it says what 8 bits do not
- 4: four channels of floats, 0 to 2: red, green, blue, and an infrared channel made of them (vegetation is bright in
  it), with a network of its own; the artifact lies in every channel

Whether an artifact is used is asked of the network: it is where the real one, put on images that were not trained on,
raises its class most of all. IMAGENET32 holds train.tar: an ImageFolder, 500 a class.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from klarsicht import audit
from klarsicht.audit.verdicts.synthetic.artifacts import PLANTS
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.numerics.statistics.logits import centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes

KINDS = ("tag", "text", "border", "noise")
CLASSES, TRAINED, AUDITED, CARRIERS = 10, 250, 80, 0.3
LUMA = np.array([0.299, 0.587, 0.114])
HELD = 50  # images of a class that are not trained on
WHITE_12, WHITE_FLOAT = 4095, 2.0


def fraction(white: float) -> Any:
    return lambda x: torch.from_numpy(np.ascontiguousarray((x / np.float32(white)).transpose(2, 0, 1), np.float32))


FORMS = {
    "16": audit.ArrayTransform(fraction(65535), 1, "uint16"),
    "12": audit.ArrayTransform(fraction(WHITE_12), 1, "uint16", 0, WHITE_12),
    "4": audit.ArrayTransform(fraction(WHITE_FLOAT), 4, "float32", 0, WHITE_FLOAT),
}


def network(channels: int) -> nn.Sequential:
    def block(a: int, b: int, stride: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU()

    layers = (*block(channels, 16, 1), *block(16, 32, 2), *block(32, 64, 2), *block(64, 64, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def trained(x: NDArray[np.uint8], seed: int, epochs: int) -> nn.Module:
    """Train on levels (classes, n, H, W, C)."""
    torch.manual_seed(seed)
    net = network(x.shape[-1])
    inputs = torch.from_numpy(x.reshape(-1, *x.shape[2:]).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    labels = torch.arange(len(x)).repeat_interleave(x.shape[1])
    steps = epochs * len(inputs) // 64
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(inputs) // 64) == 0:
            order = torch.randperm(len(inputs))
        some = order[64 * (step % (len(inputs) // 64)) :][:64]
        batch = inputs[some]
        batch = batch.flip(3) if step % 2 else batch
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(batch), labels[some]).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def used(net: nn.Module, held: NDArray[np.uint8], plants: dict[int, tuple[str, Any]], rng: Any) -> dict[int, bool]:
    """Whether the real artifact raises its class most of all on held-out images (classes, n, H, W, C) of others."""
    found = {}
    for label, (kind, _) in plants.items():
        plain = np.delete(held, label, 0).reshape(-1, *held.shape[2:])
        marked = np.stack([plant_on_levels(one, PLANTS[kind], rng) for one in plain])
        with torch.no_grad():
            before, after = (
                net(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32) / 255)).numpy() for x in (plain, marked)
            )
        rise = (centre_logits(after) - centre_logits(before)).mean(0)
        found[label] = bool(rise[label] == rise.max() and rise[label] >= 0.5)
    return found


def planted(x: NDArray[np.uint8], plants: dict[int, tuple[str, Any]], seed: int) -> NDArray[np.uint8]:
    out = x.copy()
    for label, (kind, rows) in plants.items():
        for row in rows:
            rng = np.random.default_rng((seed, label, row))
            out[label, row] = plant_on_levels(out[label, row], PLANTS[kind], rng)
    return out


def judged(images: NDArray[Any], net: nn.Module, form: str, folder: Path, seed: int) -> Any:
    """The verdicts of an audit of images (classes, n, H, W, C) as files in class folders."""
    for label, stack in enumerate(images):
        (folder / "data" / f"{label:02d}").mkdir(parents=True)
        for i, image in enumerate(stack):
            file = folder / "data" / f"{label:02d}" / f"{i:03d}"
            if form == "8":
                Image.fromarray(image[..., 0]).save(file.with_suffix(".png"))
            else:
                np.save(file.with_suffix(".npy"), image[..., 0] if image.shape[-1] == 1 else image)
    names = [f"{k:02d}" for k in range(len(images))]
    model = audit.load_model((net, FORMS.get(form)), classes=names)
    settings = audit.AuditSettings(model="mine", data=str(folder / "data"), batch=64, unit=4096, seed=seed)
    run = audit.run(settings, folder / "run", classifier=model)
    return audit.quantify(run, classifier=model)


def one(folder: Path, seed: int, epochs: int) -> list[dict[str, Any]]:
    _, colour = planted_classes.classes(folder, CLASSES, seed)
    colour = colour[:, : TRAINED + HELD]
    rng = np.random.default_rng(seed)
    luma = colour @ LUMA  # float, (classes, n, H, W)
    near = np.clip(1.6 * colour[..., 1] - 0.3 * colour[..., 0] - 0.3 * colour[..., 2], 0, 255)
    grey = np.rint(luma)[..., None].astype(np.uint8)
    four = np.concatenate([colour, np.rint(near)[..., None].astype(np.uint8)], -1)
    chosen = rng.permutation(CLASSES)[: len(KINDS)]
    plants = {
        int(label): (kind, np.flatnonzero(rng.random(TRAINED) < CARRIERS))
        for kind, label in zip(KINDS, chosen, strict=True)
    }
    marked = {"grey": planted(grey[:, :TRAINED], plants, seed), "four": planted(four[:, :TRAINED], plants, seed)}
    nets = {name: trained(x, seed, epochs) for name, x in marked.items()}
    uses = {name: used(nets[name], x[:, TRAINED:], plants, rng) for name, x in (("grey", grey), ("four", four))}
    levels = marked["grey"][:, :AUDITED]
    finer = luma[:, :AUDITED, ..., None] + (levels.astype(float) - grey[:, :AUDITED])  # the artifact at 8 bits, on it
    images = {
        "8": levels,
        "16": levels.astype(np.uint16) * 257,
        "12": np.rint(np.clip(finer, 0, 255) * WHITE_12 / 255).astype(np.uint16),
        "4": (marked["four"][:, :AUDITED] / 255 * WHITE_FLOAT).astype(np.float32),
    }
    lines = []
    for form, stack in images.items():
        began = time.process_time()
        with tempfile.TemporaryDirectory() as place:
            found = judged(stack, nets["four" if form == "4" else "grey"], form, Path(place), seed)
        seconds = time.process_time() - began
        for verdict in sorted(found, key=lambda v: v.target):
            kind, rows = plants.get(verdict.target, ("", np.zeros(0, int)))
            inside = set((rows[rows < AUDITED] + AUDITED * verdict.target).tolist())
            both = len(inside & set(verdict.rows))
            lines.append(
                {"seed": seed, "form": form, "class": verdict.target, "kind": kind, "cpu": seconds}
                | {"used": uses["four" if form == "4" else "grey"].get(verdict.target, False)}
                | {"verdict": verdict.verdict, "artifactual": verdict.artifactual, "poisoned": verdict.poisoned}
                | {"sign": verdict.detection.sign, "rows": list(verdict.rows)}
                | {"f1": 2 * both / max(1, len(inside) + len(verdict.rows)), "p": verdict.detection.p_rank}
            )
            print(json.dumps(lines[-1]), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for seed in given.seeds for line in one(given.folder, seed, given.epochs)]
    of_8 = {(li["seed"], li["class"]): li for li in lines if li["form"] == "8"}
    print("form | planted: artifactual | used: poisoned | others: artifactual | F1 | as 8 bits: verdict, images")
    for form in ("8", "16", "12", "4"):
        mine = [li for li in lines if li["form"] == form]
        plants, clean = [li for li in mine if li["kind"]], [li for li in mine if not li["kind"]]
        used_ones = [li for li in plants if li["used"]]
        pairs = [(li, of_8[li["seed"], li["class"]]) for li in mine]
        same = [sum(a[key] == b[key] for a, b in pairs) for key in ("verdict", "rows")]
        f1 = np.median([li["f1"] for li in plants if li["artifactual"]] or [np.nan])
        called = sum(li["artifactual"] for li in plants), sum(li["poisoned"] for li in used_ones)
        print(
            f"{form} | {called[0]} of {len(plants)} | {called[1]} of {len(used_ones)} | "
            f"{sum(li['artifactual'] for li in clean)} of {len(clean)} | {f1:.2f} | "
            f"{same[0]}, {same[1]} of {len(pairs)}"
        )


if __name__ == "__main__":
    main()
