"""Mutators: functions that damage the bytes of a file, as disks, transfers and attackers do.

`mutate` draws one to three of them. Those at the top know nothing of the content; below are those that know a format
and leave it sound but for one field, so that damage gets past the first check: chunks of PNG (with a right checksum),
segments of JPEG, tags of TIFF, JSON, the header of safetensors, words of a text.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutator = Callable[[bytes, Rng], bytes]

INTEGERS = (
    0, 1, 2, 3, 7, 8, 16, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1,
)  # fmt: skip
WORDS = (
    "", "0", "-1", "nan", "inf", "-inf", "1e400", "1e-400", "99999999999999999999", "true", "null", "[]", "{}", '"',
    "\0", "\u202egnp.exe", "a" * 5000, "../../x", "\ufeff", "=1+1",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e308, 2**70, float("nan"), "", "x", "\u202e", [], [[]], {}, {"a": 1},
)  # fmt: skip


def mutate(content: bytes, rng: Rng) -> bytes:
    """Apply one to three mutators that fit the content."""
    for _ in range(1 + int(rng.integers(3))):
        if content:
            some = fitting(content)
            content = some[int(rng.integers(len(some)))](content, rng)
    return content


def fitting(content: bytes) -> tuple[Mutator, ...]:
    """Return the mutators for a content: all that know nothing, and as many times those that know its format."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return (*ANY, edit_chunk, edit_chunk, swap_chunks, edit_png_header)
    if content[:2] == b"\xff\xd8":
        return (*ANY, edit_segment, edit_segment, drop_segment, edit_jpeg_size, repeat_segment)
    if content[:2] in (b"II", b"MM"):
        return (*ANY, edit_tag, edit_tag, edit_tag, edit_tag, refer_to_itself)
    if content[:1] in (b"{", b"["):
        return (*ANY, edit_json, edit_json, edit_json, edit_json, edit_word)
    if content[8:9] == b"{":
        return (*ANY, edit_header, edit_header, edit_header)
    if b"\0" not in content:
        return (*ANY, edit_word, edit_word, edit_word, swap_lines)
    return ANY


# Of any content


def flip_bits(content: bytes, rng: Rng) -> bytes:
    """Flip one to sixteen bits."""
    out = bytearray(content)
    for place in rng.integers(0, 8 * len(out), 1 + int(rng.integers(16))):
        out[place // 8] ^= 1 << (place % 8)
    return bytes(out)


def truncate(content: bytes, rng: Rng) -> bytes:
    """Cut the file off."""
    return content[: int(rng.integers(len(content)))]


def swap_blocks(content: bytes, rng: Rng) -> bytes:
    """Exchange two blocks of equal length."""
    size = 1 + int(rng.integers(max(1, len(content) // 4)))
    if 2 * size > len(content):
        return content
    a = int(rng.integers(len(content) - 2 * size + 1))
    b = int(rng.integers(a + size, len(content) - size + 1))
    return content[:a] + content[b : b + size] + content[a + size : b] + content[a : a + size] + content[b + size :]


def drop_block(content: bytes, rng: Rng) -> bytes:
    """Leave a block out."""
    a, b = sorted(int(p) for p in rng.integers(0, len(content) + 1, 2))
    return content[:a] + content[b:]


def repeat_block(content: bytes, rng: Rng) -> bytes:
    """Write a block twice."""
    a, b = sorted(int(p) for p in rng.integers(0, len(content) + 1, 2))
    return content[:b] + content[a:b] + content[b:]


def zero_block(content: bytes, rng: Rng) -> bytes:
    """Overwrite a block with zeros, as file systems do after a power cut."""
    a, b = sorted(int(p) for p in rng.integers(0, len(content) + 1, 2))
    return content[:a] + bytes(b - a) + content[b:]


def edit_number(content: bytes, rng: Rng) -> bytes:
    """Overwrite two, four or eight bytes with a number at which programs fail: a length, a count, an offset."""
    form = "HIQ"[int(rng.integers(3))]
    size = struct.calcsize(f"<{form}")
    if len(content) < size:
        return content
    place = int(rng.integers(len(content) - size + 1))
    number = INTEGERS[int(rng.integers(len(INTEGERS)))] % 2 ** (8 * size)
    return content[:place] + struct.pack(f"{'<>'[int(rng.integers(2))]}{form}", number) + content[place + size :]


ANY: tuple[Mutator, ...] = (flip_bits, truncate, swap_blocks, drop_block, repeat_block, zero_block, edit_number)


# PNG: length, name, body, CRC-32


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and bodies of all complete chunks."""
    found, place = [], 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def join_chunks(some: list[tuple[bytes, bytes]]) -> bytes:
    """Write chunks with right lengths and checksums."""
    joined = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in some)
    return b"\x89PNG\r\n\x1a\n" + b"".join(joined)


def edit_chunk(content: bytes, rng: Rng) -> bytes:
    """Damage the body of one chunk, whose checksum is made right again."""
    some = chunks(content)
    if not some:
        return content
    i = int(rng.integers(len(some)))
    name, body = some[i]
    some[i] = (name, ANY[int(rng.integers(len(ANY)))](body, rng) if body else b"\0" * int(rng.integers(64)))
    return join_chunks(some)


def swap_chunks(content: bytes, rng: Rng) -> bytes:
    """Put the chunks in another order, and one of them twice."""
    some = chunks(content)
    if not some:
        return content
    rng.shuffle(some[1:])
    return join_chunks([*some, some[int(rng.integers(len(some)))]])


def edit_png_header(content: bytes, rng: Rng) -> bytes:
    """Change width, height, depth, colour or interlacing, with a right checksum."""
    some = chunks(content)
    if not some or len(some[0][1]) < 13:
        return content
    fields = list(struct.unpack(">IIBBBBB", some[0][1][:13]))
    i = int(rng.integers(7))
    fields[i] = INTEGERS[int(rng.integers(len(INTEGERS)))] % 2**32 if i < 2 else int(rng.integers(20))
    return join_chunks([(some[0][0], struct.pack(">IIBBBBB", *fields)), *some[1:]])


# JPEG: marker, length, body


def segments(content: bytes) -> list[tuple[int, int]]:
    """Return the places and lengths of the segments before the scan, markers included."""
    found, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        size = 2 + int.from_bytes(content[place + 2 : place + 4])
        found.append((place, size))
        place += size
    return found


def edit_segment(content: bytes, rng: Rng) -> bytes:
    """Damage the body of a segment; its length stays."""
    some = segments(content)
    if not some:
        return content
    place, size = some[int(rng.integers(len(some)))]
    body = content[place + 4 : place + size]
    if not body:
        return content
    damage = (flip_bits, swap_blocks, zero_block, edit_number)[int(rng.integers(4))]
    return content[: place + 4] + damage(body, rng) + content[place + size :]


def drop_segment(content: bytes, rng: Rng) -> bytes:
    """Leave a segment out."""
    some = segments(content)
    if not some:
        return content
    place, size = some[int(rng.integers(len(some)))]
    return content[:place] + content[place + size :]


def repeat_segment(content: bytes, rng: Rng) -> bytes:
    """Write a segment up to nine times."""
    some = segments(content)
    if not some:
        return content
    place, size = some[int(rng.integers(len(some)))]
    return content[:place] + content[place : place + size] * int(rng.integers(1, 9)) + content[place:]


def edit_jpeg_size(content: bytes, rng: Rng) -> bytes:
    """Change height, width, or the number of components of a frame."""
    for place, _ in segments(content):
        if content[place + 1] in (0xC0, 0xC1, 0xC2):
            at = place + (5, 7, 9)[int(rng.integers(3))]
            number = INTEGERS[int(rng.integers(len(INTEGERS)))] % 65536
            return content[:at] + struct.pack(">H", number) + content[at + 2 :]
    return content


# TIFF: directories of tags


def records(content: bytes) -> tuple[str, list[int]]:
    """Return the byte order, and the places of all records of classic directories that can be reached."""
    order = "<" if content[:2] == b"II" else ">"
    found: list[int] = []
    queue, seen = [4], set()
    while queue:
        pointer = queue.pop()
        if pointer + 4 > len(content):
            continue
        (offset,) = struct.unpack_from(f"{order}I", content, pointer)
        if offset in seen or not 0 < offset <= len(content) - 2:
            continue
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", content, offset)
        places = [offset + 2 + 12 * i for i in range(count) if offset + 14 + 12 * i <= len(content)]
        found += places
        queue.append(offset + 2 + 12 * count)
        queue += [p + 8 for p in places if struct.unpack_from(f"{order}H", content, p)[0] in (330, 34665, 34853, 40965)]
    return order, found


def edit_tag(content: bytes, rng: Rng) -> bytes:
    """Change number, type, count, or value or offset of one tag, or one of the values that it points to."""
    order, places = records(content)
    if not places:
        return content
    place, out = places[int(rng.integers(len(places)))], bytearray(content)
    field = int(rng.integers(5))
    number = INTEGERS[int(rng.integers(len(INTEGERS)))]
    if rng.random() < 0.3:
        number = int(rng.integers(len(content)))
    if field == 0:
        other = places[int(rng.integers(len(places)))]
        out[place : place + 2] = content[other : other + 2]
    elif field == 1:
        struct.pack_into(f"{order}H", out, place + 2, int(rng.integers(20)))
    elif field in (2, 3):
        struct.pack_into(f"{order}I", out, place + 4 * (field - 1), number % 2**32)
    else:
        (offset,) = struct.unpack_from(f"{order}I", content, place + 8)
        if offset + 8 <= len(content):
            struct.pack_into(f"{order}I", out, offset + 4 * int(rng.integers(2)), number % 2**32)
    return bytes(out)


def refer_to_itself(content: bytes, rng: Rng) -> bytes:
    """Point every tag of many at the whole file, or a directory at one before it."""
    order, places = records(content)
    if not places:
        return content
    out = bytearray(content)
    (first,) = struct.unpack_from(f"{order}I", content, 4)
    if rng.random() < 0.5:
        for place in places:
            if rng.random() < 0.5:
                struct.pack_into(f"{order}HII", out, place + 2, 1, max(5, len(content) - 8), 8)
    else:
        at = max(places) + 12
        if at + 4 <= len(out):
            struct.pack_into(f"{order}I", out, at, first)
    return bytes(out)


# JSON, safetensors, text


def edit_json(content: bytes, rng: Rng) -> bytes:
    """Replace, leave out, or double one value of a JSON document."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            visit(value)

    visit(document)
    if not places:
        return content
    node, key = places[int(rng.integers(len(places)))]
    what = int(rng.integers(4))
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = VALUES[int(rng.integers(len(VALUES)))]
    return json.dumps(document).encode()


def edit_header(content: bytes, rng: Rng) -> bytes:
    """Change one value of the JSON header of a safetensors file, or of the JSON inside it, with the right length."""
    (size,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + size] if size <= len(content) else b""
    try:
        parsed = json.loads(header)
        inner = parsed["__metadata__"]
        key = next(iter(inner))
        if rng.random() < 0.5:
            inner[key] = edit_json(inner[key].encode(), rng).decode()
            new = json.dumps(parsed).encode()
        else:
            new = edit_json(header, rng)
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError):
        new = edit_json(header, rng)
    return struct.pack("<Q", len(new)) + new + content[8 + size :]


def edit_word(content: bytes, rng: Rng) -> bytes:
    """Replace a word or number of a text."""
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content
    word = words[int(rng.integers(len(words)))]
    return content[: word.start()] + WORDS[int(rng.integers(len(WORDS)))].encode() + content[word.end() :]


def swap_lines(content: bytes, rng: Rng) -> bytes:
    """Exchange two lines, or write one twice."""
    lines = content.split(b"\n")
    a, b = (int(i) for i in rng.integers(0, len(lines), 2))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join([*lines, lines[a]] if rng.random() < 0.5 else lines)
