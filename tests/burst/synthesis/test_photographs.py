"""Photographs of a folder: every file named that cannot be used, and why."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import CorpusError, ImageError, MissingExtra

SMALL = Geometry(scale=2, height=24, width=40, reach=4)  # 64 x 96 pixels


def save(folder, name, size=(64, 96), mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(folder / name)
    return pixels


def test_a_folder_in_the_order_of_its_names(tmp_path):
    kept = {name: save(tmp_path, name, size) for name, size in (("b.png", (64, 96)), ("a.png", (100, 70)))}
    (tmp_path / "notes.txt").write_text("not a photograph")
    found = photographs.read_folder(tmp_path, SMALL)
    assert found.names == ("a.png", "b.png") and found.geometry == SMALL
    for name, pixels in zip(found.names, found.photographs, strict=True):
        np.testing.assert_array_equal(pixels, kept[name])


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("grey.png", {"mode": "L"}, "grey.png is not an RGB"),
        ("press.jpg", {"mode": "CMYK"}, "press.jpg is not an RGB"),
        ("stamp.png", {"size": (63, 96)}, "stamp.png is too small; got 63 x 96; bursts are cut from 64 x 96"),
        ("long.png", {"size": (60, 400)}, "long.png is too small"),
    ],
)
def test_a_photograph_that_cannot_be_used_is_named(tmp_path, name, given, told):
    save(tmp_path, name, **given)
    with pytest.raises(ImageError, match=told):
        photographs.read_folder(tmp_path, SMALL)


def test_all_photographs_that_are_too_small_are_named_at_once(tmp_path):
    for number in range(7):
        save(tmp_path, f"{number}.png", (63, 96))
    save(tmp_path, "large.png", (64, 96))
    said = r"7 of 8 photographs are too small; got 0\.png of 63 x 96, .*4\.png of 63 x 96, 2 more; .*64 x 96\. Enlarge"
    with pytest.raises(ImageError, match=said):
        photographs.read_folder(tmp_path, SMALL, "Enlarge them.")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff and then nothing")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        photographs.read_folder(tmp_path, SMALL)


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(CorpusError, match="no such folder"):
        photographs.read_folder(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="no photographs"):
        photographs.read_folder(tmp_path)


def test_the_packaged_photographs_fit_their_geometry():
    found = photographs.packaged_photographs()
    np.testing.assert_array_equal(found.photographs[1], data.chelsea())
    for photograph in found.photographs:
        assert all(side >= need for side, need in zip(photograph.shape, found.geometry.crop, strict=False))


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage", None)
    with pytest.raises(MissingExtra, match="scikit-image"):
        photographs.packaged_photographs()
