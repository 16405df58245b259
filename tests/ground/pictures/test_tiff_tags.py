"""Tags and strips. Oracles: files by tifffile in every layout, and the same files with one field changed by hand."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile

from klarsicht.ground.errors import InputError
from klarsicht.ground.pictures import tiff_tags
from klarsicht.ground.pictures.tiff_tags import TagsTooLong

PIXELS = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
LAYOUTS = {
    "strips": {"rowsperstrip": 8},
    "one strip": {},
    "tiles": {"tile": (16, 32)},
    "big endian": {"rowsperstrip": 8, "byteorder": ">"},
    "BigTIFF": {"rowsperstrip": 8, "bigtiff": True},
    "planes": {"rowsperstrip": 8, "planarconfig": "separate"},
    "compressed": {"rowsperstrip": 8, "compression": "zlib"},
}


def written(**options):
    buffer = io.BytesIO()
    pixels = PIXELS.transpose(2, 0, 1) if options.get("planarconfig") == "separate" else PIXELS
    tifffile.imwrite(buffer, pixels, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def checked(content):
    tags = tiff_tags.parse(io.BytesIO(content))
    tiff_tags.require_strips(tags.first, tags.length)
    return tags


def places(content, tag):
    """Where the values of a tag stand, their size and byte order, by tifffile."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        found = file.pages[0].tags[tag]
        size = {3: 2, 4: 4, 16: 8}[int(found.dtype)]
        return [found.valueoffset + size * i for i in range(found.count)], size, file.byteorder


def edited(content, tag, number, index=1):
    where, size, order = places(content, tag)
    form = {2: "H", 4: "I", 8: "Q"}[size]
    out = bytearray(content)
    struct.pack_into(f"{order}{form}", out, where[min(index, len(where) - 1)], number)
    return bytes(out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sound_files_of_every_layout_pass_and_say_their_size(layout):
    tags = checked(written(**LAYOUTS[layout]))
    assert (tags.number(tiff_tags.WIDTH), tags.number(tiff_tags.LENGTH), tags.pages) == (70, 50, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", ["offset", "size"])
def test_an_empty_strip_is_counted(layout, what):
    tiled = layout == "tiles"
    tag = {"offset": (273, 324), "size": (279, 325)}[what][tiled]
    with pytest.raises(ValueError, match=r"1 of its \d+ (strips|tiles) missing or empty"):
        checked(edited(written(**LAYOUTS[layout]), tag, 0))


def test_fewer_strips_than_rows_ask_for_are_counted():
    """Seven strips of eight rows hold 50; a file that says 80 rows has ten."""
    with pytest.raises(ValueError, match="3 of its 10 strips missing"):
        checked(edited(written(rowsperstrip=8), 257, 80))


def test_a_strip_shorter_than_its_rows_is_named():
    with pytest.raises(ValueError, match="strip 2 of 7 is cut off: 100 bytes of 1680"):
        checked(edited(written(rowsperstrip=8), 279, 100))


def test_a_strip_beyond_the_end_is_named(tmp_path):
    content = edited(written(rowsperstrip=8), 273, 10**6)
    with pytest.raises(ValueError, match="but its tags name"):
        checked(content)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif is cut off"):
        tiff_tags.read(tmp_path / "a.tif")


def test_a_tile_far_larger_than_its_picture_is_refused():
    """A decoder makes room for a whole tile, whatever the picture's size."""
    huge = edited(edited(written(tile=(16, 32)), 322, 32768), 323, 32768)
    with pytest.raises(ValueError, match="tiles of 32768 x 32768 pixels in a picture of 70 x 50"):
        checked(huge)


def test_pages_are_counted_and_a_list_that_leads_back_is_refused():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for _ in range(100):
            file.write(PIXELS, photometric="rgb", metadata=None)
    content = bytearray(buffer.getvalue())
    assert tiff_tags.parse(io.BytesIO(content)).pages == 100
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        second = file.pages[1].offset
        (count,) = struct.unpack_from("<H", content, second)
    struct.pack_into("<I", content, second + 2 + 12 * count, struct.unpack_from("<I", content, 4)[0])
    with pytest.raises(ValueError, match="leads back"):
        tiff_tags.parse(io.BytesIO(content))


def self_referring(count=4000, length=300_000):
    """Every tag of many has the whole file as its value: 1.2 GB of 0.3 MB."""
    tags = b"".join(struct.pack("<HHII", 40000 + i, 7, length - 8, 8) for i in range(count))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", count) + tags + bytes(4)).ljust(length, b"\0")


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(("count", "told"), [(4000, "longer than the file"), (20000, "more than 4096")])
def test_tags_that_refer_to_all_of_the_file_are_refused_before_memory_fills(lenient, count, told):
    content = io.BytesIO(self_referring(count))
    tracemalloc.start()
    with pytest.raises(TagsTooLong, match=told):
        tiff_tags.parse(content, lenient)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_directories_that_refer_to_each_other_are_refused():
    """SubIFDs that all point to the first directory."""
    entry = struct.pack("<HHII", 330, 4, 1, 8)
    with pytest.raises(ValueError, match="twice"):
        tiff_tags.parse(io.BytesIO(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4)))
