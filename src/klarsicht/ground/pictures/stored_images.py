"""Images made of what a corpus stores: the path or bytes of a file, a Pillow image or an array, or whatever a user's
function makes one of."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.ground.entry_points import import_callable
from klarsicht.ground.errors import ImageError, ImageRefused, UsageError
from klarsicht.ground.foreign import foreign_errors_on_image
from klarsicht.ground.pictures.array_images import ArrayForm, read_array
from klarsicht.ground.pictures.images import decode, decode_bytes, picture_from_array, picture_from_image

STORED_KINDS: Final = "a path, the bytes of an image file, a Pillow image or an array"
DecodedImage = Image.Image | NDArray[Any]
"""8-bit picture, RGB or grey, or an array (H, W, C) of the form that the model takes."""


def make_image(
    value: Any, name: str, white_level: int | None, megapixels: float, form: ArrayForm | None
) -> DecodedImage:
    """Make an image of what a reader or a user's function gives: the path or bytes of an image file, a Pillow image or
    an array. It becomes an array where a form is given, else an 8-bit picture, "RGB" or "L"; `name` is the picture in
    an error. Raises ImageError for anything else, and where no image can be read."""
    if form is not None:
        return read_array(value, form, name, white_level, megapixels)
    if isinstance(value, str | Path):
        return decode(value, white_level, megapixels)
    if isinstance(value, bytes | bytearray | memoryview):
        return decode_bytes(bytes(value), name, white_level, megapixels)
    if isinstance(value, Image.Image):
        return picture_from_image(value, megapixels)
    if hasattr(value, "__array__"):
        return picture_from_array(np.asarray(value), white_level, megapixels)
    raise ImageError(f"{name} is not a picture", got=type(value).__name__, rule=STORED_KINDS)


@lru_cache(maxsize=4)
def load_decoder(spec: str) -> Any:
    """Import a user's function from what is stored to a picture, `package.module:callable` or `file.py:callable`;
    raises UsageError where that fails, or it is no function."""
    with import_callable(spec, UsageError, "--decode cannot be imported", "Import it in Python first.") as found:
        if not callable(found):
            raise UsageError("--decode names no function", got=f"{spec}: {type(found).__name__}")
        return found


def call_decoder(spec: str, value: Any, name: str) -> Any:
    """Call a user's function with what is stored; raises ImageRefused where it fails, and Unreachable where the system
    does not give what it reads."""
    with foreign_errors_on_image(ImageRefused, f"--decode refuses {name}", of=spec):
        return load_decoder(spec)(value)
