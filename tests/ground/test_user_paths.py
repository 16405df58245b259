"""Paths of a user: those of pathlib are the oracle."""

from pathlib import Path

import pytest

from klarsicht.ground.errors import UsageError
from klarsicht.ground.user_paths import as_path


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_a_text_and_a_path_are_the_same_path(value):
    assert as_path("folder", value) == Path("a/b")


@pytest.mark.parametrize("value", [None, 3, b"a", ["a"]])
def test_other_things_are_refused_by_their_name(value):
    with pytest.raises(UsageError, match=f"folder is not a path; got {type(value).__name__}; a text"):
        as_path("folder", value)
