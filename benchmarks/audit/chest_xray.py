"""Somebody else's network for chest X-rays, two halves of its pictures by patient, and interventions of a script's own.

    python benchmarks/audit/chest_xray.py halves CHEST --out halves
    klarsicht audit run --model benchmarks/audit/chest_xray.py:network --data halves/first.csv --out run
    python benchmarks/audit/chest_xray.py interventions halves/second.csv

CHEST holds train|val|test/NORMAL|PNEUMONIA/*.jpeg and the weights, CHEST in the environment the same folder. Pictures
of `val` and `test` stand in `train` as well, so only `train` is read. Interventions use nothing of klarsicht: letters
are found by their brightness near a side and filled from their surroundings, against the same box on the other side; a
picture is shrunk to the size of another class's file before the network's transform, against one of its own
class; its sides are cut by a tenth. Effects are of the logit of PNEUMONIA less NORMAL, intervals by a bootstrap.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import nn
from torchvision import models, transforms

CLASSES = ("NORMAL", "PNEUMONIA")
TRANSFORM = transforms.Compose(
    [
        transforms.Resize((224, 224)), transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)  # fmt: skip
LETTER = 0.1  # of the shorter side: the largest height and width of a letter
RESAMPLES = 2000


def network() -> tuple[nn.Module, object]:
    """Return the network and its transform; the two layers of its head are kept as int8."""
    kept = torch.load(Path(os.environ["CHEST"]) / "mobilenet_model_quantized.pth", weights_only=True)
    net = models.mobilenet_v3_small(weights=None)
    net.classifier = nn.Sequential(nn.Linear(576, 256), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(256, 2))
    state = {key.removeprefix("model."): value for key, value in kept.items() if ".features." in key}
    for layer in (0, 3):
        weight, bias = kept[f"model.classifier.{layer}._packed_params._packed_params"]
        state |= {f"classifier.{layer}.weight": weight.dequantize(), f"classifier.{layer}.bias": bias.detach()}
    net.load_state_dict(state)
    return net.eval(), TRANSFORM


def patient_of(name: str) -> str:
    """Return the patient that a file's name begins with."""
    found = re.match(r"person\d+|(NORMAL\d+-)?IM-\d+", name)
    return found[0] if found else name


def write_halves(folder: Path, out: Path) -> None:
    """Write path, label and patient of two halves of `train`, drawn by patients."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [(str(p.resolve()), p.parent.name, patient_of(p.name)) for p in sorted((folder / "train").rglob("*.jpeg"))]
    for name, place in (("first", 0), ("second", 1)):
        some = [row for row in rows if hashlib.sha256(row[2].encode()).digest()[0] // 128 == place]
        with (out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "source"), *some])
        print(name, {label: sum(row[1] == label for row in some) for label in CLASSES})


@torch.no_grad()
def pneumonia_logits(net: nn.Module, images: list[Image.Image]) -> NDArray[np.float32]:
    """Compute the logit of PNEUMONIA less that of NORMAL: (n,)."""
    x = torch.stack([TRANSFORM(image.convert("RGB")) for image in images])
    return torch.cat([y[:, 1] - y[:, 0] for y in map(net, x.split(32))]).numpy()


def letters_of(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Find bright small things in the outer quarters of a picture: boxes (left, top, right, bottom)."""
    x = np.asarray(image.convert("L"), float)
    side = LETTER * min(x.shape)
    parts, _ = ndimage.label(x > max(215, np.quantile(x, 0.97)))
    for place in ndimage.find_objects(parts):
        top, bottom, left, right = place[0].start, place[0].stop, place[1].start, place[1].stop
        middle = (left + right) / 2 / x.shape[1]
        small = 0.15 * side < bottom - top < side and 0.1 * side < right - left < side
        if small and abs(middle - 0.5) > 0.25 and bottom < 0.6 * x.shape[0]:
            ring = x[max(0, top - 9) : bottom + 9, max(0, left - 9) : right + 9]
            if x[place].max() - np.median(ring) > 60:
                yield left - 6, top - 6, right + 6, bottom + 6


def fill(image: Image.Image, boxes: list[tuple[int, int, int, int]], mirrored: bool) -> Image.Image:
    """Fill boxes, or their mirror images, by the median of what surrounds each."""
    x = np.array(image.convert("L"))
    for left, top, right, bottom in boxes:
        a, b = (x.shape[1] - right, x.shape[1] - left) if mirrored else (left, right)
        a, top = max(0, a), max(0, top)
        x[top:bottom, a:b] = np.median(x[max(0, top - 9) : bottom + 9, max(0, a - 9) : b + 9])
    return Image.fromarray(x)


def resize(images: list[Image.Image], sizes: list[tuple[int, int]], rng: np.random.Generator) -> list[Image.Image]:
    """Resize each picture to a drawn size (width, height)."""
    drawn = rng.integers(len(sizes), size=len(images))
    return [image.resize(sizes[k], Image.Resampling.BICUBIC) for image, k in zip(images, drawn, strict=True)]


def mean_of(values: NDArray[np.floating], rng: np.random.Generator) -> str:
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def intervene(table: Path, seed: int) -> None:
    """Print what each change does to the logit of PNEUMONIA, in pictures of either class."""
    rng, (net, _) = np.random.default_rng(seed), network()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = {
        label: [Image.open(row["path"]).convert("L") for row in rows if row["label"] == label] for label in CLASSES
    }
    sizes = {label: [image.size for image in some] for label, some in images.items()}
    for label, other in zip(CLASSES, CLASSES[::-1], strict=True):
        some = images[label]
        plain = pneumonia_logits(net, some)
        right = np.mean((plain > 0) == (label == "PNEUMONIA"))
        print(f"\n{label}: {len(some)} pictures, {right:.1%} predicted as labelled, logit {plain.mean():+.2f}")
        boxes = [list(letters_of(image)) for image in some]
        lettered = [i for i, found in enumerate(boxes) if found]
        erased, control = (
            pneumonia_logits(net, [fill(some[i], boxes[i], mirrored) for i in lettered]) for mirrored in (False, True)
        )
        print(
            f"  letters filled, less the same box on the other side ({len(lettered)}): {mean_of(erased - control, rng)}"
        )

        here, there = (pneumonia_logits(net, resize(some, sizes[kind], rng)) for kind in (label, other))
        print(f"  resized to files of {other}, less to files of {label}: {mean_of(there - here, rng)}")
        for name, cut in (("sides", (0.1, 0, 0.9, 1)), ("top and bottom", (0, 0.1, 1, 0.9))):
            cropped = [i.crop(tuple(int(f * s) for f, s in zip(cut, i.size * 2, strict=True))) for i in some]
            print(f"  a tenth of {name} cut: {mean_of(pneumonia_logits(net, cropped) - plain, rng)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("halves", "interventions"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("halves"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.part == "halves":
        write_halves(given.data, given.out)
    else:
        intervene(given.data, given.seed)


if __name__ == "__main__":
    main()
