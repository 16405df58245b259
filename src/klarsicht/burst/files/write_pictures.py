"""Writers of rendered pictures: 16-bit TIFF and PNG (ISO/IEC 15948), with profile and tags, and JPEG previews."""

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
from klarsicht.burst.data.photograph import ORIENTATION
from klarsicht.burst.files.rendering import ROWS, Renderer
from klarsicht.ground.machine.disk import replace_atomically, write_atomically
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.pictures.tiff_tags import Entry, Tags, numbers, text

Strips = Iterable[npt.NDArray[np.uint16]]  # (rows, W, C)

ICC, SOFTWARE, PNG_MAGIC = 34675, 305, b"\x89PNG\r\n\x1a\n"
DEFLATE = 4  # level; 9 takes ten times as long and saves a few per cent
KEPT_TAGS = (270, 271, 272, 306, 315, 33432)  # description, make, model, date, artist, copyright
PREVIEW = 2048
EXIF_MARK = b"Exif\0\0"
JPEG_SEGMENT = 65533 - len(EXIF_MARK)  # bytes of Exif data that a JPEG file can hold (CIPA DC-008, 4.7.2)
LONG_TAG = 1024  # bytes of an entry that is left out first: a maker note, a user's comment


@cache
def srgb_profile() -> bytes:
    """Return the ICC profile of sRGB, dated 1 January 2000, so that the same burst gives the same bytes at any time:
    date and time are bytes 24 to 35 of the header (ICC.1:2022, 7.2), and a profile ID of nought is one not computed."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:84] + bytes(16) + made[100:]


def icc_profile(renderer: Renderer) -> bytes | None:
    """Return the ICC profile to embed: the input's own; sRGB's for developed raw files and for RGB under the sRGB curve
    without one; None for linear codes and grey pictures without one."""
    header = renderer.header
    if header.is_raw or (header.icc is None and header.colour == "rgb" and header.curve == "srgb"):
        return srgb_profile()
    return header.icc


def output_tags(tags: Tags) -> Tags:
    """Return the tags that describe the photograph, without its storage, with orientation 1: pixels are upright."""
    image = {tag: tags.image[tag] for tag in KEPT_TAGS if tag in tags.image}
    image |= {SOFTWARE: text(f"klarsicht {__version__}"), ORIENTATION: numbers(tiff_tags.SHORT, 1)}
    return Tags(image, dict(tags.exif), dict(tags.gps))


def write_tiff(renderer: Renderer, path: Path) -> None:
    """Write a 16-bit uncompressed TIFF."""
    height, width = renderer.size
    layout = tiff_tags.strip_layout(height, width, renderer.channels, ROWS)
    layout[tiff_tags.PHOTOMETRIC] = numbers(tiff_tags.SHORT, 2 if renderer.channels == 3 else 1)
    if (icc := icc_profile(renderer)) is not None:
        layout[ICC] = Entry(tiff_tags.UNDEFINED, len(icc), icc)
    tags = output_tags(renderer.header.tags)
    with replace_atomically(path) as file:
        strips = (strip.astype("<u2").tobytes() for strip in renderer.render_strips())
        tiff_tags.write(file, Tags({**tags.image, **layout}, tags.exif, tags.gps), strips)


def write_png(renderer: Renderer, path: Path) -> None:
    """Write a 16-bit PNG."""
    height, width = renderer.size
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if renderer.channels == 3 else 0, 0, 0, 0)
    with replace_atomically(path) as file:
        file.write(PNG_MAGIC + png_chunk(b"IHDR", header))
        if (icc := icc_profile(renderer)) is not None:
            file.write(png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc)))
        file.write(png_chunk(b"eXIf", exif_block(renderer.header.tags)))
        for data in compress_rows(renderer.render_strips(), width * renderer.channels):
            file.write(png_chunk(b"IDAT", data))
        file.write(png_chunk(b"IEND", b""))


def exif_block(tags: Tags) -> bytes:
    """Return the tags of an output as the block of Exif data of PNG and JPEG files: a TIFF without a picture."""
    block = io.BytesIO()
    tiff_tags.write(block, output_tags(tags), [])
    return block.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    """Return a PNG chunk: length, name, data and CRC-32."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def compress_rows(strips: Strips, values: int) -> Iterator[bytes]:
    """Yield the zlib stream of rows of `values` 16-bit values, each byte less the one above (filter 2)."""
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


def jpeg_bytes(pixels: npt.NDArray[np.float32], exif: bytes = b"") -> bytes:
    """Encode a picture (h, w, C) in [0, 1] as JPEG at 8 bits. exif: a block of Exif data."""
    levels, buffer = to_uint8(pixels), io.BytesIO()
    picture = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    options = {"exif": EXIF_MARK + exif} if exif else {}
    picture.save(buffer, "JPEG", quality=92, subsampling=0, icc_profile=srgb_profile(), **options)  # keeps colour noise
    return buffer.getvalue()


def write_preview(renderer: Renderer, path: Path) -> None:
    """Write a JPEG preview of at most PREVIEW pixels a side, with Exif data as far as a JPEG file has room for them."""
    tags = renderer.header.tags
    exif = exif_block(tags)
    if len(exif) > JPEG_SEGMENT:
        small = {tag: entry for tag, entry in tags.exif.items() if len(entry.data) <= LONG_TAG}
        exif = exif_block(Tags(tags.image, small, tags.gps))
    write_atomically(path, jpeg_bytes(renderer.for_display.thumbnail(PREVIEW), exif))


WRITERS: dict[str, Callable[[Renderer, Path], None]] = {
    ".tif": write_tiff,
    ".tiff": write_tiff,
    ".png": write_png,
    ".jpg": write_preview,
    ".jpeg": write_preview,
}
