"""Columns of texts. Oracle: the same texts in a list or a tuple of Python."""

import pickle
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.ground.texts import BLOCK, Texts

NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=20)


@given(NAMES, st.sampled_from(["", "data/", "/a/ü/"]))
def test_texts_are_those_of_a_list(names, root):
    names = [root + name for name in names]
    texts = Texts.of(names)
    assert list(texts) == names
    assert texts == names and texts == tuple(names) and tuple(names) == tuple(texts)
    assert [texts[i] for i in range(-len(names), len(names))] == [*names, *names]
    assert texts[1:4:2] == names[1:4:2] and texts[::-1] == names[::-1]
    assert texts.are_distinct == (len(set(names)) == len(names))
    assert texts.to_column().to_pylist() == names
    assert Texts.of_chunks([texts.to_column()]) == names
    again = pickle.loads(pickle.dumps(texts))
    assert again == texts and hash(again) == hash(texts)


@given(NAMES, st.data())
def test_rows_that_are_taken(names, data):
    rows = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=9)) if names else []
    assert Texts.of(names).take(rows) == [names[row] for row in rows]


def test_a_common_folder_is_held_once_and_blocks_are_joined():
    names = [f"/somewhere/data/{i:05d}.png" for i in range(2 * BLOCK + 3)]
    texts = Texts.of(names)
    assert texts.prefix == "/somewhere/data/" and texts == names
    assert Texts.of_blocks("/somewhere/data/", [[name[16:] for name in names[:5]], []]) == names[:5]


@given(st.lists(st.lists(st.sampled_from(["a/b/c", "a/b/d", "a/b/", "a/é/c", "", None, "x"]), max_size=4), max_size=5))
def test_parts_of_a_column_are_joined_whatever_folder_they_have_in_common(parts):
    names = [name or "" for part in parts for name in part]
    texts = Texts.of_chunks(pa.array(part, pa.string()) for part in parts)
    assert list(texts) == names
    assert texts.to_column().to_pylist() == names


def test_a_folder_common_to_all_parts_is_held_once():
    parts = [[f"/some/where/{i:03d}" for i in range(a, a + 10)] for a in (0, 10)]
    assert Texts.of_chunks(map(pa.array, parts)).prefix == "/some/where/"
    assert Texts.of_chunks(map(pa.array, [*parts, ["/some/other"]])).prefix == ""


def test_another_sequence_is_not_equal():
    assert Texts.of(["a", "b"]) != ["a"] and Texts.of(["a"]) != "a" and Texts.of(["a"]) != 1
    assert Texts.of(["a", "b"]) != ("a", "c")


def test_a_name_without_utf8_is_refused():
    with pytest.raises(UnicodeEncodeError):
        Texts.of(["a\udcff"])


def test_a_name_takes_its_characters_and_eight_bytes():
    count = 50_000
    texts = Texts.of_blocks("", ([f"{i:014d}" for i in range(at, at + 1000)] for at in range(0, count, 1000)))
    assert texts.array.nbytes == pytest.approx(22 * count, rel=0.02)
    tracemalloc.start()
    for _ in texts:
        pass
    assert texts.are_distinct
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * count + 100 * 2 * BLOCK + 60_000  # the hashes and a block of Python's texts
