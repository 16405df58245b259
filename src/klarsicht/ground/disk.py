"""Writing so that a kill at any moment leaves the old bytes or the new ones, never a half. POSIX (flock)."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from klarsicht.ground.errors import DiskFull, RunLocked, StoreError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEFTOVERS = (".*.tmp", "*.partial")  # what a killed process leaves: ours, and zarr's


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into errors that name the remedy.

    Raises:
        DiskFull: no space, quota or file size left.
        StoreError: anything else, for instance a read-only folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
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
    """Replaces a file, durably; makes its folder. Raises as `writing` does, and then the old bytes stay."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of the old one, durably, when all of it is written. As `write_atomically`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
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
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file that names this process. The system frees it when the process dies, however it dies.

    Raises:
        RunLocked: another holds it; names its process.
    """
    with writing(path):
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
        with writing(path):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def sweep(folder: Path) -> None:
    """Removes what killed processes left behind. Only for the holder of the folder's lock."""
    for pattern in LEFTOVERS:
        for leftover in folder.rglob(pattern):
            leftover.unlink(missing_ok=True)
