"""Developed pictures in files: 16-bit TIFF and PNG, strip by strip, with colour profile and tags; small previews.

PNG is ISO/IEC 15948: chunks of length, name, data and checksum; rows are stored as differences to the row above.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from klarsicht import __version__
from klarsicht.burst.data import tiff_tags
from klarsicht.burst.data.photograph import ORIENTATION
from klarsicht.burst.data.tiff_tags import Entry, Ifd, Tags, numbers, text
from klarsicht.burst.files.rendering import ROWS, Renderer
from klarsicht.ground.disk import replacing, write_atomically
from klarsicht.ground.images import to_uint8

Strips = Iterable[npt.NDArray[np.uint16]]  # (rows, W, C)

ICC, SOFTWARE, PNG_MAGIC = 34675, 305, b"\x89PNG\r\n\x1a\n"
DEFLATE = 4  # level: 9 takes ten times as long for a few per cent
KEPT = (270, 271, 272, 306, 315, 33432)  # description, make, model, date, artist, copyright
PREVIEW = 2048


@cache
def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile(room: Renderer) -> bytes | None:
    """The input's own; for developed raw files sRGB's; none for linear codes and grey pictures without one."""
    header = room.header
    if header.colour == "mosaic" or (header.icc is None and header.colour == "rgb" and header.curve == "srgb"):
        return srgb_profile()
    return header.icc


def carried(tags: Tags) -> Tags:
    """What is said of a photograph, not of how its pixels were stored. Pixels are upright now."""
    image = {tag: tags.image[tag] for tag in KEPT if tag in tags.image}
    image |= {SOFTWARE: text(f"klarsicht {__version__}"), ORIENTATION: numbers(tiff_tags.SHORT, 1)}
    return Tags(image, dict(tags.exif), dict(tags.gps))


def write_tiff(room: Renderer, path: Path) -> None:
    height, width = room.size
    layout: Ifd = {
        tiff_tags.WIDTH: numbers(tiff_tags.LONG, width),
        tiff_tags.LENGTH: numbers(tiff_tags.LONG, height),
        tiff_tags.BITS: numbers(tiff_tags.SHORT, *[16] * room.channels),
        tiff_tags.COMPRESSION: numbers(tiff_tags.SHORT, 1),
        tiff_tags.PHOTOMETRIC: numbers(tiff_tags.SHORT, 2 if room.channels == 3 else 1),
        tiff_tags.SAMPLES: numbers(tiff_tags.SHORT, room.channels),
        tiff_tags.STRIP_ROWS: numbers(tiff_tags.LONG, ROWS),
        tiff_tags.PLANAR: numbers(tiff_tags.SHORT, 1),
    }
    if (icc := profile(room)) is not None:
        layout[ICC] = Entry(tiff_tags.UNDEFINED, len(icc), icc)
    tags = carried(room.header.tags)
    with replacing(path) as file:
        strips = (strip.astype("<u2").tobytes() for strip in room.strips())
        tiff_tags.write(file, Tags({**tags.image, **layout}, tags.exif, tags.gps), strips)


def write_png(room: Renderer, path: Path) -> None:
    height, width = room.size
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if room.channels == 3 else 0, 0, 0, 0)
    exif = io.BytesIO()
    tiff_tags.write(exif, carried(room.header.tags), [])
    with replacing(path) as file:
        file.write(PNG_MAGIC + chunk(b"IHDR", header))
        if (icc := profile(room)) is not None:
            file.write(chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc)))
        file.write(chunk(b"eXIf", exif.getvalue()))
        for data in deflated(room.strips(), width * room.channels):
            file.write(chunk(b"IDAT", data))
        file.write(chunk(b"IEND", b""))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deflated(strips: Strips, values: int) -> Iterator[bytes]:
    """Rows of so many values, each byte the difference to that above it (filter 2)."""
    squeeze, above = zlib.compressobj(DEFLATE), np.zeros((1, 2 * values), np.uint8)
    for strip in strips:
        rows = np.ascontiguousarray(strip, ">u2").reshape(len(strip), -1).view(np.uint8)
        steps = np.concatenate([above, rows])
        lines = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        lines[:, 0], lines[:, 1:] = 2, steps[1:] - steps[:-1]
        above = rows[-1:]
        if data := squeeze.compress(lines.tobytes()):
            yield data
    yield squeeze.flush()


def jpeg_bytes(shown: npt.NDArray[np.float32], quality: int = 92) -> bytes:
    """Of a picture (h, w, C) in [0, 1], at 8 bits."""
    levels, buffer = to_uint8(shown), io.BytesIO()
    picture = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    picture.save(buffer, "JPEG", quality=quality, subsampling=0, icc_profile=srgb_profile())  # colour noise is shown
    return buffer.getvalue()


def write_preview(room: Renderer, path: Path) -> None:
    write_atomically(path, jpeg_bytes(room.to_look_at.small(PREVIEW)))


WRITERS: dict[str, Callable[[Renderer, Path], None]] = {
    ".tif": write_tiff,
    ".tiff": write_tiff,
    ".png": write_png,
    ".jpg": write_preview,
    ".jpeg": write_preview,
}
