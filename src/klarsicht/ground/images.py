"""Image files and pixel formats: decoding of untrusted files, bit depths, colour maps, thumbnails, data URIs."""

from __future__ import annotations

import base64
import io
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from klarsicht.ground import tiff_tags
from klarsicht.ground.errors import ImageError, KlarsichtError
from klarsicht.ground.libtiff import collect_errors
from klarsicht.ground.memory import is_out_of_memory
from klarsicht.ground.npy_files import NPY_MAGIC, read_npy
from klarsicht.ground.optional import load
from klarsicht.ground.tiff_tags import Tags, TagsTooLong

Bytes = NDArray[np.uint8]
D = TypeVar("D", np.uint8, np.uint16)
P = TypeVar("P")

MAX_MEGAPIXELS = 220.0  # phones make photographs of 200; a larger one is refused before it is decoded
# Raster formats only: Pillow would also open EPS and run Ghostscript on it, whatever the file's extension.
FORMATS = ("PNG", "JPEG", "JPEG2000", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "PCX")
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")
EXIF_ORIENTATION, EXIF_HEAD, PNG_DEPTH = 0x0112, b"Exif\0\0", 24
FULL, NARROW = 65535, 0.25  # the highest 16-bit code, and the share of the range below which a file is named
BAND_PIXELS = 1 << 22  # of a band that is composited at once
CHANNELS = (1, 3, 4)  # of an array that is a picture
NOTES = "notes of klarsicht"
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")  # of tags: see check_tags
_limit = threading.Lock()  # held while Pillow's global pixel limit is changed


@cache
def extensions() -> frozenset[str]:
    """Return the file extensions that `decode` reads, in lower case and with their dot."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def decode(path: str | Path, white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Decode an image file to 8-bit "RGB" or "L", upright by its EXIF orientation; of an animation the first frame, of
    a TIFF the first page, of a .npy file its array as `picture_from_array` takes it.

    Transparent pixels are composited on white; colour profiles are not applied. 16-bit grey is scaled to 8 bit, not
    clipped; of 16-bit colour Pillow keeps the upper 8 bits, which suffices for a classifier but not for a burst.
    `notes_of` says what a reader should know of the picture.

    Args:
        white_level: code of white in 16-bit files, for instance 4095; higher ones are clipped. None: 65535.
        megapixels: largest image that is decoded, in millions of pixels.

    Raises:
        ImageError: no such file, not an image, damaged, too large, strips of a TIFF missing, or a pixel mode without a
            known white level.
        MissingExtra: a white level for 16-bit colour, which needs the extra `raw`.
    """
    return read_file(path, lambda source: _decode_source(source, white_level, megapixels))


def read_file(path: str | Path, read: Callable[[IO[bytes]], P]) -> P:
    """Read an image file by a function of the open file, whose exceptions become errors of ours.

    Raises:
        ImageError: no such file, a folder, a pipe or a device, or the function fails.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ImageError(
                f"no regular file: {file.name}", got="a folder, a pipe or a device", remedy="Leave it out."
            )
        if not file.is_file():
            raise ImageError(f"no such file: {file.name}", got=file, remedy="Check the path.")
        with file.open("rb") as source:
            return read(source)
    except KlarsichtError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        if is_out_of_memory(error):
            raise  # of the machine, not of the image
        raise _undecodable(file.name, file.stat().st_size, error) from error


def decode_bytes(
    content: bytes, name: str, white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS
) -> Image.Image:
    """Decode the bytes of an image file as `decode` does.

    Args:
        name: what the image is called in an error.

    Raises:
        ImageError, MissingExtra: see `decode`.
    """
    return read_content(content, name, lambda source: _decode_source(source, white_level, megapixels))


def read_content(content: bytes, name: str, read: Callable[[IO[bytes]], P]) -> P:
    """Read the bytes of an image file by a function of an open file, as `read_file` does.

    Args:
        name: what the image is called in an error.

    Raises:
        ImageError: the function fails.
    """
    try:
        return read(io.BytesIO(content))
    except KlarsichtError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _undecodable(name, len(content), error) from error


def _decode_source(source: IO[bytes], white_level: int | None, megapixels: float) -> Image.Image:
    """Decode an open file; raises whatever Pillow raises."""
    if is_npy(source):
        return picture_from_array(read_npy(source, megapixels), white_level, megapixels)
    tags = check_tags(source)
    png_depth = read_png_depth(source)
    with collect_errors() as errors, open_image(source, megapixels) as image:
        told, depth = _pages(image, tags), bit_depth(image, png_depth, tags)
        image.load()
        if errors:
            raise ValueError(errors[0])
        picture, used = _to_eight_bit(image, source, depth, white_level)
        told += _narrow_range(used) if depth > 8 and white_level is None else ()
        picture = _apply_orientation(picture, image)
        picture.info[NOTES] = told
        return picture


def is_npy(source: IO[bytes]) -> bool:
    """Tell whether an open file holds an array; it is left at its beginning."""
    head = source.read(len(NPY_MAGIC))
    source.seek(0)
    return head == NPY_MAGIC


def _undecodable(name: str, size: int, error: Exception) -> ImageError:
    """Make the error of an image that cannot be decoded."""
    reason = "the file is empty" if size == 0 else f"{type(error).__name__}: {error}"
    return ImageError(f"cannot decode {name}", got=reason, rule=f"readable are {', '.join(FORMATS)}")


def picture_from_image(image: Image.Image, megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Convert a Pillow image of any mode to 8-bit "RGB" or "L", transparent pixels on white.

    Raises:
        ImageError: it is too large, or its mode has no known white.
    """
    try:
        require_megapixels(image.width, image.height, megapixels)
        return _to_eight_bit(image, io.BytesIO(), 8, None)[0]
    except ValueError as error:
        raise ImageError("cannot use a picture", got=error, rule="8 bit a channel, grey or colour") from error


def picture_from_array(
    pixels: NDArray[Any], white_level: int | None = None, megapixels: float = MAX_MEGAPIXELS
) -> Image.Image:
    """Convert an array to an 8-bit picture "L" or "RGB".

    Args:
        pixels: (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4 with alpha; uint8 or bool, uint16 up to the white level,
            or float in [0, 1].
        white_level: code of white of uint16; None: 65535.

    Raises:
        ImageError: another shape, another type, or floats outside of [0, 1].
    """
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.ndim == 3 and planes.shape[2] not in CHANNELS and planes.shape[0] in CHANNELS:
        planes = np.moveaxis(planes, 0, 2)
    if planes.ndim != 3 or planes.shape[2] not in CHANNELS or not planes.size:
        raise ImageError(
            "an array is no picture", got=f"shape {pixels.shape}",
            rule="(H, W), (H, W, C) or (C, H, W) with C 1, 3 or 4", remedy="Make it one by --decode.",
        )  # fmt: skip
    levels = _eight_bit_levels(planes, white_level)
    return picture_from_image(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), megapixels)


def _eight_bit_levels(planes: NDArray[Any], white_level: int | None) -> Bytes:
    """Convert an array of any number type to uint8; raises ImageError where its white is unknown."""
    if planes.dtype == np.uint8:
        return np.ascontiguousarray(planes)
    if planes.dtype == np.bool_:
        return np.where(planes, np.uint8(255), np.uint8(0))
    if planes.dtype == np.uint16:
        levels: Bytes = _eight_bit_table(white_level or FULL)[planes]
        return levels
    if np.issubdtype(planes.dtype, np.floating) and bool(((planes >= 0) & (planes <= 1)).all()):
        return to_uint8(planes.astype(np.float32))
    span = f"{planes.min():.4g} to {planes.max():.4g}"
    raise ImageError(
        "an array has no known white", got=f"{planes.dtype}, {span}", rule="uint8, uint16, or float in [0, 1]",
        remedy="Scale it by --decode.",
    )  # fmt: skip


def notes_of(picture: Any) -> tuple[str, ...]:
    """Return what should be said of a decoded picture: further pages, or a range that asks for a white level; nothing
    of an array."""
    told: tuple[str, ...] = picture.info.get(NOTES, ()) if isinstance(picture, Image.Image) else ()
    return told


def check_tags(source: IO[bytes]) -> Tags:
    """Check the tags of a TIFF file, or of a JPEG file's EXIF, before another library reads them; return a TIFF's.

    Raises:
        ValueError: strips are missing, or the tags are longer than the file (TagsTooLong), which would fill memory.
    """
    tags = tiff_tags.parse(cast(BinaryIO, source), lenient=True)
    source.seek(0)
    if tags.pages:
        tiff_tags.require_strips(tags.first, tags.length)
    elif exif := _exif_of_jpeg(source):
        _check_exif(exif)
    source.seek(0)
    return tags


def _exif_of_jpeg(source: IO[bytes]) -> bytes:
    """Read the EXIF segments of a JPEG file, which are one after the other one block (ITU-T T.81 B.1.1, EXIF 4.7.2)."""
    found = b""
    if source.read(2) != b"\xff\xd8":
        return found
    while len(head := source.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        if head[1] == 0xFF:  # a fill byte
            source.seek(-3, 1)
            continue
        body = source.read(max(int.from_bytes(head[2:]) - 2, 0))
        if head[1] == 0xE1 and body[:6] == EXIF_HEAD:
            found += body[6:]
    return found


def _check_exif(exif: bytes) -> None:
    """Raise TagsTooLong where EXIF is longer than it can be; other damage is left to Pillow, which passes over it."""
    try:
        tiff_tags.parse(io.BytesIO(exif.removeprefix(EXIF_HEAD)), lenient=True)
    except TagsTooLong:
        raise
    except ValueError:
        return


def open_image(
    source: IO[bytes] | Path, megapixels: float = MAX_MEGAPIXELS, formats: Sequence[str] = FORMATS
) -> Image.Image:
    """Open an image with Pillow, whose own bound on pixels is replaced by this one; nothing is decoded yet.

    Raises:
        ValueError: more pixels than the bound, or EXIF that is longer than it can be.
        Exception: anything else that Pillow raises on what it does not know.
    """
    Image.init()
    with _limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source, formats=[kind for kind in formats if kind in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = before
    require_megapixels(image.width, image.height, megapixels)
    return image


def require_megapixels(width: int, height: int, megapixels: float) -> None:
    """Raise ValueError for a picture of more than so many millions of pixels, with the remedy."""
    if width * height > 1e6 * megapixels:
        bound = f"more than the {megapixels:g} megapixels that are read. Raise --megapixels, or leave it out"
        raise ValueError(f"{width} x {height} pixels, {bound}")


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


def _to_eight_bit(
    image: Image.Image, source: IO[bytes], depth: int, white_level: int | None
) -> tuple[Image.Image, float]:
    """Convert an image to 8-bit "L" or "RGB", and return it with the largest code as a share of all; raises ValueError
    for modes without a known white level."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint16)
        full = 2**depth - 1 if 8 < depth < 16 else FULL
        return Image.fromarray(_eight_bit_table(white_level or full)[levels]), float(levels.max(initial=0)) / full
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known white; store 8 or 16 bit a channel")
    if depth == 16 and white_level is not None and image.mode in ("RGB", "RGBA"):
        image = Image.fromarray(_scaled_colour(source, image.format == "TIFF", white_level))
    grey = "L" if image.mode in ("1", "L", "LA") else "RGB"
    used = 1.0
    if depth == 16 and image.mode in ("RGB", "RGBA"):
        used = max(float(np.asarray(image.getchannel(channel)).max(initial=0)) for channel in "RGB") / 255
    if image.has_transparency_data:
        return _over_white(image, grey), used
    same = image.mode == grey  # then the file's own pixels are handed on, without a second copy
    return (Image.Image()._new(image.im) if same else image.convert(grey)), used


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    """Composite an image on white, in bands, so that memory holds no second copy of four channels."""
    out = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = image.crop(box).convert("RGBA")
        out.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert(mode), box[:2])
    return out


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
    codes: NDArray[Any] = load("imagecodecs", "raw").png_decode(source.read())
    return codes


def _pages(image: Image.Image, tags: Tags) -> tuple[str, ...]:
    """Say that a file has further pages or frames."""
    if image.format == "TIFF":
        return (f"{tags.pages} pages, of which only the first is read",) if tags.pages > 1 else ()
    try:
        animated = image.format in ANIMATIONS and bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame
        animated = True
    return ("an animation, of which only the first frame is read",) if animated else ()


def _narrow_range(used: float) -> tuple[str, ...]:
    """Say that 16-bit codes use less than a quarter of their range."""
    if not 0 < used < NARROW:
        return ()
    remedy = "if its white is lower, say so by --white-level, or in the manifest's column white_level"
    return (f"it uses less than a quarter of its 16 bits, and may look nearly black: {remedy}",)


def _apply_orientation(picture: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate or flip a picture by the EXIF orientation of its file; damaged EXIF is ignored."""
    try:
        for exif in (image.info.get("exif"), _exif_in_text(image)):
            _check_exif(exif or b"")
        turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF but intact pixels: treated as absent
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _exif_in_text(image: Image.Image) -> bytes:
    """Return the EXIF that old programs wrote into a text of a PNG file, in hexadecimal digits."""
    lines = str(image.info.get("Raw profile type exif", "")).split("\n")[3:]
    return bytes.fromhex("".join(lines))


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
