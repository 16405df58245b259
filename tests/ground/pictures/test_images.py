"""Decoding. Oracles: files written by hand or by tifffile, EXIF's table."""

import errno
import io
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from klarsicht.ground.errors import ImageError, UnreadableFile
from klarsicht.ground.pictures import images, libtiff

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOUR[..., 0]


def png(rows: bytes, width: int, height: int, depth: int, kind: int, extra: bytes = b"") -> bytes:
    """A PNG by hand (ISO 15948): kind 0 grey, 2 colour, 3 palette, 4 grey + alpha, 6 colour + alpha."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body


def filtered(rows: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in rows)


def decoded(tmp_path, content: bytes, name: str = "x.png") -> Image.Image:
    (tmp_path / name).write_bytes(content)
    return images.decode(tmp_path / name)


# Decoding


@pytest.mark.parametrize(("pixels", "mode", "kind"), [(COLOUR, "RGB", 2), (GREY, "L", 0)])
def test_eight_bit_comes_back(tmp_path, pixels, mode, kind):
    picture = decoded(tmp_path, png(filtered(pixels), 7, 5, 8, kind))
    assert picture.mode == mode
    np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 1, 128, 129, 257, 32768, 65407, 65535]], ">u2")
    expected = [[round(int(v) / 257) for v in deep[0]]]
    assert np.asarray(decoded(tmp_path, png(filtered(deep), 8, 1, 16, 0))).tolist() == expected
    for name, order in [("little.tif", "<u2"), ("big.tif", ">u2")]:
        tifffile.imwrite(tmp_path / name, deep.astype(order), byteorder=order[0])
        assert np.asarray(images.decode(tmp_path / name)).tolist() == expected


def test_sixteen_bit_colour_keeps_its_upper_bits(tmp_path):
    deep = RNG.integers(0, 65536, (5, 7, 3)).astype(">u2")
    picture = decoded(tmp_path, png(filtered(deep), 7, 5, 16, 2))
    np.testing.assert_array_equal(np.asarray(picture), deep >> 8)


def test_one_bit(tmp_path):
    picture = decoded(tmp_path, png(b"\0\xa0", 8, 1, 1, 0))
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == [[255, 0, 255, 0, 0, 0, 0, 0]]


def test_palette(tmp_path):
    palette = bytes([255, 0, 0, 0, 10, 20])
    plte = struct.pack(">I", 6) + b"PLTE" + palette + struct.pack(">I", zlib.crc32(b"PLTE" + palette))
    picture = decoded(tmp_path, png(b"\0\0\1", 2, 1, 8, 3, plte))
    assert np.asarray(picture).tolist() == [[[255, 0, 0], [0, 10, 20]]]


@pytest.mark.parametrize(("kind", "channels"), [(6, 3), (4, 1)])
def test_transparent_pixels_lie_over_white(tmp_path, kind, channels):
    pixels = RNG.integers(0, 256, (5, 7, channels + 1), np.uint8)
    alpha = pixels[..., -1:] / 255
    expected = (alpha * pixels[..., :-1] + (1 - alpha) * 255).squeeze()
    picture = decoded(tmp_path, png(filtered(pixels), 7, 5, 8, kind))
    assert picture.mode == {3: "RGB", 1: "L"}[channels]
    assert np.abs(np.asarray(picture) - expected).max() <= 1


def test_a_transparent_grey_level_lies_over_white(tmp_path):
    level = struct.pack(">I", 2) + b"tRNS\0\x07" + struct.pack(">I", zlib.crc32(b"tRNS\0\x07"))
    assert np.asarray(decoded(tmp_path, png(b"\0\x07\x08", 2, 1, 8, 0, level))).tolist() == [[255, 8]]


def test_cmyk(tmp_path):
    ink = np.zeros((1, 3, 4), np.uint8)
    ink[0, 1, 0], ink[0, 2, 3] = 255, 255  # white, cyan, black
    tifffile.imwrite(tmp_path / "x.tif", ink, photometric="separated")
    assert np.asarray(images.decode(tmp_path / "x.tif")).tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


# EXIF 2.32, tag 274: what row 0 and column 0 of the stored pixels are in the picture a person sees.
ORIENTATIONS = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: seen.swapaxes(0, 1)[::-1],  # row 0 is the right side, column 0 the top
    7: lambda seen: seen[::-1, ::-1].swapaxes(0, 1),
    8: lambda seen: seen.swapaxes(0, 1)[:, ::-1],  # row 0 is the left side, column 0 the bottom
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("pixels", [COLOUR, GREY.astype(np.uint16) * 257], ids=["colour", "sixteen bit"])
def test_every_orientation_is_upright(tmp_path, orientation, pixels):
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(ORIENTATIONS[orientation](pixels))
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    expected = pixels if pixels.dtype == np.uint8 else pixels // 257
    np.testing.assert_array_equal(np.asarray(images.decode(tmp_path / "x.png")), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_beside_sound_pixels_is_passed_over(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    np.testing.assert_array_equal(np.asarray(images.decode(tmp_path / "x.png")), COLOUR)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for name in ("x.gif", "x.png", "x.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert images.decode(tmp_path / name).getpixel((1, 1)) == (255, 0, 0)


# Files that are no images


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"only text\n", "not a picture that Pillow"),
        (png(filtered(COLOUR), 7, 5, 8, 2)[:70], ""),
        (png(b"", 60_000, 60_000, 8, 2), "3600000000|exceeds|more than"),
        (png(b"", 16_000, 16_000, 8, 2), "16000 x 16000 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not a picture that Pillow"),
    ],
    ids=["empty", "text", "truncated", "bomb", "just too large", "program"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_name_themselves_and_the_reason(tmp_path, content, reason):
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=rf"cannot decode x\.png.*({reason})"):
        decoded(tmp_path, content)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_truncated_jpeg(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    with pytest.raises(ImageError, match=r"x\.jpg.*truncated"):
        decoded(tmp_path, buffer.getvalue()[:-1000], "x.jpg")


def test_floats_have_no_known_white(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.ones((3, 3), np.float32))
    with pytest.raises(ImageError, match="no known white"):
        images.decode(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("name", "told"), [("nothing.png", r"^no such file; got [^;]*nothing\.png\. Check"), (".", "is not a regular file")]
)
def test_no_file(tmp_path, name, told):
    with pytest.raises(ImageError, match=told):
        images.decode(tmp_path / name)


class FailingFile(io.BytesIO):
    """A file whose disk does not answer after some bytes, by an error with or without the system's number."""

    def __init__(self, content, sound, error):
        super().__init__(content)
        self.sound, self.error = sound, error

    def read(self, size=-1):
        if self.tell() + (size if size >= 0 else 1 << 30) > self.sound:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("sound", [0, 40])
def test_a_file_that_its_disk_does_not_give_is_not_called_damaged(tmp_path, monkeypatch, sound):
    content = png(filtered(COLOUR), 7, 5, 8, 2)
    (tmp_path / "x.png").write_bytes(content)
    error = OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(images.Path, "open", lambda *_: FailingFile(content, sound, error))
    with pytest.raises(UnreadableFile, match=r"x\.png: Input/output error"):
        images.decode(tmp_path / "x.png")


def test_a_library_in_c_that_hides_the_answer_of_a_disk_is_not_believed(tmp_path, monkeypatch):
    """libtiff reads a file by its number, and Pillow tells a disk that fails as damage."""
    (tmp_path / "x.png").write_bytes(content := png(filtered(COLOUR), 7, 5, 8, 2))
    error = OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(images.Path, "open", lambda *_: FailingFile(content, 30, error))

    def decoder(source):
        raise OSError("decoder error -2 when reading image file")

    with pytest.raises(UnreadableFile, match="Stale file handle"):
        images.read_file(tmp_path / "x.png", decoder)
    monkeypatch.undo()
    with pytest.raises(ImageError, match=r"cannot decode.*decoder error -2") as told:
        images.read_file(tmp_path / "x.png", decoder)
    assert type(told.value) is ImageError


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "x\0.png"])
def test_a_name_that_no_system_holds_is_no_fault_of_a_disk(tmp_path, name):
    with pytest.raises(ImageError, match="no such file") as told:
        images.decode(tmp_path / name)
    assert type(told.value) is ImageError


@given(st.data())
def test_damage_is_an_image_error_or_an_image(tmp_path_factory, data):
    sound = bytearray(png(filtered(COLOUR), 7, 5, 8, 2))
    for place in data.draw(st.lists(st.integers(0, len(sound) - 1), min_size=1, max_size=4)):
        sound[place] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged.png"
    file.write_bytes(sound)
    try:
        assert images.decode(file).mode in ("L", "RGB")
    except ImageError as error:
        assert "damaged.png" in str(error)


@pytest.mark.parametrize(("tag", "told"), [(273, "1 of its 4 strips missing"), (279, "1 of its 4 strips missing")])
def test_a_tiff_with_an_empty_strip_is_named_and_not_black(tmp_path, tag, told):
    """Pillow reads an absent strip of an uncompressed TIFF as black."""
    tifffile.imwrite(tmp_path / "x.tif", np.full((32, 8), 200, np.uint8), rowsperstrip=8, metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        file.pages[0].tags[tag].overwrite([0, *file.pages[0].tags[tag].value[1:]])
    with pytest.raises(ImageError, match=rf"cannot decode x\.tif.*{told}"):
        images.decode(tmp_path / "x.tif")


@pytest.mark.skipif(not libtiff.find_libraries(), reason="Pillow's libtiff is part of another file")
@pytest.mark.parametrize(
    ("kind", "told"), [("group4", "Fax4Decode: Bad code word"), ("tiff_adobe_deflate", "got OSError")]
)
def test_what_libtiff_says_of_a_picture_is_the_error_of_that_file(tmp_path, capfd, kind, told):
    """libtiff prints it and reads on where it can: of a fax the lines after the damage are wrong, and Pillow says
    nothing."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8))
    sound, damaged = tmp_path / "sound.tif", tmp_path / "damaged.tif"
    grey.convert("1" if kind == "group4" else "L").save(sound, compression=kind)
    with tifffile.TiffFile(sound) as file:
        middle = file.pages[0].dataoffsets[0] + file.pages[0].databytecounts[0] // 2
    content = sound.read_bytes()
    damaged.write_bytes(content[:middle] + (b"\0" if kind == "group4" else b"\xff") * 40 + content[middle + 40 :])
    with pytest.raises(ImageError, match=rf"damaged\.tif.*{told}"):
        images.decode(damaged)
    assert images.decode(sound).size == (64, 64)  # and the errors were those of the other
    assert capfd.readouterr().err == ""


def test_further_pages_and_frames_are_said(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for level in (10, 20, 30):
            file.write(np.full((8, 8), level, np.uint8), metadata=None)
    picture = images.decode(tmp_path / "x.tif")
    assert picture.getpixel((0, 0)) == 10
    assert images.notes_of(picture) == ("3 pages, of which only the first is read",)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for name in ("x.gif", "x.png", "x.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert "animation" in images.notes_of(images.decode(tmp_path / name))[0]
        frames[0].save(tmp_path / name)
        assert images.notes_of(images.decode(tmp_path / name)) == ()


TWELVE_BITS = np.random.default_rng(3).integers(0, 4096, (6, 8)).astype(np.uint16)
TWELVE_BITS[0, 0] = 4095


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_twelve_bits_in_sixteen_are_said_and_scaled_by_a_stated_white(tmp_path, ending, colour):
    file, codes = tmp_path / f"x.{ending}", np.stack([TWELVE_BITS] * 3, -1) if colour else TWELVE_BITS
    if ending == "png":
        file.write_bytes(imagecodecs.png_encode(codes))
    else:
        tifffile.imwrite(file, codes, photometric="rgb" if colour else "minisblack", metadata=None)
    dark = images.decode(file)
    assert np.asarray(dark).max() < 17
    (note,) = images.notes_of(dark)
    assert "less than a quarter of its 16 bits" in note and "--white-level" in note
    bright = images.decode(file, white_level=4095)
    np.testing.assert_array_equal(np.asarray(bright), np.rint(codes * (255 / 4095)))
    assert images.notes_of(bright) == ()
    clipped = images.decode(file, white_level=1000)
    np.testing.assert_array_equal(np.asarray(clipped) == 255, codes >= 998)  # 998 / 1000 rounds to 255


def test_a_dark_photograph_that_uses_its_range_is_not_named(tmp_path):
    deep = np.full((6, 8), 300, np.uint16)
    deep[0, 0] = 16384
    Image.fromarray(deep).save(tmp_path / "x.png")
    assert images.notes_of(images.decode(tmp_path / "x.png")) == ()


def test_a_bound_on_pixels_holds_before_anything_is_decoded(tmp_path):
    """A PNG of 240 megapixels is 29 kB; decoded it is 1 GB. One of 200 megapixels, which phones make, is within."""
    rows = zlib.compressobj(9)
    with pytest.raises(ImageError, match=r"20000 x 12000 pixels.*220 megapixels.*--megapixels"):
        decoded(tmp_path, png(rows.flush(), 20_000, 12_000, 8, 2))
    with pytest.raises(ImageError, match=r"x\.png(?!.*megapixels)"):
        decoded(tmp_path, png(b"", 16_384, 12_288, 8, 2))  # let through, and damaged
    small = png(filtered(COLOUR), 7, 5, 8, 2)
    (tmp_path / "x.png").write_bytes(small)
    with pytest.raises(ImageError, match="7 x 5 pixels"):
        images.decode(tmp_path / "x.png", megapixels=34e-6)
    assert images.decode(tmp_path / "x.png", megapixels=35e-6).size == (7, 5)


def bomb(count: int) -> bytes:
    """EXIF of so many tags, of which each has all 12 x count bytes as its value."""
    tags = b"".join(struct.pack("<HHII", 40000 + i, 7, 12 * count, 8) for i in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + tags + bytes(12)


def traced(call):
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_exif_that_refers_to_itself_does_not_fill_memory(tmp_path):
    """4,000 tags of 48 kB each: 192 MB of a file of 50 kB, if they were read."""
    exif, level = bomb(4000), np.zeros((8, 8), np.uint8)
    Image.fromarray(level).save(tmp_path / "x.png", exif=b"Exif\0\0" + exif)
    picture, peak = traced(lambda: images.decode(tmp_path / "x.png"))
    assert picture.size == (8, 8) and peak < 5e6  # damaged EXIF beside sound pixels is passed over
    buffer = io.BytesIO()
    Image.fromarray(level).save(buffer, "JPEG")
    head, body = b"Exif\0\0", buffer.getvalue()[2:]
    app0 = 2 + int.from_bytes(body[2:4])  # without JFIF's own resolution Pillow looks for one in EXIF at once
    parts = [exif[i : i + 30_000] for i in range(0, len(exif), 30_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 8) + head + p for p in parts)
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8" + segments + body[app0:])

    def read():
        with pytest.raises(ImageError, match="longer than the file"):
            images.decode(tmp_path / "x.jpg")

    assert traced(read)[1] < 5e6


def test_extensions_are_pillows():
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"} <= images.extensions()
    assert not {".eps", ".txt", ".pdf"} & images.extensions()
