"""A stand-in for your own folder of photographs: squares cut from the pictures of scikit-image and scikit-learn.

    python examples/photographs.py photographs

Writes one folder a class (brick, coffee, stars, ...), 48 x 48 pixels, no two squares of a class overlap. A third of the
class "coffee" has a white label at the lower right, as a web site prints its name on its pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from sklearn.datasets import load_sample_image

SIDE, MOST, LABELLED = 48, 100, 1 / 3  # pixels, squares of a class, and share of "coffee" that has the label
PICTURES = {
    "brick": data.brick, "cat": data.chelsea, "cells": data.cell, "coffee": data.coffee, "coins": data.coins,
    "eye": data.retina, "field": data.camera, "flower": lambda: load_sample_image("flower.jpg"),
    "grass": data.grass, "gravel": data.gravel, "moon": data.moon, "motorcycle": lambda: data.stereo_motorcycle()[0],
    "portrait": data.astronaut, "rocket": data.rocket, "stars": data.hubble_deep_field,
    "temple": lambda: load_sample_image("china.jpg"), "tissue": data.immunohistochemistry,
}  # fmt: skip


def squares(picture: np.ndarray, rng: np.random.Generator) -> list[Image.Image]:
    """Cut a picture into squares that do not overlap, in random order, without those of one colour."""
    whole = Image.fromarray(picture).convert("RGB")
    corners = [(x, y) for y in range(0, whole.height - SIDE + 1, SIDE) for x in range(0, whole.width - SIDE + 1, SIDE)]
    cut = [whole.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]
    cut = [one for one in cut if np.std(np.asarray(one)) > 4]
    return [cut[i] for i in rng.permutation(len(cut))[:MOST]]


def label(square: Image.Image) -> Image.Image:
    """Print a name on a square, black on white, at the lower right."""
    marked = square.copy()
    pen = ImageDraw.Draw(marked)
    pen.rectangle((SIDE - 27, SIDE - 11, SIDE - 2, SIDE - 2), "white")
    pen.text((SIDE - 14.5, SIDE - 6.5), "pix.io", "black", ImageFont.load_default(9), anchor="mm")
    return marked


def write(out: Path, names: Iterable[str] = PICTURES, seed: int = 0) -> set[str]:
    """Write the folders of these classes, and return the paths of the photographs with the label, relative to it."""
    rng, labelled = np.random.default_rng(seed), set()
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
        cut = squares(PICTURES[name](), rng)
        for i, square in enumerate(cut):
            path = f"{name}/{i:03d}.png"
            if name == "coffee" and i < LABELLED * len(cut):
                square = label(square)
                labelled.add(path)
            square.save(out / path)
    return labelled


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "photographs")
    print(f"{len(write(out))} photographs have a label; all are in {out}")
