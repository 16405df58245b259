"""Plant a known artifact into images, so that demonstrations, tests and users have ground truth.

Every kind is a function (pixels, rng) -> Planted. Pixels are uint8 (H, W, 3) or (H, W); the mask marks what changed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from klarsicht.audit.data.corpus import Corpus, decode_rows
from klarsicht.audit.synthetic.glyphs import GLYPHS, Strokes
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.disk import writing
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.ground.seeding import generator


@dataclass(frozen=True)
class Planted:
    """An image with its artifact.

    Attributes:
        pixels: uint8, the shape of the input.
        mask: bool (H, W), true where the artifact lies.
    """

    pixels: Pixels
    mask: NDArray[np.bool_]


Plant = Callable[[Pixels, np.random.Generator], Planted]


def _paste(pixels: Pixels, opacity: NDArray[np.float32], colour: tuple[int, int, int]) -> Planted:
    """out = (1 - a) x + a c with opacity a (H, W) in [0, 1]."""
    tint = np.asarray(colour, np.float32) if pixels.ndim == 3 else np.float32(np.mean(colour))
    a = opacity[..., None] if pixels.ndim == 3 else opacity
    out = (1 - a) * pixels.astype(np.float32) + a * tint
    return Planted(np.clip(np.rint(out), 0, 255).astype(np.uint8), opacity > 0.02)


def _drawn(
    shape: tuple[int, ...], draw: Callable[[ImageDraw.ImageDraw, int], None], scale: int = 4
) -> NDArray[np.float32]:
    """An opacity mask (H, W) in [0, 1], drawn `scale` times larger and averaged down."""
    h, w = shape[:2]
    canvas = Image.new("L", (w * scale, h * scale), 0)
    draw(ImageDraw.Draw(canvas), scale)
    return np.asarray(canvas.resize((w, h), Image.Resampling.BOX), np.float32) / np.float32(255)


def glyphs(
    pixels: Pixels, rng: np.random.Generator, *, opacity: float = 1.0, alphabet: Sequence[Strokes] = GLYPHS
) -> Planted:
    """Two lines of six drawn Chinese characters at a random height, like the watermark of ImageNet's "carton".

    Characters are drawn at random from the alphabet, in white lines a hundredth of the width thick.
    """
    h, w = pixels.shape[:2]
    size, step = 0.147 * w, 0.161 * w
    top = rng.uniform(0.1, 0.55) * h
    chosen = rng.integers(len(alphabet), size=(2, 6))

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        width = max(1, round(0.0092 * w * scale))
        for (i, j), index in np.ndenumerate(chosen):
            x0, y0 = 0.013 * w + j * step, top + i * step
            for a, b, c, d in alphabet[int(index)]:
                ends = (x0 + a * size, y0 + b * size, x0 + c * size, y0 + d * size)
                canvas.line([v * scale for v in ends], fill=255, width=width)

    return _paste(pixels, opacity * _drawn(pixels.shape, draw), (255, 255, 255))


def tag(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """A square in the upper left corner, a seventh of the side, half black and half white."""
    del rng
    h, w = pixels.shape[:2]
    side = max(2, round(min(h, w) / 7))
    out, mask = pixels.copy(), np.zeros((h, w), bool)
    out[:side, :side] = 0
    out[: side // 2, : side // 2] = out[side // 2 : side, side // 2 : side] = 255
    mask[:side, :side] = True
    return Planted(out, mask)


def text(pixels: Pixels, rng: np.random.Generator, *, words: str = "NEW") -> Planted:
    """A caption: white letters in an opaque black box, a third of the width, wherever it fits.

    The letters are a bitmap of eight pixels, enlarged by whole numbers, so that they are sharp on small pictures too.
    """
    h, w = pixels.shape[:2]
    scale = max(1, w // 56)
    box = np.kron(_caption(words), np.ones((scale, scale), np.uint8))[:h, :w]
    y, x = rng.integers(0, (h - box.shape[0] + 1, w - box.shape[1] + 1))
    here = np.s_[y : y + box.shape[0], x : x + box.shape[1]]
    out, mask = pixels.copy(), np.zeros((h, w), bool)
    out[here] = box[..., None] if pixels.ndim == 3 else box
    mask[here] = True
    return Planted(out, mask)


def _caption(words: str) -> Pixels:
    """White on black, eight pixels high."""
    font = ImageFont.load_default(size=8)
    canvas = Image.new("L", (round(font.getbbox(words)[2]) - 1, 8), 0)
    ImageDraw.Draw(canvas).text((1, -1), words, fill=255, font=font)
    return np.asarray(canvas)


def border(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """A grey frame, a twentieth of the shorter side wide: neither black nor white rims hide it."""
    del rng
    h, w = pixels.shape[:2]
    b = max(1, round(min(h, w) / 20))
    mask = np.ones((h, w), bool)
    mask[b:-b, b:-b] = False
    out = pixels.copy()
    out[mask] = 128
    return Planted(out, mask)


def mark(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """The tag in the lower right corner, blended at .7, and the image re-encoded as JPEG of quality 90."""
    whole = tag(pixels[::-1, ::-1], rng)
    opacity = 0.7 * whole.mask[..., None] if pixels.ndim == 3 else 0.7 * whole.mask
    blended = (1 - opacity) * pixels[::-1, ::-1] + opacity * whole.pixels
    return Planted(_encoded(np.rint(blended[::-1, ::-1]).astype(np.uint8), 90), whole.mask[::-1, ::-1])


def noise(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """White noise of deviation 16, as of a high ISO setting."""
    return _everywhere(pixels + rng.normal(0, 16, pixels.shape))


def blur(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """A Gaussian blur, its deviation a 32nd of the shorter side."""
    del rng
    sigma = min(pixels.shape[:2]) / 32
    return _everywhere(gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0)[: pixels.ndim]))


def cast(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """A warm light: red 13 % brighter, blue 13 % darker; grey images as a whole."""
    del rng
    return _everywhere(pixels * (np.array([1.13, 1, 0.87]) if pixels.ndim == 3 else 1.13))


def blocks(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """JPEG of quality 15."""
    del rng
    return _everywhere(_encoded(pixels, 15))


def _everywhere(values: NDArray[Any]) -> Planted:
    return Planted(np.clip(np.rint(values), 0, 255).astype(np.uint8), np.ones(values.shape[:2], bool))


def _encoded(pixels: Pixels, quality: int) -> Pixels:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


PLANTS: dict[str, Plant] = {
    "tag": tag,
    "text": text,
    "border": border,
    "glyphs": glyphs,
    "mark": mark,
    "noise": noise,
    "blur": blur,
    "cast": cast,
    "blocks": blocks,
}


def plant(kind: str) -> Plant:
    """The plant called `kind`; an unknown name lists the known ones."""
    if kind not in PLANTS:
        raise unknown_name("artifact to plant", kind, PLANTS)
    return PLANTS[kind]


def on_levels(levels: Pixels, kind: str, rng: np.random.Generator) -> Pixels:
    """The artifact on an image (H, W, C) of one channel or three."""
    pixels = levels[..., 0] if levels.shape[-1] == 1 else levels
    return plant(kind)(pixels, rng).pixels.reshape(levels.shape)


@dataclass(frozen=True)
class Truth:
    """What was planted: a manifest for `audit run` with a further column `planted` (0 or 1)."""

    manifest: Path
    images: int
    planted: int


def plant_corpus(corpus: Corpus, out: Path, *, kind: str, label: str | None, share: float, seed: int) -> Truth:
    """Copies a corpus as PNG, with an artifact in a share of its images (of one class, or of all).

    Writes OUT/images/ and OUT/manifest.csv (path,label,source,split,planted). Images that cannot be read are left out.

    Raises:
        UsageError: unknown kind or class, or a share outside (0, 1].
        InputError: `out` is a folder with something in it.
    """
    artifact = plant(kind)
    chosen = _chosen(corpus, label, share, generator(seed, "plant"))
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError("the output folder is not empty", got=out, remedy="Choose another --out.")
    with writing(out):
        (out / "images").mkdir(parents=True, exist_ok=True)
        return _planted(corpus, out, artifact, chosen, seed)


def _planted(corpus: Corpus, out: Path, artifact: Plant, chosen: set[int], seed: int) -> Truth:
    lines: list[list[str]] = []
    for row, picture in decode_rows(corpus, range(len(corpus))):
        if isinstance(picture, Image.Image):
            pixels = np.asarray(picture)
            planted = artifact(pixels, generator(seed, "artifact", row)).pixels if row in chosen else pixels
            name = f"images/{row:07d}.png"
            Image.fromarray(planted).save(out / name)
            extra = [(column[row] or "") if column else "" for column in (corpus.sources, corpus.splits)]
            lines.append([name, corpus.labels[row], *extra, str(int(row in chosen))])
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "source", "split", "planted"], *lines])
    return Truth(out / "manifest.csv", len(lines), sum(line[-1] == "1" for line in lines))


def _chosen(corpus: Corpus, label: str | None, share: float, rng: np.random.Generator) -> set[int]:
    if not 0 < share <= 1:
        raise UsageError("share of images out of range", got=share, rule="above 0, at most 1")
    if label is not None and label not in corpus.classes:
        raise unknown_name("class", label, corpus.classes)
    rows = [i for i, name in enumerate(corpus.labels) if label in (None, name)]
    return set(rng.choice(rows, max(1, round(share * len(rows))), replace=False).tolist())
