"""Reader of .npy files, one array each, that trusts nothing in their header; and their writer."""

from __future__ import annotations

import io
import math
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from klarsicht.ground.errors import ImageError

NPY: Final = ".npy"
NPY_MAGIC: Final = b"\x93NUMPY"  # at the beginning of such a file
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def npy_bytes(numbers: NDArray[Any]) -> bytes:
    """Encode an array of numbers as a .npy file (NumPy's format 1.0)."""
    content = io.BytesIO()
    npy.write_array(content, np.ascontiguousarray(numbers), (1, 0), allow_pickle=False)
    return content.getvalue()


def read_npy(source: IO[bytes], megapixels: float) -> NDArray[Any]:
    """Read an array of numbers from a file of NumPy's format 1.0 or 2.0 that is open at its beginning; of three axes
    the shortest counts as channels. Raises ImageError: no .npy file, an array of anything but numbers, a file that ends
    too early, or more megapixels."""
    try:
        shape, by_columns, kind = _HEADERS[npy.read_magic(source)](source)
    except Exception as error:  # a damaged header is parsed as a Python literal, and raises nearly anything
        got = f"{type(error).__name__}: {error}"
        raise ImageError("an array cannot be read", got=got, rule="NumPy's .npy") from error
    if kind.hasobject or kind.kind not in "biuf":
        raise ImageError("an array holds no numbers", got=kind, rule="integers or floats", remedy="Store numbers.")
    if min(shape, default=0) < 0:
        raise ImageError("an array has a negative size", got=f"shape {shape}", remedy="Write the file again.")
    pixels = math.prod(shape) // (min(shape) or 1) if len(shape) == 3 else math.prod(shape)
    if pixels > 1e6 * megapixels:
        rule, remedy = f"at most {megapixels:g} megapixels are read", "Raise --megapixels, or leave it out."
        raise ImageError("an array is too large", got=f"shape {shape}", rule=rule, remedy=remedy)
    begin, size = source.tell(), math.prod(shape) * kind.itemsize
    there = source.seek(0, 2) - begin
    if there < size:  # asked before memory is taken for it
        got = f"{there} bytes for shape {shape} of {kind}"
        raise ImageError("an array ends too early", got=got, rule=f"{size} bytes", remedy="Copy the file again.")
    source.seek(begin)
    flat = np.frombuffer(source.read(size), kind)
    return flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)
