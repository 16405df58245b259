"""Images that are arrays. Oracles: files that tifffile, Pillow and NumPy wrote, Pillow's turns, and closed forms."""

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.pictures.array_images import ARRAY_TYPES, ArrayForm, read_array, show_channels
from klarsicht.ground.pictures.images import UPRIGHT

DEEP = ArrayForm(1, "uint16", 0, 4095)
RNG = np.random.default_rng(0)
SLICE = RNG.integers(0, 4096, (6, 8)).astype(np.uint16)


def file_of(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_codes_of_sixteen_bit_files_are_kept(kind, tmp_path):
    (tmp_path / "a").write_bytes(file_of(Image.fromarray(SLICE), kind))
    for value in (tmp_path / "a", str(tmp_path / "a"), (tmp_path / "a").read_bytes(), Image.fromarray(SLICE), SLICE):
        found = read_array(value, DEEP, "a")
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[..., 0], SLICE)


@pytest.mark.parametrize(
    ("channels", "kind"),
    [(4, "float32"), (5, "uint16"), (2, "uint16"), (3, "uint16"), (4, "uint8"), (5, "uint8"), (1, "float64"),
     (1, "int16"), (1, "uint32"), (1, "float32"), (3, "float32"), (1, "float16")],
)  # fmt: skip
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_numbers_of_tiff_files_of_any_type_and_channels_are_kept(channels, kind, planes):
    x = (RNG.random((6, 8, channels)) * 200).astype(kind)
    form = ArrayForm(channels, kind, 0, 255 if kind == "uint8" else 200)
    content = io.BytesIO()
    if channels == 1:
        tifffile.imwrite(content, x[..., 0], photometric="minisblack")
    else:
        laid = x if planes == "contig" else x.transpose(2, 0, 1)
        tifffile.imwrite(content, laid, photometric="minisblack", planarconfig=planes)
    np.testing.assert_array_equal(read_array(content.getvalue(), form, "a"), x)
    np.testing.assert_array_equal(read_array(npy(x), form, "a"), x)
    np.testing.assert_array_equal(read_array(x.transpose(2, 0, 1), form, "a"), x)


@pytest.mark.parametrize("turn", range(1, 9))
def test_files_are_upright(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(SLICE)
    expected = np.asarray(stored.transpose(UPRIGHT[turn]) if turn in UPRIGHT else stored)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_array(file_of(stored, kind, exif=exif), DEEP, "a")[..., 0], expected)


def test_eight_bit_files_are_scaled_from_their_white_to_the_range():
    levels = np.array([[0, 51, 255]], np.uint8)
    content = file_of(Image.fromarray(levels), "PNG")
    assert read_array(content, DEEP, "a").ravel().tolist() == [0, 819, 4095]
    assert read_array(content, ArrayForm(1, "float32", -1, 4), "a").ravel().tolist() == [-1, 0, 4]
    colour = Image.fromarray(np.stack([levels, levels, levels], -1))
    assert read_array(colour, ArrayForm(3, "float32", 0, 10), "a").tolist() == [[[0] * 3, [2] * 3, [10] * 3]]
    four = RNG.integers(0, 256, (4, 5, 4), np.uint8)
    found = read_array(file_of(Image.fromarray(four, "RGBA"), "PNG"), ArrayForm(4, "uint8", 0, 255), "a")
    np.testing.assert_array_equal(found, four)  # alpha is one of four channels, not composited


def test_sixteen_bit_files_have_the_white_that_is_stated_else_that_of_their_depth_for_floats():
    content, unit = file_of(Image.fromarray(SLICE), "PNG"), ArrayForm(1, "float64", 0, 1)
    np.testing.assert_allclose(read_array(content, unit, "a")[..., 0], SLICE / 65535)
    np.testing.assert_allclose(read_array(content, unit, "a", 4095)[..., 0], SLICE / 4095)
    np.testing.assert_allclose(read_array(SLICE, unit, "a", 4095)[..., 0], SLICE / 4095)
    whole = ArrayForm(1, "uint16", 0, 65535)
    np.testing.assert_array_equal(read_array(content, whole, "a", 4095)[..., 0], np.rint(SLICE / 4095 * 65535))
    assert read_array(np.array([[5000]], np.uint16), whole, "a", 4095).item() == 65535  # clipped, as pictures are


@pytest.mark.parametrize(
    ("value", "form", "words"),
    [
        (np.zeros((4, 5, 3), np.uint16), DEEP, r"another shape.*\(4, 5, 3\).*\(H, W, 1\)"),
        (np.zeros((4, 5), np.float32), ArrayForm(2, "float32", 0, 1), "another shape"),
        (np.zeros((0, 5), np.uint16), DEEP, "another shape"),
        (np.zeros((4, 5), np.uint8), DEEP, "got uint8; uint16"),
        (np.zeros((4, 5), np.float32), DEEP, "got float32; uint16"),
        (np.zeros((4, 5), np.uint16), ArrayForm(1, "float32", 0, 1), "got uint16; float32"),
        (np.array([[None]]), DEEP, "got object"),
        (np.array([[1, np.nan], [np.inf, 0]]), ArrayForm(1, "float32", 0, 1), "2 of 4 are NaN or infinite"),
        (np.array([[1e300]]), ArrayForm(1, "float32", 0, 1), "inf.*0 to 1"),
        (np.array([[4096]], np.uint16), DEEP, "got 4096 to 4096; 0 to 4095"),
        (np.array([[-0.1, 0.5]]), ArrayForm(1, "float32", 0, 1), "-0.1 to 0.5"),
        (file_of(Image.new("RGB", (6, 4)), "PNG"), ArrayForm(4, "uint8", 0, 255), r"shape \(4, 6, 3\)"),
        (npy(SLICE)[:-3], DEEP, "ends too early"),
        (b"GIF89a", DEEP, "cannot decode a"),
        (b"", DEEP, "the file is empty"),
        (17, DEEP, "not a picture"),
    ],
)  # fmt: skip
def test_what_is_no_image_of_the_form_is_refused(value, form, words):
    with pytest.raises(ImageError, match=words):
        read_array(value, form, "a")


def test_a_tiff_of_other_channels_is_refused_before_it_is_decoded():
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((60, 80, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    cut = content.getvalue()[:400] + bytes(len(content.getvalue()) - 400)
    for form in (ArrayForm(4, "uint16", 0, 9), DEEP):
        with pytest.raises(ImageError, match=r"shape \(60, 80, 7\)"):
            read_array(cut, form, "a")
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((3, 16, 16, 2), np.uint16), volumetric=True, photometric="minisblack",
                     planarconfig="contig", tile=(1, 16, 16))  # fmt: skip
    with pytest.raises(ImageError, match="a volume"):
        read_array(content.getvalue(), ArrayForm(2, "uint16", 0, 9), "a")


def test_ends_of_a_range_that_the_type_rounds_are_inside():
    form = ArrayForm(1, "float32", 0.1, 0.7)
    ends = np.array([[0.1, 0.7]], np.float32)  # not 0.1 and 0.7 to the last bit
    assert (read_array(ends, form, "a")[0, :, 0] == ends[0]).all()
    assert read_array(np.array([[0.1, 0.7]]), form, "a").dtype == np.float32


def test_numbers_that_are_handed_on_are_a_copy():
    given = SLICE[..., None].copy()
    read_array(given, DEEP, "a")[...] = 0
    assert (given[..., 0] == SLICE).all()


@pytest.mark.parametrize(
    "told",
    [(0, "uint8", 0, 1), (1, "complex64", 0, 1), (1, "object", 0, 1), (1, "float32", 1, 1), (1, "uint8", 0, 256),
     (1, "uint8", -1, 5), (1, "float32", 0, float("nan")), (1, "float32", 0, float("inf")),
     (4, "uint8", 0, 255, (0, 1)), (4, "uint8", 0, 255, (0, 1, 4))],
)  # fmt: skip
def test_a_form_that_cannot_be_is_refused(told):
    with pytest.raises(UsageError, match="Set "):
        ArrayForm(*told)


@pytest.mark.parametrize("kind", ARRAY_TYPES)
def test_a_form_survives_json(kind):
    form = ArrayForm(4, kind, 0, 100, (3, 2, 1))
    assert ArrayForm.from_json(json.loads(json.dumps(form.to_json()))) == form


def test_pictures_show_three_channels_the_mean_of_two_or_those_that_are_chosen():
    x = RNG.integers(0, 256, (3, 4, 5), np.uint8)
    np.testing.assert_array_equal(show_channels(x), x[..., :3])
    np.testing.assert_array_equal(show_channels(x, (4, 0, 2)), x[..., [4, 0, 2]])
    for shown, plane in ((show_channels(x, (3,)), x[..., 3]), (show_channels(x[..., :1]), x[..., 0])):
        np.testing.assert_array_equal(shown, np.stack([plane] * 3, -1))
    np.testing.assert_array_equal(show_channels(x[..., :2])[..., 1], np.rint(x[..., :2].mean(-1)))
    assert ArrayForm(2, "uint8", 0, 255).to_picture(x[..., :2]).mode == "L"
    assert ArrayForm(5, "uint8", 0, 255).to_picture(x).mode == "RGB"
    assert ArrayForm(5, "uint8", 0, 255, (1,)).to_picture(x).mode == "L"
    levels = np.arange(256, dtype=np.uint8)[None, :, None]
    wide = ArrayForm(1, "int16", -1000, 3000)
    np.testing.assert_array_equal(wide.to_levels(wide.of_picture(Image.fromarray(levels[..., 0]))), levels)
