"""Properties of files that Pillow wrote with settings that are known."""

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.file_properties import read_properties
from klarsicht.ground.errors import Unreachable

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)


def read(*files):
    paths = [str(file) for file in files]
    return read_properties(Corpus(paths, paths, ("a",) * len(paths)), range(len(paths)))


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_the_quality_of_a_jpeg_is_that_of_its_table(tmp_path, quality):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", quality=quality)
    (found,) = read(tmp_path / "a.jpg")
    assert abs(found["JPEG quality"] - quality) <= 5


def test_size_colour_depth_and_tags_are_read(tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "Scanner 7"
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300), progressive=True)
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "b.png")
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256).save(tmp_path / "c.png")
    colour, grey, deep = read(tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "c.png")
    assert (colour["width"], colour["height"], colour["width over height"]) == (30, 20, 1.5)
    assert (colour["has colour"], grey["has colour"], deep["has colour"]) == (1, 0, 0)
    assert (colour["bits a channel"], grey["bits a channel"], deep["bits a channel"]) == (8, 8, 16)
    assert colour["has a model in EXIF"] == colour["has EXIF tags"] == colour["has a resolution"] == 1
    assert colour["has progressive compression"] == 1 and "JPEG quality" not in grey
    assert grey["has EXIF tags"] == grey["has a model in EXIF"] == 0 and grey["has format PNG"] == 1


def test_what_is_no_image_file_has_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert read(tmp_path / "a.jpg") == [None]


def test_a_file_that_was_listed_and_is_gone_ends_the_command(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path)
    path.unlink()
    with pytest.raises(Unreachable, match="out of reach"):
        read(path)


def test_a_link_to_nothing_is_named_with_its_target(tmp_path):
    path = tmp_path / "a.jpg"
    path.symlink_to(tmp_path / "unmounted.jpg")
    with pytest.raises(Unreachable, match=r"a\.jpg, a link to .*unmounted\.jpg; .* correct the link, or remove it"):
        read(path)


def test_further_links_to_nothing_are_counted(tmp_path):
    """So that they need not be found one command after the other; links that lead somewhere are none of them."""
    Image.fromarray(PIXELS).save(tmp_path / "there.jpg")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "there.jpg")
    for name in "abc":
        (tmp_path / f"{name}.jpg").symlink_to(tmp_path / "unmounted.jpg")
    with pytest.raises(Unreachable, match=r"a\.jpg, a link to .*unmounted\.jpg \(links to nothing in its folder: 3\);"):
        read(tmp_path / "a.jpg")
