"""Locations of the images of a corpus: files, members of archives, cells of tables, arrays, items of a sequence."""

from __future__ import annotations

import errno
import hashlib
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Final

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
STORED_KINDS = "a path, the bytes of an image file, a Pillow image or an array"
DecodedImage = Image.Image | NDArray[Any]
"""8-bit picture, RGB or grey, or an array (H, W, C) of the form that the model takes."""


class PictureReader:
    """Access to pictures by their path, stateless between processes: what is opened stays in the process."""

    def read(self, path: str) -> Any:
        """Read what is stored: the bytes of an image file, its path, an array or a Pillow image. Raises ImageError
        where that is none, or damaged, and InputError where a disk or a store does not give it."""
        raise NotImplementedError  # each container has its own way to read

    def fingerprint(self, path: str) -> bytes:
        """Hash what is stored, UNREADABLE where nothing is; raises InputError where a disk or store does not answer."""
        try:
            return hash_stored(self.read(path))
        except ImageError:
            return UNREADABLE


@dataclass(frozen=True)
class FileReader(PictureReader):
    """Pictures that are files, local or at URLs."""

    def read(self, path: str) -> Any:
        return locations.read_all(path) if locations.is_url(path) else path

    def fingerprint(self, path: str) -> bytes:
        file = file_of(path)
        return _hash_parts(*locations.read_ends(file, END_BYTES)) if locations.is_url(file) else hash_file(Path(file))


FILES: Final = FileReader()


def file_of(path: str) -> str:
    """Return the file of a path that names a part of it after a #, as SCAN.nii.gz#12; any other path as it is, also of
    a file with a # in its name."""
    file, mark, part = path.rpartition("#")
    return file if mark and part.isalnum() and not Path(path).is_file() else path


def hash_stored(value: Any) -> bytes:
    """Hash both ends of a stored picture: of the file at a path, of bytes as of a file with them, of pixels with their
    type and shape; raises ImageError for anything else."""
    if isinstance(value, str | PathLike):
        with suppress(UnreadableFile):  # a file that was never there says nothing of a disk
            return FILES.fingerprint(str(value))
        return UNREADABLE
    if isinstance(value, bytes | bytearray):
        tail = max(len(value) - END_BYTES, min(END_BYTES, len(value)))
        return _hash_parts(len(value), bytes(value[:END_BYTES] + value[tail:]))
    if isinstance(value, Image.Image):
        value = np.frombuffer(value.mode.encode() + value.tobytes(), np.uint8)
    if not hasattr(value, "__array__"):
        raise ImageError("the stored item is not a picture", got=type(value).__name__, rule=STORED_KINDS)
    pixels = np.asarray(value)
    head = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.sha256(head + hash_stored(pixels.tobytes())).digest()


def hash_file(path: Path) -> bytes:
    """Hash size, first and last END_BYTES of a file; UNREADABLE where it is a dangling link, or no file: a pipe or a
    device might never end. Raises UnreadableFile where its folder is away, or its disk does not answer."""
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
    """Return the endings of files that hold an image, in lower case, with their dot."""
    return extensions() | {NPY}


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
