"""Kept embeddings: under a name that says all that they depend on, whole or not at all, and not too many."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from klarsicht.audit.verdicts.detectors.artifact_embedding import EmbeddingTraining
from klarsicht.audit.verdicts.quantification import embedding_cache
from klarsicht.audit.verdicts.quantification.embedding_cache import cache_key, keep_cached, read_cached

TRAINING = EmbeddingTraining(np.zeros((10, 28, 28, 3), np.uint8), ("stripe", "hair"), 0)
FOLDER_OF = embedding_cache.cache_folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_the_folder_is_that_of_the_users_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FOLDER_OF() == tmp_path / "klarsicht" / "embeddings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FOLDER_OF() == tmp_path / ".cache" / "klarsicht" / "embeddings"


def test_a_user_without_a_home_folder_keeps_nothing(monkeypatch):
    """As in a container whose user is in no list of users: pathlib raises, and the command ended in a traceback."""
    monkeypatch.setattr(embedding_cache, "cache_folder", FOLDER_OF)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("~nobody-of-that-name").expanduser())
    keep_cached("a", b"weights")
    assert FOLDER_OF() is None and read_cached("a") is None


def test_whatever_a_training_depends_on_changes_the_name():
    one_pixel = TRAINING.images.copy()
    one_pixel[3, 4, 5, 0] = 1
    others = [
        replace(TRAINING, images=one_pixel),
        replace(TRAINING, images=TRAINING.images.reshape(10, 14, 56, 3)),
        replace(TRAINING, families=("stripe",)),
        replace(TRAINING, seed=1),
    ]
    keys = [cache_key(one) for one in (TRAINING, *others)]
    assert len(set(keys)) == 5 and cache_key(replace(TRAINING)) == keys[0]


def test_a_state_is_read_as_it_was_kept_and_a_damaged_one_is_none(folder):
    assert read_cached("a") is None
    keep_cached("a", b"weights")
    assert read_cached("a") == b"weights"
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for content in (b"", whole[:-1], whole[:-1] + b"!", b"!" + whole[1:]):
        file.write_bytes(content)
        assert read_cached("a") is None


def test_those_that_were_used_longest_ago_are_removed(folder, monkeypatch):
    monkeypatch.setattr(embedding_cache, "MOST_KEPT", 2)
    for age, key in ((30, "a"), (20, "b")):
        keep_cached(key, key.encode())
        os.utime(folder / f"{key}.pt", (1e9 - age, 1e9 - age))
    assert read_cached("a") == b"a"  # now used last
    keep_cached("c", b"c")
    assert {file.stem for file in folder.iterdir()} == {"a", "c"}


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(embedding_cache, "cache_folder", lambda: tmp_path / "file" / "cache")
    keep_cached("a", b"weights")
    assert read_cached("a") is None
