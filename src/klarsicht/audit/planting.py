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

from klarsicht.audit.corpora import Corpus, decode_rows
from klarsicht.ground.disk import writing
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.ground.seeding import generator

Pixels = NDArray[np.uint8]
Strokes = tuple[tuple[float, float, float, float], ...]


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

# Chinese characters as straight strokes (x0, y0, x1, y1) on the unit square, y down. No font is needed.
CHARACTERS: dict[str, Strokes] = {
    "木": ((0, 0.3, 1, 0.3), (0.5, 0, 0.5, 1), (0.5, 0.3, 0.08, 0.85), (0.5, 0.3, 0.92, 0.85)),
    "王": ((0.05, 0.05, 0.95, 0.05), (0.12, 0.5, 0.88, 0.5), (0, 0.97, 1, 0.97), (0.5, 0.05, 0.5, 0.97)),
    "田": (
        (0.05, 0.05, 0.95, 0.05), (0.05, 0.95, 0.95, 0.95), (0.05, 0.05, 0.05, 0.95),
        (0.95, 0.05, 0.95, 0.95), (0.5, 0.05, 0.5, 0.95), (0.05, 0.5, 0.95, 0.5),
    ),
    "目": (
        (0.15, 0, 0.85, 0), (0.15, 1, 0.85, 1), (0.15, 0, 0.15, 1),
        (0.85, 0, 0.85, 1), (0.15, 0.33, 0.85, 0.33), (0.15, 0.66, 0.85, 0.66),
    ),
    "米": (
        (0, 0.5, 1, 0.5), (0.5, 0, 0.5, 1), (0.5, 0.5, 0.1, 0.95),
        (0.5, 0.5, 0.9, 0.95), (0.2, 0.1, 0.4, 0.4), (0.8, 0.1, 0.6, 0.4),
    ),
    "中": (
        (0.08, 0.2, 0.92, 0.2), (0.08, 0.7, 0.92, 0.7), (0.08, 0.2, 0.08, 0.7),
        (0.92, 0.2, 0.92, 0.7), (0.5, 0, 0.5, 1),
    ),
    "工": ((0.1, 0.05, 0.9, 0.05), (0.5, 0.05, 0.5, 0.95), (0, 0.95, 1, 0.95)),
    "人": ((0.5, 0, 0.05, 1), (0.45, 0.3, 0.95, 1)),
    "手": ((0.2, 0.1, 0.8, 0), (0.05, 0.35, 0.95, 0.35), (0, 0.65, 1, 0.65), (0.5, 0.05, 0.5, 1)),
    "走": (
        (0.15, 0.2, 0.85, 0.2), (0.5, 0, 0.5, 0.45), (0, 0.45, 1, 0.45), (0.5, 0.45, 0.5, 0.8),
        (0.5, 0.65, 0.85, 0.65), (0.3, 0.55, 0.05, 1), (0.2, 0.8, 1, 1),
    ),
    "不": ((0, 0.05, 1, 0.05), (0.5, 0.05, 0.05, 0.7), (0.5, 0.3, 0.5, 1), (0.55, 0.4, 0.95, 0.7)),
    "口": ((0.1, 0.1, 0.9, 0.1), (0.1, 0.9, 0.9, 0.9), (0.1, 0.1, 0.1, 0.9), (0.9, 0.1, 0.9, 0.9)),
}  # fmt: skip


def _into(strokes: Strokes, x0: float, y0: float, x1: float, y1: float) -> Strokes:
    """Strokes of the unit square moved into a box."""
    w, h = x1 - x0, y1 - y0
    return tuple((x0 + w * a, y0 + h * b, x0 + w * c, y0 + h * d) for a, b, c, d in strokes)


def beside(left: str, right: str) -> Strokes:
    return _into(CHARACTERS[left], 0, 0, 0.42, 1) + _into(CHARACTERS[right], 0.52, 0, 1, 1)


def above(top: str, bottom: str) -> Strokes:
    return _into(CHARACTERS[top], 0.1, 0, 0.9, 0.45) + _into(CHARACTERS[bottom], 0, 0.53, 1, 1)


def enclosed(inner: str) -> Strokes:
    frame = ((0, 0, 1, 0), (1, 0, 1, 1), (0, 0, 0, 1), (0, 1, 1, 1))
    return frame + _into(CHARACTERS[inner], 0.2, 0.17, 0.8, 0.84)


GLYPHS: tuple[Strokes, ...] = (
    beside("手", "走"), beside("木", "田"), beside("人", "中"), beside("米", "目"), beside("手", "目"),
    above("田", "木"), above("王", "米"), above("不", "口"), enclosed("王"), enclosed("木"),
)  # fmt: skip


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


def text(pixels: Pixels, rng: np.random.Generator, *, words: str = "SAMPLE") -> Planted:
    """Half-transparent Latin letters at a random height: the usual stock-photograph watermark."""
    h, w = pixels.shape[:2]
    y, x = rng.uniform(0.1, 0.8) * h, rng.uniform(0.02, 0.2) * w

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        font = ImageFont.load_default(size=max(6, round(0.16 * w * scale)))
        canvas.text((x * scale, y * scale), words, fill=255, font=font)

    return _paste(pixels, 0.6 * _drawn(pixels.shape, draw), (255, 255, 255))


def border(pixels: Pixels, rng: np.random.Generator) -> Planted:
    """A black frame, a twentieth of the shorter side wide."""
    del rng
    h, w = pixels.shape[:2]
    b = max(1, round(min(h, w) / 20))
    mask = np.ones((h, w), bool)
    mask[b:-b, b:-b] = False
    out = pixels.copy()
    out[mask] = 0
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
