"""Locations of the images of a corpus: files, members of archives, cells of tables, arrays, items of a sequence.

An image is an 8-bit picture, or an array where the model takes arrays.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.explanation.data import locations
from klarsicht.ground.entry_points import import_callable
from klarsicht.ground.errors import ImageError, ImageRefused, UnreadableFile, UsageError
from klarsicht.ground.foreign import foreign_errors_on_image
from klarsicht.ground.machine.disk import describe_system_error
from klarsicht.ground.pictures.array_images import ArrayForm, read_array
from klarsicht.ground.pictures.images import decode, decode_bytes, extensions, picture_from_array, picture_from_image
from klarsicht.ground.pictures.npy_files import NPY

END_BYTES = 64 * 1024  # bytes hashed at each end of a picture's content
UNREADABLE = b"unreadable"  # in place of the hash; `decode` reports it
DecodedImage = Image.Image | NDArray[Any]
"""8-bit picture, RGB or grey, or an array (H, W, C) of the form that the model takes."""


class PictureReader(Protocol):
    """Access to pictures by their path, stateless between processes: what is opened stays in the process."""

    def read(self, path: str) -> Any:
        """Read what is stored: the bytes of an image file, its path, an array or a Pillow image.

        Raises:
            ImageError: what is stored is none, or damaged.
            InputError: a disk or a store does not give it.
        """

    def fingerprint(self, path: str) -> bytes:
        """Hash what is stored; UNREADABLE where there is nothing that could be read.

        Raises:
            InputError: a disk or a store does not answer.
        """


@dataclass(frozen=True)
class FileReader:
    """Pictures that are files, local or at URLs."""

    def read(self, path: str) -> Any:
        return locations.read_all(path) if locations.is_url(path) else path

    def fingerprint(self, path: str) -> bytes:
        file = file_of(path)
        return _hash_parts(*locations.read_ends(file, END_BYTES)) if locations.is_url(file) else hash_file(Path(file))


FILES: Final = FileReader()


def file_of(path: str) -> str:
    """Return the file of a path that names a part of it after a #, as SCAN.nii.gz#12; any other path as it is.

    A # that is part of a file's name stays.
    """
    file, mark, part = path.rpartition("#")
    return file if mark and part.isalnum() and not Path(path).is_file() else path


def hash_content(content: bytes) -> bytes:
    """Hash size, first and last END_BYTES of some bytes: what `hash_file` gives of a file with them."""
    size = len(content)
    tail = max(size - END_BYTES, min(END_BYTES, size))
    return _hash_parts(size, content[:END_BYTES] + content[tail:])


def hash_array(pixels: NDArray[Any]) -> bytes:
    """Hash type, shape and both ends of an array."""
    head = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.sha256(head + hash_content(pixels.tobytes())).digest()


def hash_file(path: Path) -> bytes:
    """Hash size, first and last END_BYTES of a file; UNREADABLE where it is a dangling link, or no file.

    A pipe or a device is never opened: it might never end.

    Raises:
        UnreadableFile: its folder is away, it may not be read, or its disk does not answer.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return UNREADABLE
        with path.open("rb") as file:
            head = file.read(END_BYTES)
            file.seek(max(status.st_size - END_BYTES, len(head)))
            return _hash_parts(status.st_size, head + file.read(END_BYTES))
    except ValueError:  # a name that no system can hold
        return UNREADABLE
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            return UNREADABLE
        raise UnreadableFile("a file cannot be read", got=f"{path}: {describe_system_error(error)}") from error


def _hash_parts(size: int, ends: bytes) -> bytes:
    return hashlib.sha256(f"{size}\0".encode() + ends).digest()


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of files that hold an image, in lower case and with their dot."""
    return extensions() | {NPY}


def make_image(
    value: Any, name: str, white_level: int | None, megapixels: float, form: ArrayForm | None
) -> DecodedImage:
    """Make an image of what a reader or a user's function gives: a picture, or an array where a form is given.

    Raises:
        ImageError: see `make_picture` and `ground.pictures.array_images.read_array`.
    """
    if form is not None:
        return read_array(value, form, name, white_level, megapixels)
    return make_picture(value, name, white_level, megapixels)


def make_picture(value: Any, name: str, white_level: int | None, megapixels: float) -> Image.Image:
    """Make an 8-bit picture, "RGB" or "L", of what a reader or a user's function gives.

    Args:
        value: path of an image file, bytes of one, a Pillow image, or an array as `picture_from_array` takes it; a
            torch tensor counts as an array.
        name: what the picture is called in an error.

    Raises:
        ImageError: anything else, or no readable picture.
    """
    if isinstance(value, str | Path):
        return decode(value, white_level, megapixels)
    if isinstance(value, bytes | bytearray | memoryview):
        return decode_bytes(bytes(value), name, white_level, megapixels)
    if isinstance(value, Image.Image):
        return picture_from_image(value, megapixels)
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        return picture_from_array(np.asarray(value), white_level, megapixels)
    rule = "a path, the bytes of an image file, a Pillow image or an array"
    raise ImageError(f"{name} is no picture", got=type(value).__name__, rule=rule)


@lru_cache(maxsize=4)
def load_decoder(spec: str) -> Any:
    """Import a user's function from what is stored to a picture, `package.module:callable` or `file.py:callable`.

    Raises:
        UsageError: it cannot be imported, or is no function.
    """
    with import_callable(spec, UsageError, "--decode cannot be imported", "Import it in Python first.") as found:
        if not callable(found):
            raise UsageError("--decode names no function", got=f"{spec}: {type(found).__name__}")
        return found


def call_decoder(spec: str, value: Any, name: str) -> Any:
    """Call a user's function with what is stored.

    Raises:
        ImageRefused: it fails on it.
        Unreachable: the system does not give what it reads.
    """
    with foreign_errors_on_image(ImageRefused, f"--decode refuses {name}", of=spec):
        return load_decoder(spec)(value)
