"""Draws docs/figures/brain-mri.png: a drawn head as it is, and as `audit shortcuts` changes a picture.

    python docs/figures/brain_mri.py

No picture of a patient is in it: skull, brain and a bright spot are drawn here, by shapes and noise. The changes are
those of the audit itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from klarsicht.audit.verdicts.interventions.framings import FRAMINGS
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, PartImages

SIDE, GAP, LINE = 150, 8, 20
Levels = NDArray[np.uint8]


def draw_head(seed: int, spot: bool, brightness: float, ground: float) -> Levels:
    """Draw a head of a skull, a folded brain and a spot, uint8 (1, SIDE, SIDE, 3). ground: grey level beside it."""
    rng = np.random.default_rng(seed)

    def clouds(scale: int) -> NDArray[np.float64]:
        small = Image.fromarray(rng.normal(size=(SIDE // scale + 2,) * 2).astype(np.float32))
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)

    def inside(radius: float, x0: float = 0.0, y0: float = 0.0) -> NDArray[np.float64]:
        return 1 / (1 + np.exp((np.hypot((x - x0) * 1.2, y - y0) - radius) / 0.008))

    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    grey = ground + 170 * brightness * (inside(0.43) - inside(0.39))
    grey += inside(0.38) * (105 * brightness + 24 * np.tanh(2 * clouds(9)) + 10 * clouds(5))
    if spot:
        grey += inside(0.08, 0.12, -0.08) * 75
    return np.repeat(np.clip(grey + 3 * clouds(2), 0, 255).astype(np.uint8)[None, ..., None], 3, 3)


def changed(seed: int) -> dict[str, Levels]:
    """Change a head by parts of another one and by framings; each by its name."""
    head, other = draw_head(seed, True, 1.0, 2), draw_head(seed + 1, False, 1.5, 40)
    own, donor = PartImages(head), PartImages(other)
    return {
        "a drawn head": head,
        "another class": other,
        "its grey levels": IMAGE_PARTS["colours"].exchange(own, donor),
        "its border": IMAGE_PARTS["border"].exchange(own, donor),
        "enlarged": FRAMINGS["enlarged"].change(head)[0],
        "stretched in height": FRAMINGS["stretched in height"].change(head)[0],
        "shifted left": FRAMINGS["shifted left"].change(head)[0],
    }


def figure(seed: int) -> Image.Image:
    shown = changed(seed)
    canvas = Image.new("RGB", (len(shown) * (SIDE + GAP) + GAP, SIDE + LINE + 2 * GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, (name, image) in enumerate(shown.items()):
        left = GAP + column * (SIDE + GAP)
        canvas.paste(Image.fromarray(image[0]), (left, GAP))
        pen.text((left + SIDE / 2, GAP + SIDE + 0.6 * LINE), name, "black", font, anchor="mm")
    return canvas


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("brain-mri.png"))
    given = parser.parse_args()
    figure(given.seed).save(given.out, optimize=True)
