"""Image files and pixel formats: decoding of untrusted files, bit depths, colour maps, thumbnails, data URIs."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from klarsicht.ground.errors import ImageError

Bytes = NDArray[np.uint8]
D = TypeVar("D", np.uint8, np.uint16)

MAX_PIXELS = 250_000_000
# Raster formats only: Pillow would also open EPS and run Ghostscript on it, whatever the file's extension.
FORMATS = ("PNG", "JPEG", "JPEG2000", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "PCX")
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_limit = threading.Lock()  # held while Pillow's global pixel limit is changed


@cache
def extensions() -> frozenset[str]:
    """Return the file extensions that `decode` reads, in lower case and with their dot."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def decode(path: str | Path) -> Image.Image:
    """Decode an image file to 8-bit "RGB" or "L", upright by its EXIF orientation; of an animation the first frame.

    Transparent pixels are composited on white; colour profiles are not applied. 16-bit grey is scaled to 8 bit, not
    clipped; of 16-bit colour Pillow keeps the upper 8 bits, which suffices for a classifier but not for a burst.

    Raises:
        ImageError: no such file, not an image, damaged, too large, or a pixel mode without a known white level.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ImageError(
                f"no regular file: {file.name}", got="a folder, a pipe or a device", remedy="Leave it out."
            )
        if not file.is_file():
            raise ImageError(f"no such file: {file.name}", got=file, remedy="Check the path.")
        with file.open("rb") as source, _open_image(source) as image:
            image.load()
            return _apply_orientation(_to_eight_bit(image), image)
    except ImageError:
        raise
    except MemoryError:
        raise  # of the machine, not of the image
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        reason = "the file is empty" if file.stat().st_size == 0 else f"{type(error).__name__}: {error}"
        raise ImageError(f"cannot decode {file.name}", got=reason, rule=f"readable are {', '.join(FORMATS)}") from error


def _open_image(source: IO[bytes]) -> Image.Image:
    """Open an image with Pillow under MAX_PIXELS and FORMATS; raises ValueError where it is larger."""
    Image.init()
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
        try:
            image = Image.open(source, formats=[kind for kind in FORMATS if kind in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = before
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit "L" or "RGB"; raises ValueError for modes without a known white level."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(to_uint8(to_float(np.asarray(image).astype(np.uint16))))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known white; store 8 or 16 bit a channel")
    grey = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert(grey)
    return image.convert(grey)


def _apply_orientation(picture: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate or flip a picture by the EXIF orientation of its file; damaged EXIF is ignored."""
    try:
        turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF but intact pixels: treated as absent
        turn = None
    return picture if turn is None else picture.transpose(turn)


def to_float(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    """Scale uint8 or uint16 of any shape to float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def to_uint8(values: ArrayLike) -> NDArray[np.uint8]:
    """Round [0, 1] to the nearest of 0 .. 255; values outside are clipped."""
    return _to_depth(values, np.uint8)


def to_uint16(values: ArrayLike) -> NDArray[np.uint16]:
    """Round [0, 1] to the nearest of 0 .. 65535; values outside are clipped."""
    return _to_depth(values, np.uint16)


def _to_depth(values: ArrayLike, depth: type[D]) -> NDArray[D]:
    levels: NDArray[D] = np.rint(np.clip(values, 0, 1) * np.float32(np.iinfo(depth).max)).astype(depth)
    return levels


def _interpolate_oklab(*points: tuple[float, float, float]) -> Bytes:
    """Interpolate 257 sRGB colours linearly in Oklab between points (lightness, chroma, hue in degrees).

    Equal steps in Oklab are perceptually equal. Ottosson, "A perceptual color space for image processing" (2020).
    """
    L, C, h = np.array(points).T
    lab = [L, C * np.cos(np.deg2rad(h)), C * np.sin(np.deg2rad(h))]
    line = np.stack([np.interp(np.linspace(0, len(points) - 1, 257), range(len(points)), axis) for axis in lab])
    lms = np.array([[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]) @ line
    to_rgb = [
        [4.0767417, -3.3077116, 0.2309699],
        [-1.268438, 2.6097574, -0.3413194],
        [-0.0041961, -0.7034186, 1.7076147],
    ]
    linear = np.clip(to_rgb @ lms**3, 0, 1)
    return to_uint8(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T)


BLUE_WHITE_RED = _interpolate_oklab((0.36, 0.13, 262), (0.62, 0.15, 255), (1, 0, 0), (0.62, 0.15, 28), (0.36, 0.13, 28))
DARK_TO_BRIGHT = _interpolate_oklab(
    (0.12, 0.03, 290), (0.38, 0.15, 310), (0.6, 0.19, 20), (0.8, 0.14, 65), (0.96, 0.05, 100)
)


def diverging_colours(values: ArrayLike, bound: float | None = None) -> Bytes:
    """Map signed values (...) to colours (..., 3): -bound blue, 0 white, +bound red. Non-finite values are white.

    Args:
        bound: value at which the colour saturates; by default the 99.5 % quantile of the absolute values, so that a
            single outlier does not hide the rest.
    """
    signed = np.nan_to_num(np.asarray(values, np.float64), nan=0, posinf=0, neginf=0)
    return _look_up_colours(BLUE_WHITE_RED, 0.5 + signed / (bound or _saturation_bound(signed)) / 2)


def sequential_colours(values: ArrayLike, low: float = 0, high: float = 1) -> Bytes:
    """Map values (...) to colours (..., 3): low is dark, high is bright. NaN is dark."""
    given = np.nan_to_num(np.asarray(values, np.float64), nan=low)
    return _look_up_colours(DARK_TO_BRIGHT, (given - low) / ((high - low) or 1))


def _look_up_colours(table: Bytes, share: NDArray[np.float64]) -> Bytes:
    """Look up colours of a table at positions in [0, 1]; positions outside are clipped."""
    colours: Bytes = table[np.rint((len(table) - 1) * np.clip(share, 0, 1)).astype(int)]
    return colours


def overlay(pixels: Bytes, signed: ArrayLike, bound: float | None = None, strength: float = 0.9) -> Bytes:
    """Draw a signed map of any size, resized bilinearly, over a greyscale copy of a picture.

    Args:
        pixels: uint8 (H, W, 3) or (H, W).
        signed: (h, w); positive is red, negative is blue, and opacity grows with the absolute value.
        bound: as for `diverging_colours`.
        strength: opacity of a saturated colour, 0 .. 1.

    Returns:
        uint8 (H, W, 3).
    """
    wide = np.clip(resize_bilinear(signed, pixels.shape[:2]) / (bound or _saturation_bound(np.asarray(signed))), -1, 1)
    colours = diverging_colours(np.sign(wide) / 2, 1)  # two saturated colours: opacity alone shows the magnitude
    opacity = strength * np.abs(wide)[..., None]
    grey = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    mixed: Bytes = np.rint((1 - opacity) * grey + opacity * colours).astype(np.uint8)
    return mixed


def resize_bilinear(values: ArrayLike, shape: Sequence[int]) -> NDArray[np.float32]:
    """Resize (h, w) bilinearly to shape (H, W); pixel centres keep their position."""
    small = Image.fromarray(np.nan_to_num(np.asarray(values, np.float32)))
    return np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _saturation_bound(signed: NDArray[Any]) -> float:
    """Return the 99.5 % quantile of the absolute values, or else their maximum, or else 1."""
    size = np.abs(signed)
    return float(np.quantile(size, 0.995) or size.max() or 1) if size.size else 1.0


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Return a copy whose longer side is at most `side` pixels; never enlarged."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def png_bytes(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode uint8 (H, W) or (H, W, 3), or uint16 (H, W), as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(content: bytes, mime: str = "image/png") -> str:
    """Encode the bytes of a file as a data URI (RFC 2397)."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
