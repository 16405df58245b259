"""Images with a planted artifact, and operations that artifacts share: blending, drawing, text, places. Sizes are
shares of the image's shorter side, colours RGB levels; on a grey image a colour counts by its mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from klarsicht.ground.arrays import Floats, Pixels

Colour = tuple[int, int, int]
FONT_SIZE = 64  # pixels, at which text is rendered before it is scaled
FIXED = 0.5  # share of the draws of a position that are the same in every image
IN_CORNER = 0.6  # share of the fixed positions that are a corner
CORNER_MARGIN = 0.06  # of the room that is left, at most
VISIBLE = 80  # grey levels, least difference of two colours that belong together


@dataclass(frozen=True)
class PlantedImage:
    """An image with a planted artifact. pixels: uint8, the shape of the input. mask: bool (H, W), true on the
    artifact."""

    pixels: Pixels
    mask: NDArray[np.bool_]


PlantFunction = Callable[[Pixels, np.random.Generator], PlantedImage]


def plant_on_levels(levels: Pixels, artifact: PlantFunction, rng: np.random.Generator) -> Pixels:
    """Plant an artifact in an image uint8 (H, W, C): one channel is a grey image, three are RGB, any other number as
    many grey images, with the same draws: at one place, with one text, in the grey of its colour."""
    if levels.shape[-1] == 3:
        return artifact(levels, rng).pixels
    before = rng.bit_generator.state
    planes = []
    for plane in np.moveaxis(levels, -1, 0):
        rng.bit_generator.state = before
        planes.append(artifact(np.ascontiguousarray(plane), rng).pixels)
    return np.stack(planes, -1)


def round_to_levels(values: Floats) -> Pixels:
    """Round values to levels 0 to 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def mark_changes(pixels: Pixels, values: NDArray[Any]) -> PlantedImage:
    """Round new values to levels; the mask is true exactly where a channel differs from the input."""
    out = values if values.dtype == np.uint8 else round_to_levels(values)
    changed = out != pixels
    return PlantedImage(out, changed.any(2) if pixels.ndim == 3 else changed)


def composite(pixels: Pixels, opacity: Floats, colour: Colour) -> PlantedImage:
    """Blend a colour c into an image x: (1 - a) x + a c with opacity a (H, W) in [0, 1]."""
    a = over_channels(opacity, pixels)
    return mark_changes(pixels, (1 - a) * pixels.astype(np.float32) + a * channels(colour, pixels))


def add_light(pixels: Pixels, light: Floats, colour: Colour) -> PlantedImage:
    """Add light (H, W) in [0, 1] of a colour as on a screen: 255 - (255 - x)(1 - light c / 255)."""
    factor = 1 - over_channels(light, pixels) * channels(colour, pixels) / 255
    return mark_changes(pixels, 255 - (255 - pixels.astype(np.float32)) * factor)


def channels(colour: Colour, pixels: Pixels) -> Floats:
    """Convert a colour to the channels of an image: float (3,), or its mean for a grey image."""
    return np.asarray(colour, np.float32) if pixels.ndim == 3 else np.asarray(np.mean(colour), np.float32)


def over_channels(plane: Floats, pixels: Pixels) -> Floats:
    """Give a plane (H, W) the axes of an image."""
    return plane[..., None] if pixels.ndim == 3 else plane


def shorter_side(pixels: Pixels) -> int:
    h, w = pixels.shape[:2]
    return int(min(h, w))


def grid(pixels: Pixels) -> tuple[Floats, Floats]:
    """Rows (H, 1) and columns (1, W) of the pixels' centres, from the upper left corner of the image."""
    h, w = pixels.shape[:2]
    return np.arange(h, dtype=np.float32)[:, None] + 0.5, np.arange(w, dtype=np.float32)[None, :] + 0.5


def draw_opacity(shape: tuple[int, ...], draw: Callable[[ImageDraw.ImageDraw, int], None], scale: int = 4) -> Floats:
    """Draw an antialiased opacity (H, W) in [0, 1]: at `scale` times the size, then averaged down."""
    h, w = shape[:2]
    canvas = Image.new("L", (w * scale, h * scale), 0)
    draw(ImageDraw.Draw(canvas), scale)
    return np.asarray(canvas.resize((w, h), Image.Resampling.BOX), np.float32) / np.float32(255)


def render_text(words: str, height: float, most: float) -> Floats:
    """Render text as an opacity (h, w) in [0, 1], of a height in pixels, or of the width `most` if that is less."""
    font = ImageFont.load_default(size=FONT_SIZE)
    left, top, right, bottom = font.getbbox(words)
    canvas = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)), 0)
    ImageDraw.Draw(canvas).text((-left, -top), words, fill=255, font=font)
    scale = min(height / canvas.height, most / canvas.width)
    size = (max(1, round(scale * canvas.width)), max(1, round(scale * canvas.height)))
    return np.asarray(canvas.resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)


def reencode_jpeg(pixels: Pixels, quality: int, subsampling: int = -1) -> Pixels:
    """Encode an image as JPEG and decode it; subsampling as Pillow numbers it, -1 for its default."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


def random_colour(rng: np.random.Generator) -> Colour:
    r, g, b = rng.integers(0, 256, 3).tolist()
    return r, g, b


def colour_pair(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Draw two colours whose means differ by VISIBLE levels at least."""
    while True:
        a, b = random_colour(rng), random_colour(rng)
        if abs(sum(a) - sum(b)) > 3 * VISIBLE:
            return a, b


@dataclass(frozen=True)
class Position:
    """Position of an object within the margin that its size leaves. y, x: shares of the margin, in [0, 1]. moves: drawn
    anew for every image instead."""

    y: float
    x: float
    moves: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Draw a position: of the fixed ones, IN_CORNER lie in a corner."""
        y, x = rng.uniform(0, 1, 2)
        if rng.random() < IN_CORNER:
            margin = rng.uniform(0, CORNER_MARGIN)
            y, x = (abs(round(v) - margin) for v in (y, x))
        return cls(float(y), float(x), bool(rng.random() >= FIXED))

    def corner(self, shape: tuple[int, ...], size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
        """Return the upper left pixel of an object of a size (h, w) in an image of a shape (H, W, ...)."""
        y, x = rng.uniform(0, 1, 2) if self.moves else (self.y, self.x)
        return round(y * max(shape[0] - size[0], 0)), round(x * max(shape[1] - size[1], 0))


def place(layer: Floats, shape: tuple[int, ...], corner: tuple[int, int]) -> Floats:
    """Lay an object's opacity (h, w) on an empty image (H, W), cut where it does not fit."""
    out = np.zeros(shape[:2], np.float32)
    here = out[corner[0] : corner[0] + layer.shape[0], corner[1] : corner[1] + layer.shape[1]]
    here[...] = layer[: here.shape[0], : here.shape[1]]
    return out
