"""Lists of images in files. Oracles: files written by hand."""

import pytest

from klarsicht.audit.cleaning.artifacts.found_artifact import read_member_list
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
