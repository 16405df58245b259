"""HEIC files that pillow-heif wrote without loss, held to the codes that they were written from."""

import sys

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.burst.files import reading
from klarsicht.ground.errors import InputError, MissingExtra, UsageError

EXACT = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}  # without loss, and without a change of colours


def ramp(depth):
    y, x = np.mgrid[:48, :64]
    highest = 2**depth - 1
    red = np.rint(highest * x / 63)
    return np.stack([red, highest - red, np.rint(highest * y / 47)], -1).astype(np.uint16)


def save(path, codes, depth, orientation=1, **how):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[272], exif[274] = "Example Two", orientation
    exif.get_ifd(34665)[33434] = 0.02
    mode, sent = ("RGB", codes.astype(np.uint8)) if depth == 8 else ("RGB;16", codes << (16 - depth))
    file = heif.from_bytes(mode=mode, size=codes.shape[1::-1], data=sent.tobytes())
    file.save(path, exif=exif.tobytes(), **(EXACT | how))
    return path


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_a_heic_file_under_another_ending_is_told_its_own(tmp_path, ending):
    path = save(tmp_path / "a.heic", ramp(8), 8).rename(tmp_path / f"a{ending}")
    with pytest.raises(InputError, match=rf"under the ending \{ending}; .*Rename it to a\.heic\."):
        reading.read(path)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_codes_become_light_by_the_curve_that_the_standard_prints(tmp_path, monkeypatch, depth):
    monkeypatch.setattr(pytest.importorskip("pillow_heif").options, "SAVE_HDR_TO_12_BIT", depth == 12)
    codes = ramp(depth)
    read = reading.read(save(tmp_path / "a.heic", codes, depth))
    share = codes / (2**depth - 1)
    wanted = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(read.light, np.moveaxis(wanted, -1, 0), atol=4e-4)
    assert read.light.max() == 1  # the highest code of its own depth is white
    header = read.header
    assert (header.colour, header.size, header.levels) == ("rgb", (48, 64), 2**depth - 1)
    assert (header.camera, header.exposure) == ("Example Two", pytest.approx(0.02 * 100))
    straight = reading.read(tmp_path / "a.heic", ReadSettings(linear=True))
    np.testing.assert_allclose(straight.light, np.moveaxis(share, -1, 0), rtol=1e-6)


def test_a_turned_picture_is_turned_once(tmp_path):
    """libheif turns the picture by the file's own property; the orientation beside it in EXIF is not followed again."""
    codes = ramp(8)
    read = reading.read(save(tmp_path / "a.heic", codes, 8, orientation=6), ReadSettings(linear=True))
    upright = np.asarray(Image.fromarray(codes.astype(np.uint8)).transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(np.rint(np.moveaxis(read.light, 0, -1) * 255), upright)
    assert (read.header.size, read.header.orientation, read.header.tags.number(274)) == ((64, 48), 1, None)


def test_a_missing_extra_is_one_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtra, match=r"pillow_heif is not installed.*pip install '\.\[heif\]'"):
        reading.read(tmp_path / "a.heic")


def test_what_cannot_be_read_is_named(tmp_path):
    path = save(tmp_path / "a.heic", ramp(8), 8)
    with pytest.raises(InputError, match=r"a\.heic.*64 x 48 pixels.*--megapixels"):
        reading.read(path, ReadSettings(megapixels=3071e-6))
    with pytest.raises(UsageError, match="Give --memory"):
        reading.read(path, ReadSettings(memory=0.01))
    (tmp_path / "b.heic").write_bytes(path.read_bytes()[:400])
    (tmp_path / "c.heic").write_bytes(b"no photograph at all" * 40)
    for name in "bc":
        with pytest.raises(InputError, match=rf"cannot read {name}\.heic"):
            reading.read(tmp_path / f"{name}.heic")


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_codes_under_a_curve_of_hdr_are_refused(tmp_path, curve, name):
    path = save(tmp_path / "a.heic", ramp(10), 10, color_primaries=9, transfer_characteristics=curve)
    with pytest.raises(InputError, match=rf"cannot read a\.heic.*{name} of HDR"):
        reading.read(path)
