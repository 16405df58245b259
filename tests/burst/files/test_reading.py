"""Photographs written by other libraries (tifffile, Pillow, imagecodecs), read back to the bit."""

import io
import struct
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tests.burst.conftest import X_TRANS

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.photograph import ReadSettings, from_counts
from klarsicht.burst.files import loading, raw, reading
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.operating_system import reset_memory_peak


def counts(seed=0, size=(48, 64), low=600, high=16383):
    return np.random.default_rng(seed).integers(low, high, size, endpoint=True).astype(np.uint16)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_bayer_dng_gives_its_counts_back(dng, tmp_path, pattern):
    written = counts()
    black = (600, 610, 620, 630)
    read = reading.read(dng(tmp_path / "a.dng", written, pattern, black))
    sensor = read.header.sensor
    by_cell = np.array(black, np.float32).reshape(2, 2)  # of a cell's rows and columns, as the tag counts
    light = (written - np.tile(by_cell, (24, 32))) / (16383 - np.tile(by_cell, (24, 32)))
    np.testing.assert_allclose(read.light, to_planes(light.astype(np.float32), pattern), rtol=1e-6, atol=1e-7)
    assert (sensor.pattern, sensor.white) == (pattern, 16383)
    back = np.rint(read.light * (16383 - np.array(sensor.black)[:, None, None]) + np.array(sensor.black)[:, None, None])
    np.testing.assert_array_equal(back, to_planes(written, pattern))


def test_a_dng_says_its_noise_camera_and_colours(dng, tmp_path):
    profile = (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6)
    extra = [(34855, 3, 1, 800, True), (33434, 5, 1, (1, 50), True), (33437, 5, 1, (2, 1), True)]
    header = reading.read(dng(tmp_path / "a.dng", counts(), profile=profile, extra=extra, orientation=6)).header
    np.testing.assert_allclose([n.profile for n in header.profile], np.reshape(profile, (3, 2))[[0, 1, 1, 2]])
    assert (header.camera, header.iso, header.orientation) == ("Example One", 800, 6)
    assert header.exposure == pytest.approx(800 / 50 / 4)
    np.testing.assert_allclose(header.rendering.gains, (2, 1, 1.5), rtol=1e-6)
    np.testing.assert_allclose(np.sum(header.rendering.matrix, 1), 1, atol=1e-6)  # white stays white


@pytest.mark.parametrize("offset", [(0, 0), (1, 2), (5, 3)])
def test_an_x_trans_dng_becomes_rgb_that_keeps_what_libraw_reads(dng, tmp_path, offset):
    """Any cell of the mosaic may be the first; each pixel keeps its own sample, by LibRaw's counts and colours."""
    letters = np.array(list(X_TRANS)).reshape(6, 6)
    pattern = "".join(np.roll(letters, (-offset[0], -offset[1]), (0, 1)).ravel())
    profile = (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6)
    path = dng(tmp_path / "a.dng", counts(size=(49, 63)), pattern, profile=profile)
    read = reading.read(path)
    import rawpy

    with rawpy.imread(str(path)) as found:
        seen, colours = found.raw_image_visible.astype(float), found.raw_colors_visible.astype(int)
    own = np.take_along_axis(read.light, colours[None], 0)[0]
    np.testing.assert_allclose(own, (seen - 600) / (16383 - 600), atol=1e-6)
    header = read.header
    assert (header.colour, header.size, header.sensor.pattern) == ("rgb", (49, 63), pattern)
    assert header.is_raw and header.cell == header.sensor.pattern and header.sensor.black == (600.0,) * 3
    np.testing.assert_allclose([n.profile for n in header.profile], np.reshape(profile, (3, 2)))


def test_the_tags_of_a_raf_are_those_of_its_preview(tmp_path):
    """Written by Pillow; a damaged length or another preview is no error, since pixels beside it may be sound."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[271], exif[272] = "FUJIFILM", "X-T1"
    exif.get_ifd(34665).update({34855: 800, 33434: 0.02, 33437: 2.0})
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    segment = exif.tobytes()
    preview = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + buffer.getvalue()[2:]
    head = b"FUJIFILMCCD-RAW 0201FF129504".ljust(84, b"\0") + struct.pack(">2I", 160, len(preview))
    (tmp_path / "a.raf").write_bytes(head.ljust(160, b"\0") + preview)
    tags = raw.read_tags(tmp_path / "a.raf")
    assert (tags.words(272), tags.number(34855), tags.number(33434), tags.number(33437)) == ("X-T1", 800, 0.02, 2)
    (tmp_path / "b.raf").write_bytes(head.ljust(160, b"\0") + preview[:40])
    (tmp_path / "c.raf").write_bytes(head.ljust(160, b"\0") + buffer.getvalue())
    assert raw.read_tags(tmp_path / "b.raf").words(34855) == "" == raw.read_tags(tmp_path / "c.raf").words(272)


def test_white_stays_white_behind_x_trans(dng, tmp_path):
    light = reading.read(dng(tmp_path / "a.dng", np.full((48, 60), 16383), X_TRANS)).light
    assert (light == 1).all()


def test_a_mosaic_that_is_neither_bayer_nor_x_trans_is_refused(dng, tmp_path):
    for name, pattern in (("a", X_TRANS.replace("R", "B")), ("b", "RGBG" * 9)):
        with pytest.raises(InputError, match=rf"{name}\.dng has no Bayer or X-Trans mosaic.*16-bit TIFF"):
            reading.read(dng(tmp_path / f"{name}.dng", counts(), pattern))


def test_big_endian_tags_and_sub_directories_are_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as file:
        file.write(np.zeros((16, 16), np.uint8), subifds=1, extratags=[(272, 2, 0, "Thumb", True)], metadata=None)
        file.write(np.zeros((64, 64), np.uint16), extratags=[(51041, 12, 2, (1e-3, 1e-5), True)], metadata=None)
    from klarsicht.ground.pictures.tiff_tags import read

    tags = read(tmp_path / "a.tif")
    assert tags.words(272) == "Thumb"
    assert tags.find(51041).values == (1e-3, 1e-5)
    assert tags.number(256) == 64


def srgb(code):
    """IEC 61966-2-1, as that standard prints it."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_raw_file_keeps_its_orientation_mirrored_or_not(dng, tmp_path, orientation):
    dng(tmp_path / "a.dng", np.full((64, 96), 1000.0), orientation=orientation)
    assert reading.read(tmp_path / "a.dng").header.orientation == orientation


@pytest.mark.parametrize(("written", "ending", "true"), [
    ("JPEG", ".png", ".jpg"), ("PNG", ".jpg", ".png"), ("TIFF", ".png", ".tif"), ("JPEG", ".tif", ".jpg"),
    ("PNG", ".dng", ".png"), ("JPEG", ".nef", ".jpg"),
])  # fmt: skip
def test_a_file_of_another_format_than_its_ending_is_told_its_own(tmp_path, written, ending, true):
    path = tmp_path / f"a{ending}"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, written)
    with pytest.raises(
        InputError, match=rf"data of a {true} file under the ending {ending}; .* Rename it to a{true}\."
    ):
        reading.read(path)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(40, 52), (40, 52, 3), (40, 52, 4)])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_coded_pictures_come_at_full_depth(tmp_path, depth, shape, ending):
    codes = np.random.default_rng(1).integers(0, np.iinfo(depth).max, shape, endpoint=True).astype(depth)
    path = tmp_path / f"a{ending}"
    if ending == ".png":
        path.write_bytes(imagecodecs.png_encode(codes))
    else:
        tifffile.imwrite(path, codes, photometric="rgb" if len(shape) > 2 else "minisblack", compression="zlib")
    read = reading.read(path)
    wanted = srgb(np.atleast_3d(codes)[..., :3] / np.iinfo(depth).max)
    np.testing.assert_allclose(read.light, np.moveaxis(wanted, -1, 0), atol=4e-4)  # the standard rounds
    assert read.header.colour == ("grey" if len(shape) == 2 else "rgb")
    assert any("curve" in note for note in read.header.notes)
    straight = reading.read(path, ReadSettings(linear=True))
    np.testing.assert_allclose(straight.light[0] * np.iinfo(depth).max, np.atleast_3d(codes)[..., 0], rtol=1e-6)


def test_jpeg_profile_and_orientation_are_kept(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274], exif[272] = 6, "Example Two"
    picture = Image.fromarray(np.full((40, 60, 3), 128, np.uint8))
    picture.save(tmp_path / "a.jpg", icc_profile=icc, exif=exif)
    header = reading.read(tmp_path / "a.jpg").header
    assert (header.size, header.orientation, header.icc, header.camera) == ((40, 60), 6, icc, "Example Two")


def test_floats_are_linear_and_must_be_numbers(tmp_path):
    light = np.random.default_rng(2).random((32, 32, 3)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", light, photometric="rgb")
    np.testing.assert_array_equal(reading.read(tmp_path / "a.tif").light, np.moveaxis(light, -1, 0))
    light[3, 4, 1] = np.nan
    tifffile.imwrite(tmp_path / "b.tif", light, photometric="rgb")
    with pytest.raises(InputError, match=r"b\.tif has pixels that are no numbers"):
        reading.read(tmp_path / "b.tif")


@pytest.mark.parametrize(("keep", "told"), [(0, "empty"), (3000, "cut off"), (7, "directory")])
def test_a_dng_that_is_cut_off_is_named(dng, tmp_path, keep, told):
    whole = dng(tmp_path / "a.dng", counts()).read_bytes()
    (tmp_path / "b.dng").write_bytes(whole[:keep])
    with pytest.raises(InputError, match=rf"b\.dng is .*{told}|b\.dng is cut off.*{told}"):
        reading.read(tmp_path / "b.dng")


def test_samples_without_a_header_are_refused(tmp_path):
    """LibRaw knows this length of a camera that stores no header, so that it reads any file of it."""
    rawpy = pytest.importorskip("rawpy")
    path = tmp_path / "sensor.raw"
    np.random.default_rng(0).integers(0, 1024, (512, 768), np.uint16).tofile(path)
    with rawpy.imread(str(path)) as guessed:
        assert (guessed.sizes.raw_height, guessed.sizes.raw_width) == (768, 1024)  # neither is the sensor's
    with pytest.raises(InputError, match=r"sensor.raw has no header; got 786432 bytes of samples; .*TIFF"):
        reading.read(path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".dng", ".nef"])
def test_what_is_no_photograph_inside_is_named(tmp_path, ending):
    pytest.importorskip("rawpy")
    path = tmp_path / f"text{ending}"
    path.write_bytes(b"no photograph at all" * 40)
    with pytest.raises(InputError, match=f"cannot read text{ending}"):
        reading.read(path)


@pytest.mark.parametrize(
    ("black", "white", "told"),
    [(600, 500, "impossible levels"), (9000, 16383, "wrong black level"), (600, 8000, "wrong white level")],
)
def test_wrong_levels_are_refused(dng, tmp_path, black, white, told):
    with pytest.raises(InputError, match=rf"b\.dng has .*{told}"):
        reading.read(dng(tmp_path / "b.dng", counts(high=12000), black=black, white=white))


@pytest.mark.parametrize(("black", "told"), [(600, 0), (0, 1)])
def test_a_black_level_that_may_be_too_low_is_said(dng, tmp_path, black, told):
    """A scene with something dark in it, whose black is 600; a file that says 0 has a veil over all of it."""
    light = np.linspace(0, 0.5, 64)[:, None] * np.linspace(0.5, 1, 96)
    counts = np.rint(600 + light * (16383 - 600))
    notes = reading.read(dng(tmp_path / "a.dng", counts, black=black)).header.notes
    assert len(notes) == told and all("darker than 3.7% of white" in note for note in notes)


def test_frames_come_by_name_and_only_photographs(tmp_path):
    for name in ("b.png", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in reading.list_frames([tmp_path])] == ["a.png", "b.png"]


def test_no_frames_videos_and_doubles_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "film.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "kinds").mkdir()
    for name in ("0.npy", "1.npy"):
        (tmp_path / "kinds" / name).touch()
    refused = (([tmp_path / "empty"], "no frames; got empty folders"), ([tmp_path / "film.mp4"], "is no photograph"))
    for given, told in (*refused, ([tmp_path / "kinds"], "no frames; got 2 files of other kinds")):
        with pytest.raises(InputError, match=told):
            reading.list_frames(given)
    with pytest.raises(InputError, match="twice"):
        reading.list_frames([tmp_path / "a.png", tmp_path])
    with pytest.raises(InputError, match=r"^no such file; got [^;]*absent\.png\. Check"):
        reading.list_frames([tmp_path / "absent.png"])


def test_frames_are_named_as_briefly_as_tells_them_apart(tmp_path):
    named = reading.name_frames([tmp_path / name for name in ("a/1.png", "b/1.png", "b/2.png", "c/b/1.PNG")])
    assert named == ["a/1.png", f"{tmp_path.name}/b/1.png", "2.png", "c/b/1.PNG"]


def test_frames_of_a_burst_are_alike(dng, tmp_path):
    a = dng(tmp_path / "a.dng", counts())
    for name, other in (("size", {"counts": counts(size=(48, 66))}), ("mosaic", {"pattern": "BGGR"})):
        b = dng(tmp_path / "b.dng", **({"counts": counts()} | other))
        with pytest.raises(InputError, match=rf"b\.dng differs .* in .*{name}.*a\.dng"):
            loading.load_frames([a, b], tmp_path)


def test_sizes_are_told_as_width_and_height(dng, tmp_path):
    a, b = dng(tmp_path / "a.dng", counts()), dng(tmp_path / "b.dng", counts(size=(48, 66)))
    height, width = counts().shape
    with pytest.raises(
        InputError, match=rf"got 66 x 48 pixels.* a\.dng has {width} x {height} pixels.*Leave out the one"
    ):
        loading.load_frames([a, b], tmp_path)


def test_levels_are_those_of_the_planes(dng, tmp_path):
    header = reading.read(dng(tmp_path / "a.dng", counts(), black=(1, 2, 3, 4), pattern="BGGR")).header
    assert header.sensor.black == (4.0, 2.0, 3.0, 1.0)
    assert header.quantisation == pytest.approx(1 / 12**0.5 / 16382)
    with pytest.raises(InputError, match="impossible"):
        from_counts(
            counts(),
            header.__class__(header.path, "mosaic", (48, 64), 9, sensor=type(header.sensor)("RGGB", (9.0,) * 4, 9.0)),
        )


@pytest.mark.parametrize("ending", ["tif", "dng"])
def test_a_missing_strip_is_named_and_not_black(dng, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "dng":
        dng(path, counts())
    else:
        tifffile.imwrite(path, counts(), metadata=None, rowsperstrip=16)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[279].overwrite([*file.pages[0].tags[279].value[:-1], 0])
    with pytest.raises(InputError, match=rf"a\.{ending}.*1 of its 3 strips missing or empty"):
        reading.read(path)


def test_further_pages_are_said(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(counts(), metadata=None)
    assert "a.tif has 3 pages, of which only the first is read" in reading.read(tmp_path / "a.tif").header.notes


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_twelve_bits_in_sixteen_are_said_and_scaled_by_a_stated_white(tmp_path, ending):
    codes, path = counts(low=0, high=4095), tmp_path / f"a.{ending}"
    path.write_bytes(imagecodecs.png_encode(codes)) if ending == "png" else tifffile.imwrite(path, codes, metadata=None)
    dark = reading.read(path, ReadSettings(linear=True))
    assert dark.light.max() < 0.07
    assert any("less than a quarter" in note and "--white-level" in note for note in dark.header.notes)
    bright = reading.read(path, ReadSettings(linear=True, white_level=4095))
    np.testing.assert_allclose(bright.light[0], codes / 4095, rtol=1e-6)
    assert (bright.header.levels, bright.header.notes) == (4095, ())
    assert bright.header.quantisation == pytest.approx(1 / 12**0.5 / 4095)
    with pytest.raises(InputError, match=r"has a higher white level.*codes above it \(2000\).*--white-level"):
        reading.read(path, ReadSettings(white_level=2000))
    clipped = reading.read(path, ReadSettings(linear=True, white_level=4090))
    assert clipped.light.max() == 1


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "dng"])
def test_more_pixels_than_allowed_are_refused_before_they_are_decoded(dng, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "dng":
        dng(path, counts())
    else:
        Image.fromarray((counts() >> 8).astype(np.uint8)).save(path)
    with pytest.raises(InputError, match=rf"a\.{ending}.*64 x 48 pixels.*--megapixels"):
        reading.read(path, ReadSettings(megapixels=3071e-6))
    assert reading.read(path, ReadSettings(megapixels=3072e-6)).header.size == (48, 64)
    with pytest.raises(UsageError, match=r"0.01 GB; reading a frame of 64 x 48 pixels takes .* GB\. Give --memory "):
        reading.read(path, ReadSettings(memory=0.01))


MEASURED = """
import re, sys
from pathlib import Path
from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.burst.files import loading
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.memory import resident_bytes
from klarsicht.ground.machine.operating_system import memory_status, reset_memory_peak
frames, place = [*map(Path, sys.argv[1:])], Path(sys.argv[1]).parent
try:
    loading.load_frames(frames, place, settings=ReadSettings(memory=0.1))
except UsageError as error:
    named = float(re.search(r"Give --memory ([\\d.]+), or more", error.with_options)[1])
resident_bytes()
reset_memory_peak()
burst = loading.load_frames(frames, place, settings=ReadSettings(memory=named))
print(memory_status("VmHWM"), named * 1e9, burst.frames[1].gain)
"""


@pytest.mark.slow
@pytest.mark.skipif(not reset_memory_peak(), reason="only Linux sets the peak of memory anew")
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_the_memory_that_the_error_names_suffices_for_reading(tmp_path, ending):
    """Oracle: the peak of resident memory of a new process while frames of 12 megapixels are read, compared and
    stored."""
    frames = [tmp_path / f"{i}.{ending}" for i in range(2)]
    for file, most in zip(frames, (200, 190), strict=True):  # the second is made brighter
        row = np.linspace(20, most, 6000).astype(np.uint8)
        Image.fromarray(np.broadcast_to(row[None, :, None], (2000, 6000, 3)).copy()).save(file)
    told = subprocess.check_output([sys.executable, "-c", MEASURED, *map(str, frames)], text=True)
    peak, named, gain = map(float, told.split())
    assert peak <= named
    assert gain > 1.05


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_pillows_own_bound_on_pixels_stops_no_photograph(tmp_path, monkeypatch, ending):
    """It raises an error of its own from twice its bound on, 179 megapixels; here it is 200 pixels."""
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / f"a.{ending}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert reading.read(tmp_path / f"a.{ending}").header.size == (48, 64)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_frame_that_does_not_name_its_camera_is_taken_among_others(tmp_path):
    codes = np.full((40, 60, 3), 90, np.uint8)
    exif = Image.Exif()
    exif[272] = "Example Two"
    Image.fromarray(codes).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(codes).save(tmp_path / "b.jpg")
    exif[272] = "Example Three"
    Image.fromarray(codes).save(tmp_path / "c.jpg", exif=exif)
    a, b, c = (reading.read(tmp_path / f"{name}.jpg").header for name in "abc")
    reading.check_alike(a, b)
    reading.check_alike(b, c)
    with pytest.raises(InputError, match="in camera"):
        reading.check_alike(a, c)
