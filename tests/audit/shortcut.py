"""A network whose shortcut is known in closed form, and samples with it: for tests of corrections."""

import numpy as np
import torch
from torch import nn

from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.audit.verdicts.interventions.overlay import Overlay

TARGET = 0
FACTS = {"model": "object", "code": {}, "identity": {}, "settings": CleanSettings().model_dump(mode="json")}
"""What every record of a correction says."""


class Shortcut(nn.Module):
    """Class c by channel c; class 0 also, wrongly, by channel 3: the mark, a bright square in the corner."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for layer in (self.body, self.last):
                layer.weight.copy_(torch.eye(4)[:, :, None, None])
                layer.bias.zero_()
            self.head.weight.copy_(torch.tensor([[4.0, 0, 0, 8], [0, 4.0, 0, 0], [0, 0, 4.0, 0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.last(self.body(x)).mean((2, 3)))


def classifier():
    return load_model(
        (Shortcut().eval(), lambda image: image if isinstance(image, torch.Tensor) else torch.zeros(4, 8, 8))
    )


def place(side=4):
    opacity, colour = np.zeros((1, side, side), np.float32), np.zeros((1, 4, side, side), np.float32)
    opacity[0, :2, :2] = 1
    colour[0, 3] = 4
    return Overlay(opacity, colour)


def sample(n=120, seed=0, side=4, members=0.3):
    """n images of three classes; some of class 0 carry the mark."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    member = (labels == 0) & (rng.random(n) < members)
    x = rng.random((n, 4, side, side)).astype(np.float32)
    x[:, 3] *= 0.2
    x[np.arange(n), labels] += 0.6 + 0.4 * rng.random((n, side, side)).astype(np.float32)
    images = [torch.from_numpy(image) for image in x]
    images = [put_on(image, place(side), rng) if m else image for image, m in zip(images, member, strict=True)]
    return Sample(images, member, np.arange(n) + 10_000 * seed, labels)
