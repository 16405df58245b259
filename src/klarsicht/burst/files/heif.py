"""Decoder of HEIC and HEIF pictures by libheif (pillow-heif), at their own bit depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.ground.optional import load

HEIFS = (".heic", ".heif", ".hif")
EXTRA = "heif"
BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # of the first box of a file
HDR_CURVES = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273
WIDEST = 16  # bits that pillow-heif scales deeper codes to
BYTES_A_HEIF_PIXEL = 32  # while codes become light, of four channels; measured on three: 19 at 8 bits, 27 at 10


def decode(path: Path, settings: ReadSettings) -> tuple[Any, int, bytes | None, bytes]:
    """Decode a file: codes (H, W) or (H, W, C), uint8 or uint16, upright; the highest code; ICC profile; EXIF. Raises
    ValueError for codes under a curve of HDR, whose light depends on a display; UsageError where memory is too small;
    MissingExtra; and what pillow-heif raises for damaged files."""
    pillow_heif = load("pillow_heif", EXTRA)
    picture = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)  # decodes at np.asarray
    width, height = picture.size
    settings.require_room(width, height, BYTES_A_HEIF_PIXEL)
    curve = (picture.info.get("nclx_profile") or {}).get("transfer_characteristics")
    if curve in HDR_CURVES:
        raise ValueError(f"codes under the curve {HDR_CURVES[curve]} of HDR; take pictures with HDR switched off")
    codes = np.asarray(picture)
    depth = int(picture.info.get("bit_depth") or 8 * codes.itemsize) if codes.dtype == np.uint16 else 8
    if codes.dtype == np.uint16:
        codes = codes >> (WIDEST - depth)
    return codes, 2**depth - 1, picture.info.get("icc_profile"), picture.info.get("exif") or b""


def read_size_and_exif(path: Path) -> tuple[tuple[int, int], bytes]:
    """Read width, height and EXIF of a file, whose codes are not decoded. Raises as `decode`."""
    picture = load("pillow_heif", EXTRA).open_heif(path, convert_hdr_to_8bit=False)
    return picture.size, picture.info.get("exif") or b""
