"""Fashion-MNIST for the benchmarks: 70,000 real pictures (MIT licence), a 4 x 4 tag on some, and a small network."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def pictures(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 (N, 28, 28) and labels (N,) of `train` or `t10k`."""
    try:
        with (
            gzip.open(FOLDER / f"{part}-images-idx3-ubyte.gz") as images,
            gzip.open(FOLDER / f"{part}-labels-idx1-ubyte.gz") as labels,
        ):
            x = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28).copy()
            return x, np.frombuffer(labels.read(), np.uint8, offset=8).astype(np.int64)
    except FileNotFoundError:
        sys.exit(
            "Fashion-MNIST is not here: apt-get install dataset-fashion-mnist (Debian), or put its four files into "
            + str(FOLDER)
        )


def tagged(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A white 4 x 4 square in the upper left corner, one pixel from the edges."""
    out = x.copy()
    out[..., 1:5, 1:5] = 255
    return out


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(576, 10),
    )  # fmt: skip


def trained(x: NDArray[np.uint8], y: NDArray[np.int64], seed: int, epochs: int = 3) -> nn.Module:
    net = network(seed)
    data, labels = torch.from_numpy(x)[:, None].float() / 255, torch.from_numpy(y)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (len(x) // 128))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        shuffled = torch.randperm(len(x), generator=order)
        for batch in shuffled[: len(x) // 128 * 128].view(-1, 128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(data[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def answers(net: nn.Module, x: NDArray[np.uint8]) -> NDArray[np.int64]:
    with torch.no_grad():
        chunks = torch.from_numpy(x)[:, None].float().div(255).split(1000)
        return torch.cat([net(chunk).argmax(1) for chunk in chunks]).numpy()


def write(folder: Path, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
    """An ImageFolder; file names are row numbers."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, (picture, label) in enumerate(zip(x, y, strict=True)):
        Image.fromarray(picture).save(folder / CLASSES[label] / f"{i:05d}.png")
