"""Reader and writer of TIFF tags, the container of DNG and most camera raw files.

Values are kept as bytes (in little-endian order), so that tags that this package does not interpret are preserved
exactly. Classic TIFF only (offsets of 32 bits).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from klarsicht.ground.errors import InputError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
FORMATS = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_OFFSETS, TILE_BYTES, SUBFILES, SUB_IFDS, EXIF, GPS = 324, 325, 254, 330, 34665, 34853
CFA, LINEAR_RAW = 32803, 34892  # photometric interpretations
MOST_ENTRIES = 4096  # of a directory; more means a damaged file


@dataclass(frozen=True)
class Entry:
    """One tag: its type and number of values, as TIFF counts them, and their bytes in little-endian order."""

    type: int
    count: int
    data: bytes

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers of the entry; a rational is one number."""
        form = FORMATS.get(self.type)
        if form is None:
            return tuple(self.data)
        flat = struct.unpack(f"<{len(form) * self.count}{form[0]}", self.data)
        if len(form) == 1:
            return flat
        return tuple(a / b if b else 0.0 for a, b in zip(flat[::2], flat[1::2], strict=True))

    @property
    def text(self) -> str:
        return self.data.split(b"\0")[0].decode("utf-8", "replace").strip()


Ifd = dict[int, Entry]


def numbers(kind: int, *values: float) -> Entry:
    """Build an entry of integers or floats (no rationals)."""
    return Entry(kind, len(values), struct.pack(f"<{len(values)}{FORMATS[kind]}", *values))


def rationals(*values: float, kind: int = RATIONAL, denominator: int = 1_000_000) -> Entry:
    """Build an entry of rationals with a common denominator."""
    flat = [part for value in values for part in (round(value * denominator), denominator)]
    return Entry(kind, len(values), struct.pack(f"<{len(flat)}{FORMATS[kind][0]}", *flat))


def text(value: str) -> Entry:
    """Build an ASCII entry, terminated by a zero byte."""
    data = value.encode() + b"\0"
    return Entry(ASCII, len(data), data)


@dataclass(frozen=True)
class Tags:
    """The tags of a file. image: the tags of the full-size picture, which override those of the first directory. exif,
    gps: the tags of their directories."""

    image: Ifd
    exif: Ifd
    gps: Ifd

    def find(self, tag: int) -> Entry | None:
        return self.image.get(tag) or self.exif.get(tag)

    def number(self, tag: int) -> float | None:
        entry = self.find(tag)
        return float(entry.values[0]) if entry is not None and entry.count and entry.values else None

    def words(self, tag: int) -> str:
        entry = self.find(tag)
        return "" if entry is None else entry.text


NO_TAGS = Tags({}, {}, {})


def read(path: Path) -> Tags:
    """Read the tags of a TIFF-like file; empty for any other file.

    Raises InputError where picture data would lie beyond the end of the file.
    """
    with path.open("rb") as file:
        reader = _Reader.of(file)
        return NO_TAGS if reader is None else reader.tags(path)


@dataclass(frozen=True)
class _Reader:
    """Parser of one file. order: the byte order, "<" or ">". length: the size of the file in bytes."""

    file: BinaryIO
    order: str
    length: int

    @classmethod
    def of(cls, file: BinaryIO) -> _Reader | None:
        head = file.read(4)
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(head)
        return None if order is None else cls(file, order, file.seek(0, 2))

    def tags(self, path: Path) -> Tags:
        try:
            first, pages = self.chain(4)
            below = [self.directory(int(o)) for p in pages for o in _values_of(p, SUB_IFDS)]
            image = max((*pages, *below), key=_picture_area)
            exif, gps = (self.pointed_directory(first.get(tag) or image.get(tag)) for tag in (EXIF, GPS))
        except (struct.error, ValueError) as error:
            raise _damaged(path, f"a directory of tags that cannot be read ({error})") from error
        for offsets, sizes in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
            ends = [a + b for a, b in zip(_values_of(image, offsets), _values_of(image, sizes), strict=False)]
            if ends and max(ends) > self.length:
                raise _damaged(path, f"{self.length} bytes, of {int(max(ends))} that it speaks of")
        return Tags({**first, **image}, exif, gps)

    def pointed_directory(self, pointer: Entry | None) -> Ifd:
        return self.directory(int(pointer.values[0])) if pointer else {}

    def chain(self, pointer: int) -> tuple[Ifd, list[Ifd]]:
        """Read all directories of the linked list whose pointer stands at this offset; return the first one, and all of
        them."""
        pages: list[Ifd] = []
        offset = self.number(pointer)
        while offset and len(pages) < 64:
            pages.append(self.directory(offset))
            offset = self.number(offset + 2 + 12 * self.short(offset))
        if not pages:
            raise ValueError("there is none")
        return pages[0], pages

    def directory(self, offset: int) -> Ifd:
        count = self.short(offset)
        if not 0 < count <= MOST_ENTRIES:
            raise ValueError(f"{count} entries")
        raw = self.bytes(offset + 2, 12 * count)
        entries = (struct.unpack_from(f"{self.order}HHI", raw, 12 * i) for i in range(count))
        return {
            tag: self.entry(kind, n, offset + 10 + 12 * i) for i, (tag, kind, n) in enumerate(entries) if kind in SIZES
        }

    def entry(self, kind: int, count: int, place: int) -> Entry:
        """Read the values of an entry, in place or where it points to, and convert them to little-endian order."""
        size = SIZES[kind] * count
        data = self.bytes(place if size <= 4 else self.number(place), size)
        if self.order == ">" and (unit := struct.calcsize(FORMATS.get(kind, "B")[0])) > 1:
            data = b"".join(data[i : i + unit][::-1] for i in range(0, size, unit))
        return Entry(kind, count, data)

    def short(self, offset: int) -> int:
        return int(struct.unpack(f"{self.order}H", self.bytes(offset, 2))[0])

    def number(self, offset: int) -> int:
        return int(struct.unpack(f"{self.order}I", self.bytes(offset, 4))[0])

    def bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self.length:
            raise ValueError("it lies beyond the end of the file")
        self.file.seek(offset)
        return self.file.read(size)


def _values_of(ifd: Ifd, tag: int) -> tuple[float, ...]:
    return ifd[tag].values if tag in ifd else ()


def _picture_area(ifd: Ifd) -> float:
    """Return the number of pixels of a directory's picture; the sensor's own picture ranks before any other."""
    sensor = int((_values_of(ifd, PHOTOMETRIC) or (0,))[0]) in (CFA, LINEAR_RAW)
    return (1e12 if sensor else 0) + (_values_of(ifd, WIDTH) or (0,))[0] * (_values_of(ifd, LENGTH) or (0,))[0]


def _damaged(path: Path, got: str) -> InputError:
    remedy = "Copy the file again from the camera, or leave it out."
    return InputError(f"{path.name} is cut off or damaged", got=got, remedy=remedy)


def write(file: BinaryIO, tags: Tags, strips: Iterable[bytes]) -> None:
    """Write a TIFF file of one picture: first its uncompressed strips in their order, then the tags.

    The tags must be complete but for the offsets and sizes of the strips, which are added here.
    """
    file.write(b"II*\0\0\0\0\0")
    places, sizes = [], []
    for strip in strips:
        places.append(file.tell())
        sizes.append(len(strip))
        file.write(strip)
    ifd = {**tags.image, STRIP_OFFSETS: numbers(LONG, *places), STRIP_BYTES: numbers(LONG, *sizes)}
    below = {EXIF: tags.exif, GPS: tags.gps}
    ifd |= {tag: numbers(LONG, _write_directory(file, inner)) for tag, inner in below.items() if inner}
    where = _write_directory(file, ifd)
    file.seek(4)
    file.write(struct.pack("<I", where))


def _write_directory(file: BinaryIO, ifd: Mapping[int, Entry]) -> int:
    """Append the values and the directory to the file; return the directory's offset."""
    lines = list(_lines(file, ifd))
    where = _align_to_word(file)
    file.write(struct.pack("<H", len(lines)) + b"".join(lines) + struct.pack("<I", 0))
    return where


def _lines(file: BinaryIO, ifd: Mapping[int, Entry]) -> Iterator[bytes]:
    """Write the values longer than 4 bytes, and yield the 12-byte directory records in order of their tags."""
    for tag, entry in sorted(ifd.items()):
        here = entry.data.ljust(4, b"\0")
        if len(entry.data) > 4:
            here = struct.pack("<I", _align_to_word(file))
            file.write(entry.data)
        yield struct.pack("<HHI", tag, entry.type, entry.count) + here


def _align_to_word(file: BinaryIO) -> int:
    """Pad the file to an even offset, and return it."""
    if file.tell() % 2:
        file.write(b"\0")
    return file.tell()
