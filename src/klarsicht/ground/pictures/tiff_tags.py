"""Reader and writer of TIFF tags, the container of DNG and most camera raw files. Values are kept as little-endian
bytes, so that tags that are not interpreted here are preserved. Classic TIFF and BigTIFF are read, classic TIFF is
written."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from klarsicht.ground.errors import InputError

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
FORMATS = {
    **{1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"},
    **{16: "Q", 17: "q", 18: "Q"},
}
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_OFFSETS, TILE_BYTES, SUBFILES, SUB_IFDS, EXIF, GPS = 324, 325, 254, 330, 34665, 34853
TILE_WIDTH, TILE_LENGTH, SAMPLE_FORMAT = 322, 323, 339
YCBCR, CFA, LINEAR_RAW = 6, 32803, 34892  # photometric interpretations
UNREAD = (50828,)  # the camera's original file inside a DNG, which may be longer than its pixels
MOST_ENTRIES = 4096  # of a directory; more means a damaged file
MOST_DIRECTORIES = 64  # whose tags are read
MOST_PAGES = 1 << 16  # that are counted
MOST_BYTES = 64 << 20  # of the values of all tags
MOST_TILE_PIXELS = 1 << 24  # of a tile that is larger than its picture
MOST_VALUES = 1 << 22  # numbers of one tag


@dataclass(frozen=True)
class Entry:
    """One tag: its type and number of values, as TIFF counts them, and their bytes in little-endian order."""

    type: int
    count: int
    data: bytes

    @property
    def values(self) -> tuple[float, ...]:
        """The numbers of the entry, at most MOST_VALUES; a rational is one number."""
        form = FORMATS.get(self.type, "B")
        count = min(len(self.data) // struct.calcsize(f"<{form}"), MOST_VALUES)
        flat = struct.unpack_from(f"<{len(form) * count}{form[0]}", self.data)
        if len(form) == 1:
            return flat
        return tuple(a / b if b else 0.0 for a, b in zip(flat[::2], flat[1::2], strict=True))

    @property
    def first(self) -> float | None:
        size = struct.calcsize(f"<{FORMATS.get(self.type, 'B')}")
        return float(Entry(self.type, 1, self.data[:size]).values[0]) if len(self.data) >= size else None

    @property
    def text(self) -> str:
        return self.data.split(b"\0")[0].decode("utf-8", "replace").strip()


Ifd = dict[int, Entry]


class TagsTooLong(ValueError):
    """Tags that say more than the file can hold: values that overlap, or directories without end."""


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
    gps: the tags of their directories. first: those of the first directory alone. pages: the number of directories in
    the file's list, at most MOST_PAGES. length: of the file, in bytes."""

    image: Ifd
    exif: Ifd
    gps: Ifd
    first: Ifd = field(default_factory=dict)
    pages: int = 0
    length: int = 0

    def find(self, tag: int) -> Entry | None:
        return self.image.get(tag) or self.exif.get(tag)

    def number(self, tag: int) -> float | None:
        entry = self.find(tag)
        return None if entry is None else entry.first

    def words(self, tag: int) -> str:
        entry = self.find(tag)
        return "" if entry is None else entry.text


NO_TAGS = Tags({}, {}, {})


def read(path: Path) -> Tags:
    """Read the tags of a TIFF-like file, if it is one. Raises InputError: they are damaged, or picture data are
    missing."""
    try:
        with path.open("rb") as file:
            tags = parse(file)
        require_inside(tags.image, tags.length)
    except ValueError as error:
        remedy = "Copy the file again from the camera, or leave it out."
        raise InputError(f"{path.name} is cut off or damaged", got=error, remedy=remedy) from error
    return tags


def parse(file: BinaryIO, lenient: bool = False) -> Tags:
    """Parse the tags of a TIFF stream; empty for any other content. What is read is bounded whatever the tags say.
    lenient: leave out a tag whose values lie beyond the end. Raises ValueError: damaged directories; TagsTooLong: too
    many or too long ones."""
    head = file.read(8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    magic = b"" if order is None else head[2:4][:: 1 if order == ">" else -1]
    if order is None or magic not in (b"\0\x2a", b"\0\x2b"):
        return NO_TAGS
    return _Reader(file, order, wide=magic == b"\0\x2b", lenient=lenient).tags()


class _Reader:
    """Parser of one file of byte order "<" or ">"; wide: BigTIFF, whose offsets have 64 bits."""

    def __init__(self, file: BinaryIO, order: str, wide: bool, lenient: bool) -> None:
        self.file, self.order, self.lenient = file, order, lenient
        self.length = file.seek(0, 2)
        self.left = min(self.length, MOST_BYTES)  # bytes of values that may still be read
        self.seen: set[int] = set()  # offsets of directories
        self.start, self.counter, self.pointer = (8, "Q", "Q") if wide else (4, "H", "I")
        self.inline = struct.calcsize(self.pointer)  # bytes of a value that stands in its record
        self.record = 4 + 2 * self.inline

    def tags(self) -> Tags:
        first, *others = pages = self.chain(self.start)
        below = [self.directory(int(o)) for p in pages for o in _values_of(p, SUB_IFDS)[:MOST_DIRECTORIES]]
        image = max((first, *others, *below), key=_picture_area)
        exif, gps = (self.pointed_directory(first.get(tag) or image.get(tag)) for tag in (EXIF, GPS))
        return Tags({**first, **image}, exif, gps, first, self.pages, self.length)

    def pointed_directory(self, entry: Entry | None) -> Ifd:
        if entry is None or entry.first is None:
            return {}
        try:
            return self.directory(int(entry.first))
        except ValueError:
            if self.lenient:
                return {}
            raise

    def chain(self, place: int) -> list[Ifd]:
        """Read at most MOST_DIRECTORIES of the linked list whose pointer stands at this offset, and count all."""
        directories: list[Ifd] = []
        offset, self.pages = self.number(place), 0
        offsets: set[int] = set()
        while offset and self.pages < MOST_PAGES:
            if offset in offsets:
                raise ValueError("a directory of tags that leads back to itself")
            offsets.add(offset)
            if len(directories) < MOST_DIRECTORIES:
                directories.append(self.directory(offset))
            self.pages += 1
            count, size = self.count(offset), struct.calcsize(self.counter)
            offset = self.number(offset + size + self.record * count)
        if not directories:
            raise ValueError("a directory of tags that cannot be read (there is none)")
        return directories

    def directory(self, offset: int) -> Ifd:
        if offset in self.seen or len(self.seen) >= MOST_DIRECTORIES:
            raise ValueError("a directory of tags that is referred to twice, or too many of them")
        self.seen.add(offset)
        count = self.count(offset)
        if count > MOST_ENTRIES:
            raise TagsTooLong(f"a directory of {count} tags, more than {MOST_ENTRIES}")
        if count == 0:
            raise ValueError(f"a directory of tags that cannot be read ({count} entries)")
        start = offset + struct.calcsize(self.counter)
        raw, form = self.bytes(start, self.record * count), f"{self.order}HH{self.pointer}"
        entries = (struct.unpack_from(form, raw, self.record * i) for i in range(count))
        tags = (
            (tag, self.entry(kind, n, start + self.record * (i + 1) - self.inline))
            for i, (tag, kind, n) in enumerate(entries)
            if kind in SIZES and tag not in UNREAD
        )
        return {tag: entry for tag, entry in tags if entry is not None}

    def entry(self, kind: int, count: int, place: int) -> Entry | None:
        """Read the values of an entry, in place or where it points to, and convert them to little-endian order."""
        size = SIZES[kind] * count
        try:
            data = self.bytes(place if size <= self.inline else self.number(place), size)
        except ValueError:
            if self.lenient:
                return None
            raise
        self.left -= size if size > self.inline else 0
        if self.left < 0:
            raise TagsTooLong("tags that are longer than the file, or than 64 MiB")
        if self.order == ">" and (unit := struct.calcsize(FORMATS.get(kind, "B")[0])) > 1:
            data = np.frombuffer(data, f">u{unit}").astype(f"<u{unit}").tobytes()
        return Entry(kind, count, data)

    def count(self, offset: int) -> int:
        return self.integer(self.counter, offset)

    def number(self, offset: int) -> int:
        return self.integer(self.pointer, offset)

    def integer(self, form: str, offset: int) -> int:
        return int(struct.unpack(f"{self.order}{form}", self.bytes(offset, struct.calcsize(form)))[0])

    def bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self.length:
            raise ValueError("a directory of tags that cannot be read (it lies beyond the end of the file)")
        self.file.seek(offset)
        return self.file.read(size)


def _values_of(ifd: Ifd, tag: int) -> tuple[float, ...]:
    return ifd[tag].values if tag in ifd else ()


def _number_of(ifd: Ifd, tag: int, default: int = 0) -> int:
    value = ifd[tag].first if tag in ifd else None
    return default if value is None or not math.isfinite(value) else int(value)


def _picture_area(ifd: Ifd) -> float:
    """Return the number of pixels of a directory's picture; the sensor's own picture ranks before any other."""
    sensor = _number_of(ifd, PHOTOMETRIC) in (CFA, LINEAR_RAW)
    return (1e12 if sensor else 0) + _number_of(ifd, WIDTH) * _number_of(ifd, LENGTH)


# Where the pixels lie


def require_inside(ifd: Ifd, length: int) -> None:
    """Raise ValueError where the picture data of a directory would lie beyond the end of a file of this length."""
    for offsets, sizes in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        ends = [a + b for a, b in zip(_values_of(ifd, offsets), _values_of(ifd, sizes), strict=False)]
        if ends and not max(ends) <= length:
            raise ValueError(f"{length} bytes, but its tags name {max(ends):.0f}")


def require_strips(ifd: Ifd, length: int) -> None:
    """Check that no strip or tile of a directory's picture is missing, empty, beyond the end of a file of this length
    or, where not compressed, shorter than its pixels: readers fill these with black. Raises ValueError: counts the
    missing."""
    width, height = _number_of(ifd, WIDTH), _number_of(ifd, LENGTH)
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} x {height} pixels")
    is_tiled = TILE_OFFSETS in ifd
    kind = "tiles" if is_tiled else "strips"
    offsets, sizes = (_values_of(ifd, tag) for tag in ((TILE_OFFSETS, TILE_BYTES) if is_tiled else _STRIPS))
    columns = _number_of(ifd, TILE_WIDTH) if is_tiled else width
    rows = _number_of(ifd, TILE_LENGTH) if is_tiled else min(_number_of(ifd, STRIP_ROWS, height), height)
    if columns < 1 or rows < 1:
        raise ValueError(f"{kind} of {columns} x {rows} pixels")
    if is_tiled and columns * rows > max(4 * width * height, MOST_TILE_PIXELS):
        raise ValueError(f"tiles of {columns} x {rows} pixels in a picture of {width} x {height}")
    samples, separate = _number_of(ifd, SAMPLES, 1), _number_of(ifd, PLANAR, 1) == 2
    count = -(-width // columns) * -(-height // rows) * (samples if separate else 1)
    if len(offsets) == 1 == count and not sizes:  # old writers leave out the size of the only strip
        sizes = (length - offsets[0],)
    there = [(a, b) for a, b in zip(offsets, sizes, strict=False) if a > 0 and b > 0]
    missing = count - len(there[:count])
    if missing > 0:
        raise ValueError(f"{missing} of its {count} {kind} missing or empty")
    require_inside(ifd, length)
    if _number_of(ifd, COMPRESSION, 1) != 1 or _number_of(ifd, PHOTOMETRIC) == YCBCR:
        return
    depths = _values_of(ifd, BITS) or (1,)
    depth = depths[0] if separate else sum(depths) if len(depths) == samples else depths[0] * samples
    per_row = -(-int(columns * depth) // 8)
    per_plane = -(-height // rows)
    for i, (_, size) in enumerate(there[:count]):
        own = rows if is_tiled else min(rows, height - i % per_plane * rows)
        if size < per_row * own:
            raise ValueError(f"{kind[:-1]} {i + 1} of {count} is cut off: {size:.0f} bytes of {per_row * own}")


_STRIPS = (STRIP_OFFSETS, STRIP_BYTES)


def strip_layout(height: int, width: int, samples: int, rows: int) -> Ifd:
    """Build the tags of a picture in uncompressed strips of so many rows, 16 bits a sample, without their places."""
    of_size = {WIDTH: width, LENGTH: height, STRIP_ROWS: rows}
    of_values = {BITS: [16] * samples, COMPRESSION: [1], SAMPLES: [samples], PLANAR: [1]}
    return {tag: numbers(LONG, n) for tag, n in of_size.items()} | {
        tag: numbers(SHORT, *some) for tag, some in of_values.items()
    }


def tile_layout(height: int, width: int, samples: int, side: tuple[int, int], compression: int) -> Ifd:
    """Build the tags of a picture in tiles of that height and width, 16 bits a sample, without their places."""
    strips = strip_layout(height, width, samples, height)
    layout = {tag: entry for tag, entry in strips.items() if tag != STRIP_ROWS}
    return layout | {
        TILE_LENGTH: numbers(LONG, side[0]),
        TILE_WIDTH: numbers(LONG, side[1]),
        COMPRESSION: numbers(SHORT, compression),
    }


def write(file: BinaryIO, tags: Tags, parts: Iterable[bytes], previews: Sequence[tuple[Ifd, bytes]] = ()) -> None:
    """Write a TIFF file of one picture: its strips or tiles, then the tags, which lack only their places. previews:
    tags of further pictures, in directories below the first, and their only strip."""
    file.write(b"II*\0\0\0\0\0")
    ifd = _write_parts(file, tags.image, parts)
    smaller = [_write_directory(file, _write_parts(file, own, [data])) for own, data in previews]
    if smaller:
        ifd[SUB_IFDS] = numbers(LONG, *smaller)
    below = {EXIF: tags.exif, GPS: tags.gps}
    ifd |= {tag: numbers(LONG, _write_directory(file, inner)) for tag, inner in below.items() if inner}
    where = _write_directory(file, ifd)
    file.seek(4)
    file.write(struct.pack("<I", where))


def _write_parts(file: BinaryIO, ifd: Ifd, parts: Iterable[bytes]) -> Ifd:
    """Write the strips or tiles of a picture; return its tags with their places."""
    places, sizes = [], []
    for part in parts:
        places.append(_align_to_word(file))
        sizes.append(len(part))
        file.write(part)
    offsets, counts = (TILE_OFFSETS, TILE_BYTES) if TILE_WIDTH in ifd else _STRIPS
    return {**ifd, offsets: numbers(LONG, *places), counts: numbers(LONG, *sizes)}


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
