"""Reader of developed pictures (PNG, JPEG, TIFF, HEIC) at their full bit depth, as linear light."""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from klarsicht.burst.data.photograph import AS_WRITTEN, ORIENTATION, Codes, Header, Photograph, ReadSettings, from_codes
from klarsicht.burst.files import heif
from klarsicht.ground.errors import InputError, KlarsichtError
from klarsicht.ground.machine.disk import is_fault_of_place
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.image_tags import EXIF_HEAD, check_tags
from klarsicht.ground.pictures.images import NARROW, PictureTooLarge, open_image
from klarsicht.ground.pictures.pixel_depths import FULL
from klarsicht.ground.pictures.tiff_tags import NO_TAGS, Tags

TIFFS, PNGS, JPEGS = (".tif", ".tiff"), (".png",), (".jpg", ".jpeg")
PICTURE_ENDINGS = (*TIFFS, *PNGS, *JPEGS, *heif.HEIFS)
POINTERS = (tiff_tags.EXIF, tiff_tags.GPS, 40965)  # tags that hold offsets in the original file
LEVELS = {1: 255, 2: FULL, 4: 0}  # highest code by the bytes of a code; floats have none
MOST_SAMPLES = 4  # red, green, blue and transparency
MOST_BYTES_A_PIXEL = 16  # of four 32-bit floats
FLOAT_BYTES = 4  # bytes of one value of light
WORKING_BYTES = 4  # a pixel beside codes and light: what Pillow decodes to, or a plane that is copied
PNG_HEAD, MOST_EXIF = 8, 1 << 20  # bytes before the first chunk, and of EXIF that are read
CURVE_UNDONE = "the sRGB curve was undone, as no file says what its codes mean; if they are linear light, give --linear"
AS_LINEAR = "floats were taken as linear light, 0 black and 1 white"
NO_RAW = "not a raw file: cameras smooth and sharpen such pictures, so that noise is not what a sensor's is"

CONTENTS = ((b"\x89PNG", PNGS), (b"\xff\xd8\xff", JPEGS), (b"II*\0", TIFFS), (b"MM\0*", TIFFS))

Decoded = tuple[Any, bytes | None, Tags]  # codes, ICC profile, tags


def read(path: Path, settings: ReadSettings = AS_WRITTEN) -> Photograph:
    """Read a picture. Raises InputError for a damaged file, or too many pixels, and MissingExtra."""
    kind, highest = path.suffix.lower(), 0
    with _translate_decoder_errors(path):
        if kind in heif.HEIFS:
            codes, highest, icc, exif = heif.decode(path, settings)
            tags = _without_orientation(parse_exif(exif))
        else:
            decoder = _tiff if kind in TIFFS else _png if kind in PNGS else _jpeg
            codes, icc, tags = decoder(path, settings)
    codes = _drop_transparency(codes, path)
    floats, deep = codes.dtype.kind == "f", codes.dtype == np.uint16
    levels = highest or (settings.white_level if deep and settings.white_level else LEVELS[codes.dtype.itemsize])
    notes = (AS_LINEAR,) if floats else () if settings.linear else (CURVE_UNDONE, NO_RAW)
    header = Header(
        path=path,
        colour="grey" if codes.ndim == 2 else "rgb",
        size=(codes.shape[0], codes.shape[1]),
        levels=levels,
        curve="none" if floats or settings.linear else "srgb",
        orientation=orientation(tags),
        icc=icc,
        tags=tags,
        notes=(*notes, *_pages(path, tags), *(_narrow_range(path, codes) if deep and levels == FULL else ())),
    )
    return from_codes(codes, header)


def read_tags(path: Path, settings: ReadSettings = AS_WRITTEN) -> Tags:
    """Read the tags of a picture, its width and height among them, without decoding it. Raises as `read`."""
    kind = path.suffix.lower()
    if kind in TIFFS:
        return tiff_tags.read(path)
    with _translate_decoder_errors(path):
        if kind in heif.HEIFS:
            (width, height), exif = heif.read_size_and_exif(path)
        else:
            with open_image(path, settings.megapixels, ["PNG", "JPEG", "MPO"]) as image:
                (width, height) = image.size
                exif = _png_exif(path) if kind in PNGS else image.info.get("exif") or b""
    tags, size = parse_exif(exif), {tiff_tags.WIDTH: width, tiff_tags.LENGTH: height}
    return replace(tags, image=tags.image | {tag: tiff_tags.numbers(tiff_tags.LONG, n) for tag, n in size.items()})


@contextmanager
def _translate_decoder_errors(path: Path) -> Iterator[None]:
    """Raise InputError for what decoders raise on damaged data, which is nearly anything."""
    try:
        yield
    except (KlarsichtError, MemoryError):
        raise
    except PictureTooLarge as error:
        raise InputError(f"cannot read {path.name}", got=error) from error
    except Exception as error:
        if is_out_of_memory(error) or is_fault_of_place(error):
            raise  # of the machine, not of the file
        require_own_ending(path, error)
        remedy = "Save it again, or leave it out."
        got = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"cannot read {path.name}", got=got, rule="PNG, TIFF, JPEG and HEIC files", remedy=remedy
        ) from error


def require_own_ending(path: Path, cause: BaseException | None = None) -> None:
    """Raise InputError where the first bytes of a file name another format than its ending. A raw file may begin as a
    TIFF file does."""
    true = _true_endings(path)
    if not true or path.suffix.lower() in true or (true is TIFFS and path.suffix.lower() not in PICTURE_ENDINGS):
        return
    raise InputError(
        f"cannot read {path.name}", got=f"data of a {true[0]} file under the ending {path.suffix}",
        rule="the ending names the format", remedy=f"Rename it to {path.stem}{true[0]}.",
    ) from cause  # fmt: skip


def _true_endings(path: Path) -> tuple[str, ...]:
    """Return the endings of the format that the first bytes of a file name; none where they name none."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in heif.BRANDS:
        return heif.HEIFS
    return next((endings for magic, endings in CONTENTS if head.startswith(magic)), ())


def orientation(tags: Tags) -> int:
    """Return the orientation of the tags, 1 to 8; 1 where it is none of these."""
    said = tags.number(ORIENTATION)
    return int(said or 1) if said in range(1, 9) else 1


def _pages(path: Path, tags: Tags) -> tuple[str, ...]:
    """Say that a TIFF file has further pages."""
    return (f"{path.name} has {tags.pages} pages, of which only the first is read",) if tags.pages > 1 else ()


def _narrow_range(path: Path, codes: Codes) -> tuple[str, ...]:
    """Say that 16-bit codes use less than a quarter of their range."""
    most = int(codes.max(initial=0))
    if not 0 < most < NARROW * FULL:
        return ()
    used = f"{path.name} has no code above {most} of {FULL}, less than a quarter"
    return (f"{used}: if its white is lower, say so by --white-level, 4095 for 12 bits",)


def _drop_transparency(codes: Any, path: Path) -> Codes:
    """Return the codes as (H, W) or (H, W, 3), without transparency. Raises InputError for other shapes and types."""
    rule, remedy = "grey or RGB, 8 or 16 bit, or floats", "Convert it, or leave it out."
    if codes.ndim == 3 and codes.shape[-1] in (1, 2, 4):
        codes = codes[..., 0] if codes.shape[-1] < 4 else codes[..., :3]
    fits = codes.ndim == 2 or (codes.ndim == 3 and codes.shape[-1] == 3)
    if not fits or codes.dtype not in (np.uint8, np.uint16, np.float32, np.float64, np.float16):
        got = f"{codes.dtype} {codes.shape}"
        raise InputError(f"{path.name} is no picture that can be denoised", got=got, rule=rule, remedy=remedy)
    return codes.astype(np.float32) if codes.dtype.kind == "f" else codes


def _tiff(path: Path, settings: ReadSettings) -> Decoded:
    tifffile = load("tifffile", "raw")
    tifffile.logger().setLevel(logging.CRITICAL)  # what it warns of is an error here, or no matter of the user's
    tags = tiff_tags.read(path)
    if tags.pages:
        tiff_tags.require_strips(tags.first, tags.length)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            if page.photometric == tifffile.PHOTOMETRIC.CFA:
                raise InputError(
                    f"cannot read {path.name}", got="a raw file under the ending of a TIFF",
                    rule="the ending names the format", remedy=f"Rename it to {path.stem}.dng.",
                )  # fmt: skip
            raise ValueError(f"colours stored as {page.photometric!s}")
        if page.samplesperpixel > MOST_SAMPLES or page.imagedepth != 1:
            raise ValueError(f"{page.samplesperpixel} values a pixel, {page.imagedepth} planes")
        codes_a_pixel = -(-page.nbytes // max(1, page.imagewidth * page.imagelength))
        need = codes_a_pixel + FLOAT_BYTES * page.samplesperpixel + WORKING_BYTES
        settings.require_room(page.imagewidth, page.imagelength, need)
        if codes_a_pixel > MOST_BYTES_A_PIXEL:
            raise ValueError(f"{codes_a_pixel} bytes a pixel; save it in 16 bits")
        codes = page.asarray()
        if codes.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            codes = np.moveaxis(codes, 0, -1)
        icc = page.tags.get(34675)
        return codes, None if icc is None else bytes(icc.value), tags


def _png(path: Path, settings: ReadSettings) -> Decoded:
    """Decode a PNG file by Pillow at 8 bits, and at 16 bits, of which Pillow drops half, by imagecodecs."""
    with open_image(path, settings.megapixels, ["PNG"]) as image:
        deep = image.mode.startswith("I") or _bit_depth(path) == 16
        settings.require_room(*image.size, (FLOAT_BYTES + 1 + deep) * len(image.getbands()) + WORKING_BYTES)
        icc, tags = image.info.get("icc_profile"), parse_exif(_png_exif(path))
        if not deep:
            return _eight_bit(image), icc, tags
    return load("imagecodecs", "raw").png_decode(path.read_bytes()), icc, tags


def _bit_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[-1]


def _png_exif(path: Path) -> bytes:
    """Return the EXIF of a PNG file; Pillow reads it with the pixels, which it may follow."""
    with path.open("rb") as file:
        file.seek(PNG_HEAD)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(min(length, MOST_EXIF))
            file.seek(length + 4, os.SEEK_CUR)
    return b""


def _jpeg(path: Path, settings: ReadSettings) -> Decoded:
    with path.open("rb") as file:
        check_tags(file)
        with open_image(file, settings.megapixels, ["JPEG", "MPO"]) as image:
            settings.require_room(*image.size, (FLOAT_BYTES + 1) * len(image.getbands()) + WORKING_BYTES)
            if image.mode == "CMYK":
                raise ValueError("colours of a printer (CMYK)")
            return _eight_bit(image), image.info.get("icc_profile"), parse_exif(image.info.get("exif") or b"")


def _eight_bit(image: Image.Image) -> Any:
    grey = image.mode in ("1", "L", "LA")
    mode = "L" if grey else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))  # converting copies in any case


def _without_orientation(tags: Tags) -> Tags:
    """Leave out the orientation: libheif has turned the picture (ISO/IEC 23008-12, A.2.1)."""
    return replace(tags, image={tag: entry for tag, entry in tags.image.items() if tag != ORIENTATION})


def parse_exif(exif: bytes) -> Tags:
    """Parse the EXIF of a picture; empty where it is damaged, as the pixels beside it may be sound."""
    try:
        tags = tiff_tags.parse(io.BytesIO(exif.removeprefix(EXIF_HEAD)), lenient=True)
    except ValueError:
        return NO_TAGS
    first, inner = (
        {tag: entry for tag, entry in ifd.items() if tag not in POINTERS} for ifd in (tags.first, tags.exif)
    )
    return replace(tags, image=first, exif=inner, pages=0)
