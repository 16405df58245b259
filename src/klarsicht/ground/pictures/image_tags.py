"""Tags of image files, checked before another library reads them: those of TIFF, and EXIF in JPEG files."""

from __future__ import annotations

import io
from typing import IO, BinaryIO, cast

from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import Tags, TagsTooLong

EXIF_HEAD = b"Exif\0\0"


def check_tags(source: IO[bytes]) -> Tags:
    """Check the tags of a TIFF file, or of a JPEG file's EXIF, before another library reads them; return a TIFF's.
    Raises ValueError: strips are missing, or the tags are longer than the file (TagsTooLong), which would fill
    memory."""
    tags = tiff_tags.parse(cast(BinaryIO, source), lenient=True)
    source.seek(0)
    if tags.pages:
        tiff_tags.require_strips(tags.first, tags.length)
    elif exif := _exif_of_jpeg(source):
        check_exif(exif)
    source.seek(0)
    return tags


def _exif_of_jpeg(source: IO[bytes]) -> bytes:
    """Read the EXIF segments of a JPEG file, which are one after the other one block (ITU-T T.81 B.1.1, EXIF 4.7.2)."""
    exif = b""
    if source.read(2) != b"\xff\xd8":
        return exif
    while len(head := source.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        if head[1] == 0xFF:  # a fill byte
            source.seek(-3, 1)
            continue
        body = source.read(max(int.from_bytes(head[2:]) - 2, 0))
        if head[1] == 0xE1 and body[:6] == EXIF_HEAD:
            exif += body[6:]
    return exif


def check_exif(exif: bytes) -> None:
    """Raise TagsTooLong where EXIF is longer than it can be; other damage is left to Pillow, which passes over it."""
    try:
        tiff_tags.parse(io.BytesIO(exif.removeprefix(EXIF_HEAD)), lenient=True)
    except TagsTooLong:
        raise
    except ValueError:
        return
