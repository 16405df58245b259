"""A MobileNetV2 for moles, and the marks that others found on their pictures: what docs/dermoscopy.md is made with.

    PYTHONPATH=NETWORKS python benchmarks/audit/isic.py ISIC2017 --out moles

ISIC2017 holds *.jpg and labels.csv: path, melanoma (0, 1, or nothing), and of most pictures seven marks. Half of the
pictures, drawn by their names, trains a network that begins with the weights of ImageNet that NETWORKS holds. The other
half is only measured, by isic_interventions.py. MOLES in the environment names the folder of --out.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchvision import transforms

SIDE = 224
EPOCHS, BATCH, RATE = 7, 32, 0.02
KEPT_STAGES = 3  # stem and first stages, which stay those of ImageNet: half of the cost at 224 px
CLASSES = ("benign", "melanoma")
MARKS = ("dark_corner", "hair", "gel_border", "gel_bubble", "ruler", "ink", "patches")
TRANSFORM = transforms.Compose(
    [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
)

Row = dict[str, str]


def read_rows(folder: Path) -> list[Row]:
    """Read the table of pictures, those with a diagnosis."""
    with (folder / "labels.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["melanoma"]]


def split_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """Split rows, by a hash of their names, into the half that trains and the half that is measured."""
    first = [hashlib.sha256(row["path"].encode()).digest()[0] < 128 for row in rows]
    parts = {"train": True, "held": False}
    return {name: [row for row, one in zip(rows, first, strict=True) if one == part] for name, part in parts.items()}


def build() -> nn.Module:
    """Build MobileNetV2 with weights of ImageNet and a new head of two classes."""
    import networks

    net, _ = networks.mobilenet()
    net.reset_classifier(len(CLASSES))
    return net


def network() -> tuple[nn.Module, object]:
    """Return the trained network and its transform, from the folder that MOLES names."""
    net = build()
    net.load_state_dict(torch.load(Path(os.environ.get("MOLES", "moles")) / "network.pt", weights_only=True))
    return net.eval(), TRANSFORM


def read_images(folder: Path, rows: list[Row]) -> Tensor:
    """Read pictures as the network takes them: float (n, 3, SIDE, SIDE)."""
    return torch.stack([TRANSFORM(Image.open(folder / row["path"]).convert("RGB")) for row in rows])


@torch.no_grad()
def melanoma_logits(net: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """Compute the logit of melanoma less that of benign: (n,)."""
    parts = [net(part.contiguous(memory_format=torch.channels_last)) for part in images.split(64)]
    return torch.cat([part[:, 1] - part[:, 0] for part in parts]).numpy()


@torch.no_grad()
def unfold_norms(net: nn.Module, images: Tensor) -> None:
    """Give batch norms that were folded into convolutions the statistics of images, and leave the function as it is.

    A norm that was folded keeps mean 0 and variance 1. In training mode it divides by the batch's own deviation all the
    same, which was never divided out before: the first step sees another network, and nothing is left of ImageNet.
    """
    sums: dict[nn.Module, list[Tensor]] = {}

    def keep(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums.setdefault(norm, []).append(torch.stack([inputs[0].mean((0, 2, 3)), inputs[0].square().mean((0, 2, 3))]))

    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(keep) for norm in norms]
    for part in images.split(BATCH):
        net(part.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean, square = torch.stack(sums[norm]).mean(0)
        variance = square - mean**2
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias += scale * (mean - norm.running_mean)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def turn(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn and mirror each picture of a batch at random."""
    mirrors, turns = rng.integers(2, size=len(images)), rng.integers(4, size=len(images))
    return torch.stack(
        [(x.flip(2) if m else x).rot90(int(k), (1, 2)) for x, m, k in zip(images, mirrors, turns, strict=True)]
    )


def train(folder: Path, out: Path, seed: int) -> None:
    """Train the network by SGD, melanomas weighted as often as moles, and write tables of both halves."""
    torch.manual_seed(seed)
    rng, begun = np.random.default_rng(seed), time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    halves = split_rows(read_rows(folder))
    for name, rows in halves.items():
        with (out / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("path", "label"))
            table.writerows((str((folder / row["path"]).resolve()), CLASSES[int(row["melanoma"])]) for row in rows)
    images = {name: read_images(folder, rows) for name, rows in halves.items()}
    labels = {name: np.array([int(row["melanoma"]) for row in rows]) for name, rows in halves.items()}
    net = build().to(memory_format=torch.channels_last)
    unfold_norms(net, images["train"][:: max(1, len(images["train"]) // 128)])
    kept = nn.ModuleList([net.conv_stem, net.bn1, *net.blocks[:KEPT_STAGES]]).requires_grad_(False)
    steps = len(labels["train"]) // BATCH
    learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, RATE, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps)
    weights = torch.tensor([1 / np.mean(labels["train"] == k) / 2 for k in range(2)], dtype=torch.float32)
    lose = partial(nn.functional.cross_entropy, weight=weights)
    for epoch in range(EPOCHS):
        net.train()
        kept.eval()
        order = rng.permutation(len(labels["train"]))
        for some in order[: steps * BATCH].reshape(-1, BATCH):
            x = turn(images["train"][some], rng).contiguous(memory_format=torch.channels_last)
            loss = lose(net(x), torch.tensor(labels["train"][some]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}, {time.process_time() - begun:.0f} CPU s",
            flush=True,
        )
    net.eval()
    torch.save(net.state_dict(), out / "network.pt")
    areas = {name: roc_auc_score(labels[name], melanoma_logits(net, images[name])) for name in halves}
    spent = time.process_time() - begun
    print(f"AUC of melanoma: {areas['train']:.3f} in training, {areas['held']:.3f} held out; {spent:.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("moles"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.data, given.out, given.seed)


if __name__ == "__main__":
    main()
