"""Sizes and CRC-32 checksums of the files of a run, by which a file that was lost or altered since is noticed; they
protect against failing disks, broken copies and mistakes, not against intent."""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from klarsicht.ground.machine.disk import NOT_REGULAR

BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class Checksum:
    """Size in bytes and CRC-32 of a file's content."""

    size: int
    crc32: int

    @classmethod
    def of(cls, content: bytes) -> Checksum:
        return cls(len(content), zlib.crc32(content))

    @classmethod
    def of_file(cls, path: Path) -> Checksum:
        """Compute the checksum of a file; once in this process as long as size, date and inode stay. Raises OSError."""
        known = path.stat()
        if not stat.S_ISREG(known.st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR)
        return _of_unchanged(path, known.st_ino, known.st_size, known.st_mtime_ns)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Checksum:
        """Read a checksum; raises TypeError, KeyError or ValueError for anything else."""
        return cls(int(record["size"]), int(record["crc32"]))

    def to_json(self) -> dict[str, int]:
        return asdict(self)


Written = dict[str, Checksum | None]
"""Checksum of each file that was written, by its path inside the run; None: it must not exist (a shard of zeros)."""


@lru_cache(maxsize=1 << 17)
def _of_unchanged(path: Path, inode: int, size: int, date: int) -> Checksum:
    total, crc = 0, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total, crc = total + len(block), zlib.crc32(block, crc)
    return Checksum(total, crc)


def find_damage(path: Path, expected: Checksum | None) -> str:
    """Compare a file with its checksum: "" where they agree, else what is wrong, in a few words."""
    try:
        if path.is_dir():
            return "a folder in place of a file"
        return describe_difference(Checksum.of_file(path), expected)
    except (FileNotFoundError, NotADirectoryError):
        return "" if expected is None else "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def describe_difference(content: Checksum, expected: Checksum | None) -> str:
    """Say how a file that exists differs from its checksum; "" where it does not."""
    if expected is None:
        return "a file where none was written"
    if content.size != expected.size:
        return f"{content.size} bytes, written were {expected.size}"
    return "" if content == expected else "altered since it was written"
