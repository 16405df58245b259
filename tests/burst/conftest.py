"""Files as cameras write them, made by another library (tifffile) from counts that the test knows; kernels by torch."""

import numpy as np
import pytest
import tifffile

X_TRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"
MATRIX = (0.9, -0.3, -0.1, -0.5, 1.4, 0.1, -0.1, 0.3, 0.7)  # XYZ to camera


def write_dng(path, counts, pattern="RGGB", black=600, white=16383, profile=(1e-4, 1e-6), extra=(), orientation=1):
    """A DNG of one directory behind a mosaic: the letters R, G, B of its cell, row by row."""
    side = round(len(pattern) ** 0.5)
    blacks = 2 if side == 2 else 1
    matrix = [n for value in MATRIX for n in (round(value * 10000), 10000)]
    tags = [
        (271, 2, 0, "Example", True),
        (272, 2, 0, "Example One", True),
        (33421, 3, 2, (side, side), True),
        (33422, 1, side**2, bytes("RGB".index(letter) for letter in pattern), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),
        (50708, 2, 0, "Example One", True),
        (50713, 3, 2, (blacks, blacks), True),
        (50714, 4, blacks**2, tuple(np.broadcast_to(black, blacks**2).tolist()), True),
        (50717, 4, 1, white, True),
        (50721, 10, 9, matrix, True),
        (50728, 5, 3, (1, 2, 1, 1, 2, 3), True),
        (50778, 3, 1, 21, True),
        (274, 3, 1, orientation, True),
        *extra,
    ]
    if profile:
        tags.append((51041, 12, len(profile), tuple(profile), True))
    tifffile.imwrite(path, counts.astype(np.uint16), photometric=32803, extratags=tags, metadata=None, rowsperstrip=16)
    return path


@pytest.fixture
def plain_kernels(monkeypatch):
    """Kernels are applied by torch and not by programs, which take seconds to compile for each layout: for laws of what
    lies around the operator (numerics/test_pixel_kernels.py holds the programs to torch)."""
    monkeypatch.setattr("klarsicht.numerics.pixel_kernels.load.supports", lambda taps, frames: False)


@pytest.fixture
def dng():
    pytest.importorskip("rawpy")
    return write_dng
