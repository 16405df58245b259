"""Peak memory and time of reading small files that ask for much, and of the largest photographs that are read.

python benchmarks/burst/damaged_pictures.py
"""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

INNER = """
import time
from pathlib import Path
import imagecodecs, tifffile
from klarsicht.burst.files import reading
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.pictures.images import decode

def high():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before, start = high(), time.perf_counter()
try:
    {read}(Path({path!r}))
    told = "read"
except KlarsichtError as error:
    told = str(error)[:120]
print(f"{{high() - before:.0f}} MiB, {{time.perf_counter() - start:.1f}} s: {{told}}")
"""
MEMORY = 12 << 30  # of address space: a file that asks for more ends its own process, and no other


def png(width: int, height: int, channels: int) -> bytes:
    """Black, 8 bits: zeros that compress a thousandfold."""
    squeeze, row = zlib.compressobj(9), bytes(1 + width * channels)
    body = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    joined = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(joined)


def self_referring(tags: int = 4000, length: int = 1_250_000) -> bytes:
    """A TIFF whose tags all have the whole file as their value."""
    entries = b"".join(struct.pack("<HHII", 40000 + i, 7, length - 8, 8) for i in range(tags))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)).ljust(length, b"\0")


def jpeg_with(exif: bytes) -> bytes:
    """A JPEG of 64 pixels with EXIF over many segments."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "JPEG")
    body = buffer.getvalue()[2:]
    parts = [exif[i : i + 60_000] for i in range(0, len(exif), 60_000)]
    segments = (b"\xff\xe1" + struct.pack(">H", len(p) + 8) + b"Exif\0\0" + p for p in parts)
    return b"\xff\xd8" + b"".join(segments) + body[2 + int.from_bytes(body[2:4]) :]


FILES = {
    "240-megapixels.png": lambda: png(20_000, 12_000, 3),
    "201-megapixels-grey.png": lambda: png(16_384, 12_288, 1),
    "201-megapixels.png": lambda: png(16_384, 12_288, 3),
    "201-megapixels-transparent.png": lambda: png(16_384, 12_288, 4),
    "tags.tif": self_referring,
    "tags.jpg": lambda: jpeg_with(self_referring()),
}


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, make in FILES.items():
            path = Path(folder) / name
            path.write_bytes(make())
            for read in ("decode", "reading.read"):
                code = INNER.format(read=read, path=str(path))
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit)
                told = done.stdout.strip() or f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
                print(f"{name} ({path.stat().st_size / 1000:.0f} kB), {read}: {told}", flush=True)


if __name__ == "__main__":
    main()
