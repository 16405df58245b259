"""Locations of the images of a corpus: files, members of archives, cells of tables, arrays, items of a sequence."""

from __future__ import annotations

import errno
import hashlib
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.data import locations
from klarsicht.ground.errors import ImageError, UnreadableFile
from klarsicht.ground.machine.disk import describe_system_error
from klarsicht.ground.pictures.images import extensions
from klarsicht.ground.pictures.npy_files import NPY
from klarsicht.ground.pictures.stored_images import STORED_KINDS

END_BYTES = 64 * 1024  # bytes hashed at each end of a picture's content
UNREADABLE = b"unreadable"  # in place of the hash; `decode` reports it


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
        palette = bytes(value.getpalette() or ()) if value.mode in ("P", "PA") else b""
        value = np.frombuffer(value.mode.encode() + palette + value.tobytes(), np.uint8)
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
