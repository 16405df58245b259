"""Tiles of a DNG under lossless JPEG (ISO/IEC 10918-1, process 14, predictor 1), the compression that every reader of
DNG files knows; deflate is for floats alone (DNG specification 1.7, chapter 3).

A mosaic is stored as pictures of half the width with two samples a pixel: each then follows one of its own colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from klarsicht.ground.optional import load

Codes = npt.NDArray[np.uint16]  # rows W C

STORED_TILE = 256  # pixels
TILE_MULTIPLE = 16  # of which a tile's side is one (TIFF 6.0, section 15)
UNCOMPRESSED, LOSSLESS_JPEG = 1, 7


def tile_side(length: int) -> int:
    """Return the side of tiles of a picture so long: STORED_TILE, or what fits into a smaller one, because dcraw takes
    a tile wider than its picture for one of shorter rows."""
    return min(STORED_TILE, max(TILE_MULTIPLE, length // TILE_MULTIPLE * TILE_MULTIPLE))


def compression() -> int:
    """Return the compression of the tiles that `encode_tile` makes: none without the package that compresses."""
    return LOSSLESS_JPEG if find_spec("imagecodecs") else UNCOMPRESSED


def encode_tile(codes: Codes) -> bytes:
    """Encode the samples (h, w, C) of a tile, C from 1 to 4."""
    if compression() == UNCOMPRESSED:
        return codes.astype("<u2").tobytes()
    options = {"lossless": True, "predictor": 1, "bitspersample": 16}
    colours = {"colorspace": "UNKNOWN", "outcolorspace": "UNKNOWN"} if codes.shape[-1] > 1 else {}
    samples = np.ascontiguousarray(codes if codes.shape[-1] > 1 else codes[..., 0])
    return bytes(load("imagecodecs", "raw").jpeg8_encode(samples, **options, **colours))


def cut_tiles(strips: Iterable[Codes], height: int, width: int) -> Iterator[Codes]:
    """Cut strips (rows, W, C) of a picture into tiles (height, width, C), row by row. Beyond it rows go on with their
    last pixel, and further rows are 0: both take hardly any bits."""
    rows_left: list[Codes] = []
    for strip in strips:
        rows_left.append(strip)
        if sum(map(len, rows_left)) >= height:
            rows = np.concatenate(rows_left)
            whole = len(rows) // height * height
            for first in range(0, whole, height):
                yield from _cut_row(rows[first : first + height], height, width)
            rows_left = [rows[whole:]]
    rest = np.concatenate(rows_left)
    if len(rest):
        yield from _cut_row(rest, height, width)


def _cut_row(rows: Codes, height: int, width: int) -> Iterator[Codes]:
    beside = -rows.shape[1] % width
    full = np.pad(np.pad(rows, ((0, 0), (0, beside), (0, 0)), mode="edge"), ((0, height - len(rows)), (0, 0), (0, 0)))
    for first in range(0, full.shape[1], width):
        yield full[:, first : first + width]
