"""Bit depths of pictures: to 8 bit from what files and arrays hold, and between levels and floats in [0, 1]."""

from __future__ import annotations

import logging
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from klarsicht.ground.errors import ImageError
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import Tags

PNG_DEPTH = 24  # place of the byte that states the bits of a channel in a PNG file
FULL = 65535  # the highest 16-bit code

Bytes = NDArray[np.uint8]
D = TypeVar("D", np.uint8, np.uint16)
BAND_PIXELS = 1 << 22  # of a band that is composited at once


def read_png_depth(source: IO[bytes]) -> int:
    """Read the byte that in a PNG file states the bits of a channel; the file is left at its beginning."""
    source.seek(PNG_DEPTH)
    found = source.read(1) or b"\0"
    source.seek(0)
    return found[0]


def bit_depth(image: Image.Image, png_depth: int, tags: Tags) -> int:
    """Return the bits of a channel in the file, of which Pillow may keep fewer."""
    if image.format == "TIFF" and tags.pages:
        entry = tags.first.get(tiff_tags.BITS)
        return 1 if entry is None or entry.first is None else int(entry.first)
    if image.format == "PNG":
        return png_depth
    return 16 if image.mode.startswith("I") else 8


def to_eight_bit(
    image: Image.Image, source: IO[bytes], depth: int, white_level: int | None
) -> tuple[Image.Image, float]:
    """Convert an image to 8-bit "L" or "RGB", with its largest code as a share of all. Raises ValueError: no known
    white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint16)
        full = 2**depth - 1 if 8 < depth < 16 else FULL
        return Image.fromarray(_eight_bit_table(white_level or full)[levels]), float(levels.max(initial=0)) / full
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known white; store 8 or 16 bit a channel")
    if depth == 16 and white_level is not None and image.mode in ("RGB", "RGBA"):
        image = Image.fromarray(_scaled_colour(source, image.format == "TIFF", white_level))
    grey = "L" if image.mode in ("1", "L", "LA") else "RGB"
    share = 1.0
    if depth == 16 and image.mode in ("RGB", "RGBA"):
        share = max(float(np.asarray(image.getchannel(channel)).max(initial=0)) for channel in "RGB") / 255
    if image.has_transparency_data:
        return _over_white(image, grey), share
    same = image.mode == grey  # then the file's own pixels are handed on, without a second copy
    return (Image.Image()._new(image.im) if same else image.convert(grey)), share


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    """Composite an image on white, in bands, so that memory holds no second copy of four channels."""
    out = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = image.crop(box).convert("RGBA")
        out.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert(mode), box[:2])
    return out


def eight_bit_levels(planes: NDArray[Any], white_level: int | None) -> Bytes:
    """Convert an array of any number type to uint8; raises ImageError where its white is unknown."""
    if planes.dtype == np.uint8:
        return np.ascontiguousarray(planes)
    if planes.dtype == np.bool_:
        return np.where(planes, np.uint8(255), np.uint8(0))
    if planes.dtype == np.uint16 or planes.dtype == np.uint16().dtype.newbyteorder():
        return np.asarray(_eight_bit_table(white_level or FULL)[planes])
    if np.issubdtype(planes.dtype, np.floating) and bool(((planes >= 0) & (planes <= 1)).all()):
        return to_uint8(planes.astype(np.float32))
    span = f"{planes.min():.4g} to {planes.max():.4g}"
    got, rule = f"{planes.dtype}, {span}", "uint8, uint16, or float in [0, 1]"
    raise ImageError("an array has no known white", got=got, rule=rule, remedy="Scale it by --decode.")


def _eight_bit_table(white: int) -> Bytes:
    """Return the 8-bit level (65536,) of every 16-bit code."""
    return to_uint8(np.arange(FULL + 1, dtype=np.float32) / np.float32(white))


def _scaled_colour(source: IO[bytes], is_tiff: bool, white: int) -> Bytes:
    """Read 16-bit colour (H, W, 3 or 4) at its full depth and scale it by its white; alpha by 65535."""
    codes = read_tiff_codes(source) if is_tiff else read_png_codes(source)
    alpha = [codes[..., 3:4] >> 8] if codes.shape[-1] > 3 else []
    return np.concatenate([_eight_bit_table(white)[codes[..., :3]], *alpha], -1, dtype=np.uint8)


def read_tiff_codes(source: IO[bytes]) -> NDArray[Any]:
    """Read the numbers (H, W) or (H, W, C) of the first page of a TIFF file, by the extra `raw`."""
    source.seek(0)
    tifffile = load("tifffile", "raw")
    tifffile.logger().setLevel(logging.CRITICAL)  # a damaged tag is an error here, or passed over, and no file is named
    with tifffile.TiffFile(source) as opened:
        page = opened.pages[0]
        if page.imagedepth != 1:
            raise ValueError("a volume")
        codes: NDArray[Any] = page.asarray()
        return np.moveaxis(codes, 0, -1) if codes.ndim == 3 and int(page.planarconfig) == 2 else codes


def read_png_codes(source: IO[bytes]) -> NDArray[Any]:
    """Read the numbers of a PNG file, by the extra `raw`."""
    source.seek(0)
    return np.asarray(load("imagecodecs", "raw").png_decode(source.read()))


def to_uint8(values: ArrayLike) -> NDArray[np.uint8]:
    """Round [0, 1] to the nearest of 0 .. 255; values outside are clipped."""
    return _to_depth(values, np.uint8)


def to_uint16(values: ArrayLike) -> NDArray[np.uint16]:
    """Round [0, 1] to the nearest of 0 .. 65535; values outside are clipped."""
    return _to_depth(values, np.uint16)


def _to_depth(values: ArrayLike, depth: type[D]) -> NDArray[D]:
    levels: NDArray[D] = np.rint(np.clip(values, 0, 1) * np.float32(np.iinfo(depth).max)).astype(depth)
    return levels
