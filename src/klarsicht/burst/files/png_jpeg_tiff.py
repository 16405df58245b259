"""Reader of PNG, JPEG and TIFF pictures at their full bit depth, as linear light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from klarsicht.burst.data import tiff_tags
from klarsicht.burst.data.photograph import ORIENTATION, Codes, Header, Photograph, from_codes
from klarsicht.burst.data.tiff_tags import SHORT, Ifd, Tags, numbers, rationals, text
from klarsicht.ground.errors import InputError
from klarsicht.ground.optional import load

TIFFS, PNGS, JPEGS = (".tif", ".tiff"), (".png",), (".jpg", ".jpeg")
PICTURE_ENDINGS = (*TIFFS, *PNGS, *JPEGS)
EXIF_POINTER = 34665
POINTERS = (EXIF_POINTER, 34853, 40965)  # tags that hold offsets in the original file
LEVELS = {1: 255, 2: 65535, 4: 0}  # highest code by the bytes of a code; floats have none
CURVE_UNDONE = "the sRGB curve was undone, as nothing in the file says what its codes mean"
AS_LINEAR = "floats were taken as linear light, 0 black and 1 white"
NO_RAW = "not a raw file: cameras smooth and sharpen such pictures, so that noise is not what a sensor's is"


def read(path: Path, linear: bool = False) -> Photograph:
    """Read a picture. linear: integer codes are linear light. Raises InputError for a damaged file, and
    MissingExtra."""
    kind = path.suffix.lower()
    try:
        codes, icc, tags = _tiff(path) if kind in TIFFS else _png(path) if kind in PNGS else _jpeg(path)
    except (OSError, ValueError, RuntimeError, SyntaxError, IndexError, KeyError) as error:
        remedy = "Save it again, or leave it out."
        got = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path.name}", got=got, rule="PNG, TIFF and JPEG files", remedy=remedy) from error
    codes = _checked(codes, path)
    floats = codes.dtype.kind == "f"
    header = Header(
        path=path,
        colour="grey" if codes.ndim == 2 else "rgb",
        size=(codes.shape[0], codes.shape[1]),
        levels=LEVELS[codes.dtype.itemsize],
        curve="none" if floats or linear else "srgb",
        orientation=int(tags.number(ORIENTATION) or 1),
        icc=icc,
        tags=tags,
        notes=(AS_LINEAR,) if floats else () if linear else (CURVE_UNDONE, NO_RAW),
    )
    return from_codes(codes, header)


def _checked(codes: Any, path: Path) -> Codes:
    """Return the codes as (H, W) or (H, W, 3), without transparency. Raises InputError for other shapes and types."""
    rule, remedy = "grey or RGB, 8 or 16 bit, or floats", "Convert it, or leave it out."
    if codes.ndim == 3 and codes.shape[-1] in (1, 2, 4):
        codes = codes[..., 0] if codes.shape[-1] < 4 else codes[..., :3]
    fits = codes.ndim == 2 or (codes.ndim == 3 and codes.shape[-1] == 3)
    if not fits or codes.dtype not in (np.uint8, np.uint16, np.float32, np.float64, np.float16):
        got = f"{codes.dtype} {codes.shape}"
        raise InputError(f"{path.name} is no picture that can be denoised", got=got, rule=rule, remedy=remedy)
    kept: Codes = codes.astype(np.float32) if codes.dtype.kind == "f" else codes
    return kept


def _tiff(path: Path) -> tuple[Any, bytes | None, Tags]:
    tifffile = load("tifffile", "raw")
    tags = tiff_tags.read(path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            raise ValueError(f"colours stored as {page.photometric!s}")
        codes = page.asarray()
        if codes.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            codes = np.moveaxis(codes, 0, -1)
        icc = page.tags.get(34675)
        return codes, None if icc is None else bytes(icc.value), tags


def _png(path: Path) -> tuple[Any, bytes | None, Tags]:
    """Decode a PNG file by Pillow at 8 bits, because it handles palettes, and by imagecodecs at 16 bits, of which
    Pillow drops half."""
    with Image.open(path, formats=["PNG"]) as image:
        deep = image.mode.startswith("I") or _bit_depth(path) == 16
        icc, tags = image.info.get("icc_profile"), _exif(image)
        if not deep:
            return _eight_bit(image), icc, tags
    return load("imagecodecs", "raw").png_decode(path.read_bytes()), icc, tags


def _bit_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[-1]


def _jpeg(path: Path) -> tuple[Any, bytes | None, Tags]:
    with Image.open(path, formats=["JPEG", "MPO"]) as image:
        if image.mode == "CMYK":
            raise ValueError("colours of a printer (CMYK)")
        return _eight_bit(image), image.info.get("icc_profile"), _exif(image)


def _eight_bit(image: Image.Image) -> Any:
    grey = image.mode in ("1", "L", "LA")
    return np.asarray(image.convert("L" if grey else "RGB"))


def _exif(image: Image.Image) -> Tags:
    """Convert Pillow's EXIF to tags: texts, non-negative integers and fractions only."""
    exif = image.getexif()
    return Tags(_entries(exif), _entries(exif.get_ifd(EXIF_POINTER)), {})


def _entries(values: Any) -> Ifd:
    found = {tag: _entry(value) for tag, value in values.items() if tag not in POINTERS}
    return {tag: entry for tag, entry in found.items() if entry is not None}


def _entry(value: Any) -> tiff_tags.Entry | None:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int) and 0 <= value < 1 << 16:
        return numbers(SHORT, value)
    if hasattr(value, "numerator") and 0 <= float(value) < 4000:
        return rationals(float(value))
    return None
