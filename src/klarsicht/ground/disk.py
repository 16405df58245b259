"""Atomic writes and file locks: an interruption at any moment leaves the old or the new content of a file, never a
part.

POSIX (flock).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from klarsicht.ground.errors import DiskFull, RunLocked, StoreError

NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEFTOVERS = (".*.tmp", "*.partial")  # temporary files of killed processes: klarsicht's and zarr's


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Convert the operating system's write errors to errors that name the remedy.

    Raises:
        DiskFull: no space, quota or file size left.
        StoreError: any other, for instance a read-only folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE_ERRORS:
            raise DiskFull(
                f"no space left to write {path}",
                got=error.strerror,
                rule="what is complete is kept",
                remedy="Free space and run the same command again to resume.",
            ) from error
        raise StoreError(
            f"cannot write {path}",
            got=error.strerror or error,
            remedy="Check the folder's rights, or its name.",
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file durably and make its folder. Raises as `translate_write_errors`; then the old content is kept."""
    with replace_atomically(path) as file:
        file.write(content)


@contextmanager
def replace_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that durably replaces the old one when the context ends. Raises as `write_atomically`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file with the process id; the system frees it when the process ends, however it ends.

    Raises:
        RunLocked: another process holds it; the error names that process.
    """
    with translate_write_errors(path):
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunLocked(
                "another process writes to this run",
                got=f"process {file.read().strip() or 'unknown'} in {path.parent}",
                remedy="Wait for it, stop it, or choose another --out.",
            ) from None
        with translate_write_errors(path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes. Only the holder of the folder's lock may call it."""
    with translate_write_errors(folder):
        for pattern in LEFTOVERS:
            for leftover in folder.rglob(pattern):
                leftover.unlink(missing_ok=True)
