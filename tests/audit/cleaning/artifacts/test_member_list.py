"""Lists of images in files. Oracles: files written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from klarsicht.audit.cleaning.artifacts.found_artifact import find_members, read_member_list
from klarsicht.ground.errors import InputError


def test_a_list_without_a_name_is_refused(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(" \n\n")
    with pytest.raises(InputError, match=r"the list of images is empty; got .*list\.txt"):
        read_member_list(file)


def test_a_list_that_does_not_exist_is_named_once_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"Check the path of --members\.$") as caught:
        read_member_list(tmp_path / "no.txt")
    assert str(caught.value).count("no.txt") == 1


KEYS = ["nevus/p1/001.png", "nevus/p2/001.png", "nevus/p3/002.png", "nevus/p3/002.png", "other/003.png"]
NEVI = SimpleNamespace(  # the audited class: its group has all images but the last
    group=SimpleNamespace(rows=np.arange(4)),
    corpus=SimpleNamespace(keys=KEYS, paths=[f"/data/{key}" for key in KEYS]),
)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["nevus/p1/001.png"], [0]),
        (["/data/nevus/p2/001.png", 0], [0, 1]),
        (["nevus/p3/002.png"], [2, 3]),  # a picture that the table lists twice
        (["002.png"], [2, 3]),
    ],
)
def test_every_row_of_a_name_is_a_member(names, rows):
    assert find_members(names, NEVI).tolist() == rows


def test_a_file_name_of_several_images_is_refused_and_names_them():
    with pytest.raises(InputError, match=r"got 001\.png: nevus/p1/001\.png, nevus/p2/001\.png; .*with the folders"):
        find_members(["001.png"], NEVI)
    with pytest.raises(InputError, match=r"not audited for this class; got 1 of 2: 003\.png"):
        find_members(["003.png", "nevus/p1/001.png"], NEVI)


def test_a_list_that_an_editor_began_with_a_mark_of_byte_order_is_read(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    assert read_member_list(tmp_path / "list.txt") == ["a.png", "b.png"]
