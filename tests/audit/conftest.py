"""A tiny audit with ground truth: ten-pixel pictures, a network that reads a mark, labels that go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.models.classifier import Classifier, load_model

SIDE = 12


class Marked(nn.Module):
    """Three classes by the brightness of three channels; class "b" also, wrongly, by a bright corner."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.first.weight.zero_()
            for c in range(3):
                self.first.weight[c, c, 1, 1] = 1
            self.first.weight[3, :, 1, 1] = torch.tensor([1.0, 1.0, 1.0])  # white only: the mark
            self.last.weight.copy_(torch.eye(4)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 9.0], [0, 0, 1.0, 0]]))
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.last(self.relu(self.first(x)))
        return self.head(self.flatten(self.pool(h)))


def network() -> nn.Module:
    return Marked().eval()


def picture(label: int, marked: bool, rng: np.random.Generator) -> Image.Image:
    pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    pixels[..., label] += 100
    if marked:
        pixels[:4, :4] = 255
    return Image.fromarray(pixels)


def write_corpus(folder: Path, per_class: int = 60, share: float = 0.2, seed: int = 0) -> set[str]:
    """An ImageFolder of classes a, b, c; names of the marked images of class b."""
    rng = np.random.default_rng(seed)
    marked = set()
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            has_mark = name == "b" and i < share * per_class
            picture(label, has_mark, rng).save(folder / name / f"{i:03d}.png")
            if has_mark:
                marked.add(f"b/{i:03d}.png")
    return marked


@pytest.fixture
def classifier() -> Classifier:
    return load_model(network(), classes=["a", "b", "c"])
