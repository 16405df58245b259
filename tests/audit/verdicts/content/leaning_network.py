"""A network that reads textures, one of them wrongly, and a pile of pictures of which a few show that texture."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from klarsicht.audit.explanation.models.classifier import Classifier, load_model

TILE, TILES, THINGS = 8, 6, 16  # pixels on the side of a tile, tiles on the side of a picture, textures of things
PICTURES, CARRIERS = 96, (5, 30, 47, 62, 77, 90)
TOP, LEFT, SQUARE = 3, 1, 2  # tiles of the content that carriers show
CONTENT, WRONG, RIGHT = THINGS, 90.0, 18.0  # its texture, and the weights by which a class reads it and its own
TEXTURES = np.sign(np.random.default_rng(7).standard_normal((THINGS + 1, TILE, TILE, 3))).astype(np.float32)


class Leaning(nn.Module):
    """Features at every tile: how much it is each texture. Classes read one each; "leaf" the content too, wrongly."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, THINGS + 1, TILE, stride=TILE)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(THINGS + 1, 3)
        with torch.no_grad():
            self.features.weight.copy_(torch.from_numpy(TEXTURES.transpose(0, 3, 1, 2)) / (3 * TILE**2))
            self.features.bias.fill_(-0.3)
            self.head.weight.zero_()
            self.head.weight[:, :3] = RIGHT * torch.eye(3)
            self.head.weight[1, CONTENT] = WRONG
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.relu(self.features(x)))))


def transform(image):
    return torch.from_numpy(np.array(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 127.5 - 1)


def leaning() -> Classifier:
    return load_model((Leaning().eval(), transform), classes=["stone", "leaf", "cloud"])


def draw(number: int, carries: bool) -> Image.Image:
    """Tiles of random textures of things; carriers show SQUARE x SQUARE tiles of the content."""
    kinds = np.random.default_rng(number).integers(0, THINGS, (TILES, TILES))
    if carries:
        kinds[TOP : TOP + SQUARE, LEFT : LEFT + SQUARE] = CONTENT
    pixels = TEXTURES[kinds].transpose(0, 2, 1, 3, 4).reshape(TILES * TILE, TILES * TILE, 3)
    return Image.fromarray(np.rint(127.5 * (pixels + 1)).astype(np.uint8))


def write_pile(folder, carriers=CARRIERS):
    """Write the pile as a folder of two classes."""
    for number in range(PICTURES):
        name = ("stone", "cloud")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        draw(number, number in carriers).save(folder / name / f"{number:03d}.png")
