"""A network that does nothing wrong, and a corpus where a group of class "b" shares nothing but more of the class."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SIDE = 12


class Honest(nn.Module):
    """Class c by the brightness of channel c."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.last = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(20 * torch.eye(3))

    def forward(self, x):
        return self.head(self.last(torch.relu(self.first(x))).mean((2, 3)))


def network():
    return Honest().eval()


def write_corpus(folder: Path, per_class: int = 60, seed: int = 0) -> list[str]:
    """An ImageFolder of classes a, b, c, half of "b" twice as green; returns names of those."""
    rng, bright = np.random.default_rng(seed), []
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            pixels += rng.integers(0, 40, 3).astype(np.uint8)
            pixels[..., label] += 40 + 100 * (name == "b" and i % 2)
            Image.fromarray(pixels).save(folder / name / f"{name}{i:03d}.png")
            if name == "b" and i % 2:
                bright.append(f"{name}{i:03d}.png")
    return bright
