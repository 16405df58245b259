"""Pictures of single images of a run, drawn when a browser asks for them, with a cache of bounded size.

Only decoded images are handed on, encoded again: a file of the corpus that is no image is not shown, whatever it is.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from klarsicht.ground.arrays import Bools, Floats, Pixels
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.pictures.colour_maps import diverging_colours, overlay
from klarsicht.ground.pictures.encoded_pictures import thumbnail
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.pictures.stored_images import make_image

CACHE_BYTES = 48 << 20  # of encoded pictures
DECODERS = 2  # images that are decoded at once
SHOWN_MEGAPIXELS = 40.0  # largest image that is decoded: two at once take 240 MB
PADDED, LEAST_PIXELS = 2.0, 1 << 20  # pixels with padding, of those without, and pixels to which nothing is reduced
WINDOW_COLOUR, DARKENED = (0, 190, 90), 0.35  # and what remains of the light of pixels beyond a mask
Window = tuple[float, float, float, float]
"""Top, left, height and width of a detected window, in shares of what the model sees."""


class PictureCache:
    """Cache of encoded pictures: those used least recently leave where all take more than `most` bytes."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self.most, self.size = most, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Semaphore(DECODERS)

    def get_or_draw(self, name: Hashable, draw: Callable[[], bytes]) -> bytes:
        """Return the picture of this name; draw it where it is not cached, a few at once."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        with self._decoding:
            content = draw()
        with self._lock:
            if name not in self._kept and len(content) <= self.most:
                self._kept[name] = content
                self.size += len(content)
            while self.size > self.most:
                _, left = self._kept.popitem(last=False)
                self.size -= len(left)
        return content


def read_picture(
    stored: Any, name: str, megapixels: float, white_level: int | None, form: ArrayForm | None = None
) -> Image.Image:
    """Decode an image of the corpus, RGB or grey, from its file or what the user's decoder made of it, in the form of
    the arrays that the run's model takes, None for pictures; raises ImageError where it cannot be decoded, or is larger
    than SHOWN_MEGAPIXELS."""
    image = make_image(stored, name, white_level, min(megapixels, SHOWN_MEGAPIXELS), form)
    if isinstance(image, Image.Image):
        return image
    assert form is not None  # arrays have one
    return form.to_picture(image)


def crop_seen(picture: Image.Image, area: SeenArea) -> Image.Image:
    """Crop an image to the part that the model sees, black on padding, and reduce long strips that are padded."""
    left, top, right, bottom = area.box(picture.size)
    factor = reduction((right - left, bottom - top), picture.size)
    if factor == 1:
        return picture.crop((left, top, right, bottom))

    def reduced(wide: int, high: int) -> tuple[int, int]:
        return max(1, round(wide / factor)), max(1, round(high / factor))

    canvas = Image.new(picture.mode, reduced(right - left, bottom - top))
    inside = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
    small = reduced(inside[2] - inside[0], inside[3] - inside[1])
    part = picture.resize(small, Image.Resampling.NEAREST, box=inside)
    canvas.paste(part, (round((inside[0] - left) / factor), round((inside[1] - top) / factor)))
    return canvas


def reduction(extent: tuple[int, int], size: tuple[int, int]) -> float:
    """Return by how much a rectangle of `extent` (w, h) in an image of `size` (w, h) is reduced, so that it has at most
    PADDED times as many pixels, or LEAST_PIXELS; 1 where it has."""
    most = max(PADDED * size[0] * size[1], LEAST_PIXELS)
    return max(1.0, math.sqrt(extent[0] * extent[1] / most))


def draw_picture(picture: Image.Image, side: int) -> bytes:
    """Draw an image at most `side` pixels long; small ones are enlarged by nearest neighbour."""
    return encode_picture(fit_side(picture.convert("RGB"), side))


def draw_overlay(picture: Image.Image, area: SeenArea, relevance: Floats, side: int) -> bytes:
    """Draw a relevance map (G, G) over what the model sees of an image."""
    seen = fit_side(crop_seen(picture.convert("RGB"), area), side)
    return encode_picture(Image.fromarray(overlay(np.asarray(seen), relevance)))


def draw_window(picture: Image.Image, area: SeenArea, window: Window | None, side: int) -> bytes:
    """Draw what the model sees of an image, with the outline of a detected window."""
    thumbnail = fit_side(crop_seen(picture.convert("RGB"), area), side)
    if window is not None:
        top, left, height, width = window
        box = (
            left * thumbnail.width,
            top * thumbnail.height,
            (left + width) * thumbnail.width,
            (top + height) * thumbnail.height,
        )
        ImageDraw.Draw(thumbnail).rectangle(box, outline=WINDOW_COLOUR, width=max(1, min(thumbnail.size) // 60))
    return encode_picture(thumbnail)


def draw_relevance(relevance: Floats, side: int) -> bytes:
    """Draw a relevance map (G, G): red speaks for the class, blue against it."""
    small = Image.fromarray(diverging_colours(relevance))
    return encode_picture(small.resize((side, side), Image.Resampling.NEAREST), "PNG")


def draw_mask(mask: Bools) -> bytes:
    """Draw a mask (H, W), white where it is true, as PNG."""
    return encode_picture(Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))), "PNG")


def draw_masked(picture: Image.Image, area: SeenArea, mask: Bools | None, side: int) -> bytes:
    """Draw what the model sees of an image, darkened beyond a mask of the file (H, W), whose edge is drawn."""
    picture_seen = np.asarray(fit_side(crop_seen(picture.convert("RGB"), area), side))
    if mask is None:
        return encode_picture(Image.fromarray(picture_seen))
    return darken_outside(picture_seen, crop_seen(Image.fromarray(mask), area))


def draw_own(picture: Image.Image, area: SeenArea, own: Bools, side: int) -> bytes:
    """Draw what the model sees of an image, darkened beyond its own places (h, w), whose edge is drawn."""
    return darken_outside(np.asarray(fit_side(crop_seen(picture.convert("RGB"), area), side)), Image.fromarray(own))


def darken_outside(levels: Pixels, mask: Image.Image) -> bytes:
    """Draw an image (H, W, 3) darkened beyond a mask, which is resized to it, and whose edge is drawn."""
    small = mask.resize((levels.shape[1], levels.shape[0]), Image.Resampling.NEAREST)
    inside = np.asarray(small, bool)
    levels = np.where(inside[..., None], levels, (levels * DARKENED).astype(np.uint8))
    around = np.pad(inside, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    levels[inside & ~inner] = WINDOW_COLOUR
    return encode_picture(Image.fromarray(levels))


def fit_side(picture: Image.Image, side: int) -> Image.Image:
    """Resize a picture so that its longer side is at most `side`; enlarge small ones by whole factors."""
    factor = side // max(picture.size)
    if factor > 1:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return thumbnail(picture, side)


def encode_picture(picture: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return buffer.getvalue()
