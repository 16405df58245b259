"""Draws docs/figures/dermoscopy.png: a drawn mole as it is, and with the marks that dermoscopy pictures carry.

    python docs/figures/dermoscopy.py

No picture of a patient is in it: skin, mole, patches, ink, ruler and dark corners are drawn here, by shapes and noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE, GAP, LINE = 224, 8, 20
Pen = ImageDraw.ImageDraw


def draw_mole(seed: int) -> Image.Image:
    """Draw skin with a mole of two browns and an uneven border."""
    rng = np.random.default_rng(seed)

    def clouds(scale: int) -> NDArray[np.float64]:
        small = Image.fromarray(rng.normal(size=(SIDE // scale + 2,) * 2).astype(np.float32))
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)

    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    inside = 1 / (1 + np.exp((np.hypot(x, 1.2 * y) - 0.17 - 0.025 * clouds(28)) / 0.012))
    skin = np.array([222, 178, 152]) + 5 * clouds(40)[..., None] + 4 * clouds(4)[..., None]
    brown = np.array([112, 66, 48]) + (16 * clouds(20) + 8 * clouds(6))[..., None]
    return Image.fromarray(np.clip(skin + inside[..., None] * (brown - skin), 0, 255).astype(np.uint8))


def patch(colour: tuple[int, int, int]) -> Callable[[Pen], None]:
    return lambda pen: pen.ellipse((150, 40, 262, 190), colour)


def ink(pen: Pen) -> None:
    pen.line([(24, 60), (40, 50), (58, 38), (80, 30)], (88, 62, 140), 9)
    pen.line([(150, 200), (176, 190), (198, 172)], (88, 62, 140), 9)


def ruler(pen: Pen) -> None:
    pen.line((20, 200, 204, 200), (40, 36, 36), 2)
    for k in range(24):
        pen.line((20 + 8 * k, 200, 20 + 8 * k, 190 if k % 5 else 182), (40, 36, 36), 2)


def corners(image: Image.Image) -> Image.Image:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    shade = np.clip((0.56 - np.hypot(x, y)) / 0.05, 0.03, 1)[..., None]
    return Image.fromarray((np.asarray(image) * shade).astype(np.uint8))


def drawn(seed: int) -> dict[str, Image.Image]:
    """Draw the mole as it is and with every mark, by name."""
    mole, shown = draw_mole(seed), {}
    shown["a drawn mole"] = mole
    marks = {"blue patch": patch((20, 110, 200)), "orange patch": patch((244, 128, 30)), "ink": ink, "ruler": ruler}
    for name, mark in marks.items():
        mask = Image.new("RGB", mole.size)
        copy = mole.copy()
        mark(ImageDraw.Draw(copy))
        mark(ImageDraw.Draw(mask))
        alpha = mask.convert("L").point(lambda v: 255 * (v > 0)).filter(ImageFilter.GaussianBlur(1))
        shown[name] = Image.composite(copy, mole, alpha)
    shown["dark corners"] = corners(mole)
    return shown


def figure(seed: int) -> Image.Image:
    shown, half = drawn(seed), SIDE // 2
    canvas = Image.new("RGB", (len(shown) * (half + GAP) + GAP, half + LINE + 2 * GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, (name, image) in enumerate(shown.items()):
        x = GAP + column * (half + GAP)
        canvas.paste(image.resize((half, half), Image.Resampling.LANCZOS), (x, GAP))
        pen.text((x + half / 2, GAP + half + 0.6 * LINE), name, "black", font, anchor="mm")
    return canvas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    given = parser.parse_args()
    figure(given.seed).save(given.out)
