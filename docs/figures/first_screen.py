"""Draws docs/figures/first-audit.png and first-burst.png, the pictures of the README.

The first shows photographs of the suspect cluster of `klarsicht demo --out OUT`, over the pixels that the network
used. The second shows a frame of a burst of eight beside the result of `klarsicht burst denoise`: a photograph of
scikit-image, shifted by fractions of a pixel, with the noise of a sensor at a high gain.

python docs/figures/first_screen.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import shift
from skimage import data

from klarsicht import audit
from klarsicht.burst import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.ground.pictures.colour_maps import overlay

SIDE, GAP, COUNT = 180, 6, 3  # pixels, and photographs
FRAMES, READ, SHOT, WHITE = 8, 0.02, 0.01, 65535  # noise in units of white


def draw_audit(out: Path) -> Image.Image:
    """Draw photographs of the suspect cluster over their overlays."""
    carton = audit.rank(out / "run")[0]
    model = audit.load_model("efficientnet-lite0")
    found = audit.explain(model, [Image.open(path).convert("RGB") for path in carton.members], carton.name)
    first = np.argsort(-found.score)[:COUNT]  # by their evidence for the class
    drawn = Image.new("RGB", (COUNT * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for i, (pixels, relevance) in enumerate(zip(found.inputs[first], found.maps[first], strict=True)):
        for row, one in enumerate((pixels, overlay(pixels, relevance))):
            drawn.paste(Image.fromarray(one).resize((SIDE, SIDE)), (i * (SIDE + GAP), row * (SIDE + GAP)))
    return drawn


def draw_burst() -> Image.Image:
    """Draw the middle of the sharpest frame beside the middle of the result, both under the curve of sRGB."""
    rng = np.random.default_rng(0)
    light = (data.coffee() / 255.0) ** 2.2 * 0.5
    with TemporaryDirectory() as folder:
        frames = Path(folder) / "burst"
        frames.mkdir()
        for i, (dy, dx) in enumerate(rng.uniform(-3, 3, (FRAMES, 2))):
            seen = shift(light, (dy, dx, 0), order=3, mode="nearest").clip(0, 1)
            noisy = seen + rng.normal(size=seen.shape) * np.sqrt(READ**2 + SHOT * seen)
            tifffile.imwrite(
                frames / f"{i}.tif", (noisy.clip(0, 1) * WHITE).round().astype(np.uint16), photometric="rgb"
            )
        for line in denoise([frames], Path(folder) / "clean.tif", DenoiseSettings(linear=True, reference="1")):
            print(line)
        pictures = [tifffile.imread(frames / "0.tif"), tifffile.imread(Path(folder) / "clean.tif")]
    height, width = 2 * SIDE + GAP, (COUNT * (SIDE + GAP) - 2 * GAP) // 2
    top, left = (pictures[0].shape[0] - height) // 2, (pictures[0].shape[1] - width) // 2
    drawn = Image.new("RGB", (2 * width + GAP, height), "white")
    for i, picture in enumerate(pictures):
        part = picture[top : top + height, left : left + width] / WHITE
        drawn.paste(
            Image.fromarray((255 * (2 * part).clip(0, 1) ** (1 / 2.2)).round().astype(np.uint8)), (i * (width + GAP), 0)
        )
    return drawn


if __name__ == "__main__":
    here = Path(__file__).parent
    draw_audit(Path(sys.argv[1])).save(here / "first-audit.png")
    draw_burst().save(here / "first-burst.png")
