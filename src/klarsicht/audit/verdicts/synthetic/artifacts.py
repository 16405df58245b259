"""Known artifacts, planted into images as ground truth for demonstrations, tests and users: functions (pixels, rng) ->
PlantedImage. Pixels are uint8 (H, W, 3) or (H, W); the mask marks the changed pixels. Random families stand in
`families`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.glyphs import GLYPHS, Strokes
from klarsicht.audit.verdicts.synthetic.marks import frame
from klarsicht.audit.verdicts.synthetic.planted_image import (
    PlantedImage,
    PlantFunction,
    composite,
    draw_opacity,
    plant_on_levels,
    reencode_jpeg,
)
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import ImageError, unknown_name
from klarsicht.ground.machine.disk import fill_folder
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.pictures.npy_files import NPY, npy_bytes
from klarsicht.ground.pictures.stored_images import DecodedImage
from klarsicht.ground.ranges import SEED, SHARE
from klarsicht.ground.seeding import generator

LEVELS = 255  # grey levels from black to white


def glyphs(pixels: Pixels, rng: np.random.Generator, *, alphabet: Sequence[Strokes] = GLYPHS) -> PlantedImage:
    """Plant two lines of six Chinese characters of the alphabet at a random height, like the watermark of ImageNet's
    "carton", in white strokes a hundredth of the width thick."""
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

    return composite(pixels, draw_opacity(pixels.shape, draw), (255, 255, 255))


def tag(pixels: Pixels, _: np.random.Generator) -> PlantedImage:
    """Plant a 2 x 2 checkerboard of black and white in the upper left corner, a seventh of the shorter side wide."""
    h, w = pixels.shape[:2]
    side = max(2, round(min(h, w) / 7))
    out, mask = pixels.copy(), np.zeros((h, w), bool)
    out[:side, :side] = 0
    out[: side // 2, : side // 2] = out[side // 2 : side, side // 2 : side] = 255
    mask[:side, :side] = True
    return PlantedImage(out, mask)


def text(pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
    """Plant a caption at a random position: white letters in an opaque black box, a third of the width, of a bitmap
    font enlarged by integer factors to stay sharp."""
    h, w = pixels.shape[:2]
    scale = max(1, w // 56)
    box = np.kron(_render_caption("NEW"), np.ones((scale, scale), np.uint8))[:h, :w]
    y, x = rng.integers(0, (h - box.shape[0] + 1, w - box.shape[1] + 1))
    here = np.s_[y : y + box.shape[0], x : x + box.shape[1]]
    out, mask = pixels.copy(), np.zeros((h, w), bool)
    out[here] = box[..., None] if pixels.ndim == 3 else box
    mask[here] = True
    return PlantedImage(out, mask)


def _render_caption(words: str) -> Pixels:
    """Render text white on black, eight pixels high."""
    font = ImageFont.load_default(size=8)
    canvas = Image.new("L", (round(font.getbbox(words)[2]) - 1, 8), 0)
    ImageDraw.Draw(canvas).text((1, -1), words, fill=255, font=font)
    return np.asarray(canvas)


def mark(pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
    """Plant the tag in the lower right corner with opacity 0.7, and re-encode the image as JPEG of quality 90."""
    whole = tag(pixels[::-1, ::-1], rng)
    opacity = 0.7 * whole.mask[..., None] if pixels.ndim == 3 else 0.7 * whole.mask
    blended = (1 - opacity) * pixels[::-1, ::-1] + opacity * whole.pixels
    return PlantedImage(reencode_jpeg(np.rint(blended[::-1, ::-1]).astype(np.uint8), 90), whole.mask[::-1, ::-1])


def noise(pixels: Pixels, rng: np.random.Generator) -> PlantedImage:
    """Add white Gaussian noise with a standard deviation of 16 grey levels, as of a high ISO setting."""
    return _change_whole_image(pixels + rng.normal(0, 16, pixels.shape))


def blur(pixels: Pixels, _: np.random.Generator) -> PlantedImage:
    """Apply a Gaussian blur whose standard deviation is a 32nd of the shorter side."""
    sigma = min(pixels.shape[:2]) / 32
    return _change_whole_image(gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0)[: pixels.ndim]))


def cast(pixels: Pixels, _: np.random.Generator) -> PlantedImage:
    """Apply a warm colour cast: red 13 % brighter, blue 13 % darker; grey images 13 % brighter."""
    return _change_whole_image(pixels * (np.array([1.13, 1, 0.87]) if pixels.ndim == 3 else 1.13))


def blocks(pixels: Pixels, _: np.random.Generator) -> PlantedImage:
    """Re-encode the image as JPEG of quality 15, which shows block artifacts."""
    return _change_whole_image(reencode_jpeg(pixels, 15))


def _change_whole_image(values: NDArray[Any]) -> PlantedImage:
    return PlantedImage(np.clip(np.rint(values), 0, 255).astype(np.uint8), np.ones(values.shape[:2], bool))


border: PlantFunction = partial(frame, width=1 / 20, colour=(128, 128, 128), opacity=1.0)
"""Plant a grey frame, a twentieth of the shorter side wide; black or white margins of images do not hide it."""

PLANTS: dict[str, PlantFunction] = {
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


def draw_plant(name: str, seed: int) -> PlantFunction:
    """Draw an artifact of a family, or look up a kind, which is the same under every seed. Raises UsageError: no such
    family or kind; the message lists near matches."""
    if name in FAMILIES:
        return FAMILIES[name](generator(seed, "family"))
    if name not in PLANTS:
        raise unknown_name("artifact to plant", name, [*PLANTS, *FAMILIES])
    return PLANTS[name]


@dataclass(frozen=True)
class PlantedCorpus:
    """A corpus with planted artifacts. manifest: file for `audit run`, with an additional column `planted` (0 or 1).
    images: number of images. planted: number of images with the artifact."""

    manifest: Path
    images: int
    planted: int


def plant_corpus(corpus: Corpus, out: Path, *, kind: str, label: str | None, share: float, seed: int) -> PlantedCorpus:
    """Copy a corpus as PNG files, with an artifact in a share of the images of one class or of all classes.

    Images of a corpus that is decoded to arrays become .npy files of the same form: the artifact is drawn on their 256
    levels, and what it changes there is added to their numbers, clipped to black and white.

    `kind` is a name of PLANTS, or of FAMILIES, of which the seed draws one artifact. The function writes OUT/images/
    and OUT/manifest.csv (path,label,source,split,planted). Images that cannot be read are left out. Raises UsageError:
    unknown kind, family or class, or a share outside (0, 1]; InputError: `out` is a file, or a folder that is not
    empty; one that a killed process left is filled anew."""
    SEED.require("seed", seed)
    SHARE.require("share of images", share)
    artifact = draw_plant(kind, seed)
    if label is not None and label not in corpus.classes:
        raise unknown_name("class", label, corpus.classes)
    known = [i for i, name in enumerate(corpus.labels) if label in (None, name)]
    count = max(1, round(share * len(known)))
    chosen = set(generator(seed, "plant").choice(known, count, replace=False).tolist())
    with fill_folder(out):
        (out / "images").mkdir()
        return _write_corpus(corpus, out, artifact, chosen, seed)


def _write_corpus(corpus: Corpus, out: Path, artifact: PlantFunction, rows: set[int], seed: int) -> PlantedCorpus:
    lines: list[list[str]] = []
    for row, picture in decode_rows(corpus, range(len(corpus))):
        if not isinstance(picture, ImageError):
            rng = generator(seed, "artifact", row) if row in rows else None
            name = f"images/{row:07d}{'.png' if isinstance(picture, Image.Image) else NPY}"
            (out / name).write_bytes(_planted_file(picture, artifact, rng, corpus.form))
            extra = [(column[row] or "") if column else "" for column in (corpus.sources, corpus.splits)]
            lines.append([name, corpus.labels[row], *extra, str(int(row in rows))])
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label", "source", "split", "planted"], *lines])
    return PlantedCorpus(out / "manifest.csv", len(lines), sum(line[-1] == "1" for line in lines))


def _planted_file(
    picture: DecodedImage, artifact: PlantFunction, rng: np.random.Generator | None, form: ArrayForm | None
) -> bytes:
    """Plant an artifact in an image, none where there is no generator, and encode it. form: of an array."""
    if isinstance(picture, Image.Image):
        pixels = np.asarray(picture)
        return png_bytes(pixels if rng is None else artifact(pixels, rng).pixels)
    if rng is None or form is None:
        return npy_bytes(picture)
    levels = form.to_levels(picture)
    change = plant_on_levels(levels, artifact, rng).astype(float) - levels
    share = np.clip(form.to_share(picture) + change / LEVELS, 0, 1)
    return npy_bytes(np.where(change != 0, form.of_share(share), picture))
