"""Draws docs/figures/squares.png: exceptions of drawn squares, their own places and composites, found by the code.

    python docs/figures/squares.py

The set is the symmetric one of `benchmarks/audit/majority_sets.py`, seed 0: 800 images, 98 % of both classes on their
own surroundings. Own places are found by `find_own_places` (30 CPU seconds); nobody says where they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from klarsicht.audit.verdicts.own_places.composites import Pairs, lay_on_others
from klarsicht.audit.verdicts.own_places.own_places import find_own_places

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "audit"))
from majority_sets import draw_groups

SHARES, SEED = (0.49, 0.01, 0.01, 0.49), 0
COLUMNS, SCALE, NAMES, HEAD, GAP = 4, 2, 150, 24, 8  # images of a group, enlargement, pixels of names, titles and gaps


def dim(images: NDArray[np.uint8], own: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Show all but the own places (n, H, W) of images in pale blue."""
    pale = (0.15 * images + 0.85 * np.array([214, 226, 240])).astype(np.uint8)
    return np.where(own[..., None], images, pale)


def figure() -> Image.Image:
    drawn = draw_groups(800, SHARES, False, np.random.default_rng(SEED))
    found = find_own_places(drawn.images, drawn.labels, SEED)
    odd = found.exceptional
    dark, light = ([np.flatnonzero((drawn.labels == k) & (odd == one)) for one in (False, True)] for k in (0, 1))
    rows = [np.concatenate([one[:COLUMNS] for one in pair]) for pair in zip(dark, light, strict=True)]
    usual, exceptions = rows
    pairs = Pairs(usual, usual[::-1].copy())
    shown = {
        "of 98 %": drawn.images[usual],
        "exceptions": drawn.images[exceptions],
        "their own places": dim(drawn.images[exceptions], found.own[exceptions]),
        "composites": lay_on_others(drawn.images, found.own, pairs, np.random.default_rng(SEED)),
    }
    side = SCALE * drawn.images.shape[1]
    width = NAMES + 2 * COLUMNS * (side + GAP) + GAP
    canvas = Image.new("RGB", (width, HEAD + len(shown) * (side + GAP)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for half, name in enumerate(("dark", "light")):
        middle = NAMES + half * (COLUMNS * (side + GAP) + GAP) + COLUMNS * (side + GAP) / 2
        pen.text((middle, HEAD / 2), name, "black", font, anchor="mm")
    for row, (name, images) in enumerate(shown.items()):
        y = HEAD + row * (side + GAP)
        pen.text((4, y + side / 2), name, "black", font, anchor="lm")
        for column, image in enumerate(images):
            x = NAMES + column * (side + GAP) + GAP * (column >= COLUMNS)
            canvas.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (x, y))
    return canvas


if __name__ == "__main__":
    figure().quantize(96).save(Path(__file__).with_suffix(".png"), optimize=True)  # noise, in few colours
