"""Developing against laws and other libraries: colours that mosaics must give back, turns of Pillow, files they read"""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tests.burst.conftest import X_TRANS

from klarsicht.burst.data.bayer import PATTERNS, sample_mosaic, to_mosaic, to_planes
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import Header, Rendering, Sensor
from klarsicht.burst.files import write_pictures
from klarsicht.burst.files.demosaic import interpolate_colours
from klarsicht.burst.files.dng import write as write_dng
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer, stored_window
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.tiff_tags import Entry, Tags, numbers, rationals, text
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel


def spooled(planes, path):
    """With the map of trust as the last plane."""
    light = np.concatenate([planes, np.ones_like(planes[:1])])[None]
    spool = FrameStore(path, light.shape)
    spool.allocate()
    spool.write_frame(0, light[0])
    return spool


@pytest.mark.parametrize("pattern", PATTERNS)
def test_constant_colours_and_slopes_are_given_back(pattern):
    y, x = np.mgrid[:32, :40].astype(np.float32)
    slopes = np.stack([0.2 + 0.01 * x, 0.5 + 0.004 * y - 0.002 * x, 0.1 + 0.003 * (x + y)])
    mosaic = to_mosaic(sample_mosaic(slopes, pattern), pattern)
    np.testing.assert_allclose(interpolate_colours(mosaic, pattern)[:, 4:-4, 4:-4], slopes[:, 4:-4, 4:-4], atol=1e-6)


def test_the_mosaic_itself_is_kept():
    mosaic = np.random.default_rng(0).random((16, 16), np.float32)
    np.testing.assert_array_equal(sample_mosaic(interpolate_colours(mosaic, "GRBG"), "GRBG"), to_planes(mosaic, "GRBG"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(orientation):
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", exif=exif)
    from PIL import ImageOps

    wanted = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    np.testing.assert_array_equal(turn_upright(picture, orientation), wanted)
    for a, b in ((0, 7), (7, len(wanted))):
        w = stored_window(a, b, (30, 50), orientation)
        np.testing.assert_array_equal(turn_upright(picture[w.y0 : w.y1, w.x0 : w.x1], orientation), wanted[a:b])


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("colour", ["grey", "rgb", "mosaic"])
def test_png_and_tiff_hold_the_same_as_developed_at_once(tmp_path, monkeypatch, colour, orientation):
    monkeypatch.setattr("klarsicht.burst.files.rendering.ROWS", 14)
    channels = {"grey": 1, "rgb": 3, "mosaic": 4}[colour]
    planes = np.random.default_rng(1).random((channels, 40, 52), np.float32)
    size = (80, 104) if channels == 4 else (40, 52)
    sensor = Sensor("GBRG", (600.0,) * 4, 16383.0) if channels == 4 else None
    tags = Tags({272: text("Example Two")}, {33434: rationals(0.02)}, {})
    rendering = Rendering((2.0, 1.0, 1.5))
    header = Header(tmp_path / "a", colour, size, 65535, "srgb", sensor, rendering, orientation, None, tags)
    room = Renderer.from_header(spooled(planes, tmp_path / "s"), header)
    whole = turn_upright(
        np.rint(np.clip(room.render_window(stored_window(0, room.size[0], size, orientation)), 0, 1) * 65535),
        orientation,
    )
    for name, write, decode in (
        ("a.png", write_pictures.write_png, lambda p: imagecodecs.png_decode(p.read_bytes())),
        ("a.tif", write_pictures.write_tiff, tifffile.imread),
    ):
        write(room, tmp_path / name)
        got = decode(tmp_path / name)
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(np.atleast_3d(got), whole)
    with Image.open(tmp_path / "a.png") as png:
        assert png.getexif()[272] == "Example Two"
        assert png.getexif().get_ifd(34665)[33434] == pytest.approx(0.02)
        profile = png.info.get("icc_profile")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        page = tif.pages[0]
        assert (page.tags[272].value, page.tags[274].value) == ("Example Two", 1)
        assert page.tags["ExifTag"].value["ExposureTime"] == (20000, 1000000)
        assert (page.tags[34675].value if 34675 in page.tags else None) == profile
    if colour != "grey":
        assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))


@pytest.mark.parametrize("comment", [0, 70_000])
def test_a_jpeg_says_camera_time_and_place_and_leaves_out_what_it_has_no_room_for(tmp_path, comment):
    """Read by Pillow. A segment of a JPEG file holds 65,533 bytes (ITU-T T.81, B.1.1.4)."""
    exif = {36867: text("2024:06:01 10:00:00"), 33434: rationals(0.02)}
    exif |= {37510: Entry(7, comment, b"x" * comment)} if comment else {}
    tags = Tags({271: text("Example"), 274: numbers(3, 6)}, exif, {1: text("N")})
    planes = np.full((3, 40, 52), 0.5, np.float32)
    header = Header(tmp_path / "a", "rgb", (40, 52), 65535, "srgb", None, Rendering(), 6, None, tags)
    write_pictures.write_preview(Renderer.from_header(spooled(planes, tmp_path / "s"), header), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as jpeg:
        known = jpeg.getexif()
        assert jpeg.size == (40, 52) and (known[271], known[274]) == ("Example", 1)
        assert known.get_ifd(34665)[36867] == "2024:06:01 10:00:00" and known.get_ifd(34853)[1] == "N"
        assert 37510 not in known.get_ifd(34665)


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_a_dng_comes_back_through_libraw_with_its_tags(dng, tmp_path, pattern):
    """Light goes out and comes back within half a count of 16 bits."""
    counts = np.random.default_rng(2).integers(600, 16383, (64, 96)).astype(np.uint16)
    extra = [(34855, 3, 1, 800, True), (50735, 2, 0, "SN-123", True)]
    path = dng(tmp_path / "in.dng", counts, pattern, black=(600, 608, 592, 600), extra=extra, orientation=6)
    first = read(path)
    better = np.clip(first.light + 1e-5, 0, 1)
    noise = [NoiseLevel(1e-3 * (c + 1), 1e-5 * (c + 1)) for c in (0, 1, 1, 2)]
    write_dng(spooled(better, tmp_path / "s"), first.header, noise, tmp_path / "out.dng")
    second = read(tmp_path / "out.dng")
    np.testing.assert_allclose(second.light, better, atol=0.51 / 4 / (16383 - 608))
    assert second.header.sensor.pattern == pattern
    assert second.header.sensor.white == 4 * 16383
    assert second.header.sensor.black == tuple(4 * b for b in first.header.sensor.black)
    assert (second.header.iso, second.header.camera, second.header.orientation) == (800, "Example One", 6)
    np.testing.assert_allclose([n.profile for n in second.header.profile], [n.profile for n in noise])
    np.testing.assert_allclose(second.header.rendering.matrix, first.header.rendering.matrix, atol=1e-6)
    assert second.header.rendering.gains == pytest.approx(first.header.rendering.gains)
    assert second.header.tags.words(50735) == "SN-123"
    with tifffile.TiffFile(tmp_path / "out.dng") as tif:
        assert tif.pages[0].tags[51041].value == pytest.approx(
            [v for n in (noise[0], noise[1], noise[3]) for v in n.profile]
        )


def test_rgb_becomes_a_linear_dng(tmp_path):
    import rawpy

    light = np.random.default_rng(3).random((3, 40, 52), np.float32)
    header = Header(tmp_path / "a.tif", "rgb", (40, 52), 65535, "srgb")
    write_dng(spooled(light, tmp_path / "s"), header, [NoiseLevel(1e-3, 1e-5)] * 3, tmp_path / "out.dng")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.dng") / 65535, np.moveaxis(light, 0, -1), atol=1e-5)
    with rawpy.imread(str(tmp_path / "out.dng")) as raw:
        developed = raw.postprocess(gamma=(1, 1), no_auto_bright=True, output_bps=16, use_camera_wb=True)
    np.testing.assert_allclose(developed / 65535, np.moveaxis(light, 0, -1), atol=0.02)


def test_x_trans_becomes_a_linear_dng_in_the_colours_of_its_camera(dng, tmp_path):
    """Light goes out, is read by tifffile, and is developed as what came in; no tag of the mosaic is left."""
    extra = [(34855, 3, 1, 800, True), (50735, 2, 0, "SN-123", True), (50738, 5, 1, (1, 1), True)]
    counts = np.random.default_rng(2).integers(600, 16383, (48, 66)).astype(np.uint16)
    header = read(dng(tmp_path / "in.dng", counts, X_TRANS, extra=extra, orientation=6)).header
    light = np.random.default_rng(3).random((3, 48, 66), np.float32)
    noise = [NoiseLevel(1e-3 * (c + 1), 1e-5) for c in range(3)]
    write_dng(spooled(light, tmp_path / "s"), header, noise, tmp_path / "out.dng")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.dng") / 65535, np.moveaxis(light, 0, -1), atol=1e-5)
    with tifffile.TiffFile(tmp_path / "in.dng") as first, tifffile.TiffFile(tmp_path / "out.dng") as second:
        before, after = first.pages[0].tags, second.pages[0].tags
        assert not {33421, 33422, 50713, 50738} & {tag.code for tag in after}
        for tag in (271, 272, 274, 50721, 50728, 50735, 50778):
            assert after[tag].value == before[tag].value
        assert after[51041].value == pytest.approx([v for n in noise for v in n.profile])
    room = Renderer.from_header(spooled(light, tmp_path / "s"), header)
    gains = np.array([2, 1, 1.5])[:, None, None] * room.brightening
    linear = np.einsum("ij,jhw->hwi", np.array(header.rendering.matrix), np.clip(light * gains, 0, 1))
    shown = room.render_window(stored_window(0, 66, (48, 66), 6))
    wanted = np.clip(linear, 0, 1)
    wanted = np.where(wanted <= 0.0031308, 12.92 * wanted, 1.055 * wanted ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(shown, wanted, atol=1e-3)


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_a_grey_photograph_is_interpolated_as_without_a_mosaic_whatever_the_white_balance(tmp_path, pattern):
    """A camera whose red is half and whose blue two thirds of green shows, balanced, what one of equal gains shows."""
    light = np.random.default_rng(4).random((3, 64, 96)).astype(np.float32)
    shown = []
    for gains in ((1.0, 1.0, 1.0), (2.0, 1.0, 1.5)):
        planes = sample_mosaic(light / np.array(gains, np.float32)[:, None, None], pattern)
        sensor, size = Sensor(pattern, (0.0,) * 4, 1.0), (64, 96)
        header = Header(tmp_path / "a", "mosaic", size, 1, "none", sensor, Rendering(gains))
        room = Renderer(spooled(planes, tmp_path / f"{gains[0]}"), header)
        linear = room.linear_window(stored_window(0, 64, size, 1))
        shown.append(linear * np.array(gains, np.float32)[:, None, None])
    np.testing.assert_allclose(shown[1], shown[0], atol=1e-5)


def test_a_raw_picture_is_made_bright_and_white_stays_white(tmp_path):
    planes = np.full((4, 32, 32), 0.1, np.float32) / np.array([2, 1, 1, 1.5], np.float32)[:, None, None]
    header = Header(
        tmp_path / "a", "mosaic", (64, 64), 1, "none", Sensor("RGGB", (0.0,) * 4, 1.0), Rendering((2.0, 1.0, 1.5))
    )
    room = Renderer.from_header(spooled(planes, tmp_path / "s"), header)
    assert room.brightening == pytest.approx(8)
    shown = room.render_window(stored_window(0, 64, (64, 64), 1))
    assert np.ptp(shown) < 1e-6 and room.thumbnail(8).shape == (8, 8, 3)


def test_brightening_takes_few_highlights_and_is_told(tmp_path):
    """Red is twice as strong once it is balanced: it, not green, reaches white first. A literal count of channels at
    white is what the line says."""
    rng = np.random.default_rng(5)
    light = (rng.random((3, 100, 100)) * 0.4).astype(np.float32)
    sensor, gains = Sensor(X_TRANS, (0.0,) * 3, 1.0), (2.0, 1.0, 1.5)
    header = Header(tmp_path / "a", "rgb", (100, 100), 1, "none", sensor, Rendering(gains))
    room = Renderer.from_header(spooled(light, tmp_path / "s"), header)
    assert room.brightening == pytest.approx(1 / np.quantile((light.T * gains).max(-1), 0.995), rel=1e-5)
    white = (room.render_window(stored_window(0, 100, (100, 100), 1)) >= 1).any(-1).mean()
    assert white == pytest.approx(0.005, abs=2e-4)
    (line,) = room.lines
    assert f"light times {room.brightening:.2f}" in line and f"{white:.1%}" in line
    plain = Renderer.from_header(spooled(light / 0.2, tmp_path / "t"), header)
    assert plain.brightening == 1 and plain.lines == ()


def test_the_profile_of_srgb_is_the_same_bytes_at_any_time_and_pillow_reads_it(monkeypatch):
    """Two profiles that Pillow makes a year apart differ in their date alone; ours do not differ."""
    real, made = ImageCms.ImageCmsProfile.tobytes, []
    for year in (2020, 2021):

        def dated(self, year=year):
            content = real(self)
            return content[:24] + struct.pack(">6H", year, 5, 4, 3, 2, 1) + content[36:]

        monkeypatch.setattr(ImageCms.ImageCmsProfile, "tobytes", dated)
        made.append(write_pictures.srgb_profile.__wrapped__())
    assert made[0] == made[1]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(made[0]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert profile.profile.creation_date.year == 2000
    grey = Image.new("RGB", (2, 2), (200, 100, 50))
    same = ImageCms.profileToProfile(grey, profile, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(same, int) - np.asarray(grey, int)).max() <= 1
