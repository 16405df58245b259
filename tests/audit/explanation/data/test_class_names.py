"""One label stands once: lists of the user's are refused by the label, names of others are made distinct and said."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from tests.audit.conftest import network, picture, write_corpus

from klarsicht.audit.explanation.data.class_names import describe_renamed, make_distinct, read_class_map
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.data.sequences import open_sequence
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError

NAMES = st.lists(st.sampled_from(["cat", "cat (2)", "cat (3)", "dog", ""]), max_size=7)


@given(NAMES)
def test_distinct_names_are_distinct_and_first_ones_stay(names):
    """Laws: none stands twice, the first of each name keeps it, the others begin with it."""
    found = make_distinct(names)
    assert len(set(found)) == len(found) == len(names)
    assert all(new == old for i, (old, new) in enumerate(zip(names, found, strict=True)) if old not in names[:i])
    assert all(new.startswith(old) for old, new in zip(names, found, strict=True))
    assert bool(describe_renamed(names, found)) == (len(set(names)) < len(names))


def test_a_second_name_is_numbered_past_names_that_are_there():
    assert make_distinct(["cat", "dog", "cat", "cat (2)", "cat"]) == ("cat", "dog", "cat (3)", "cat (2)", "cat (4)")


def test_a_class_map_with_a_label_twice_names_it(tmp_path):
    (tmp_path / "map.csv").write_text("label,index\nant,0\nbee,1\nant,2\n")
    with pytest.raises(InputError, match=r"map\.csv has a label twice; got 'ant' \(2 times\)") as caught:
        read_class_map(tmp_path / "map.csv", ("ant", "bee"), 3)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("heading", ["label,idx", "label;index", "class,index", "label"])
def test_a_class_map_without_a_column_names_those_that_it_has(tmp_path, heading):
    (tmp_path / "map.csv").write_text(f"{heading}\nant,0\n")
    with pytest.raises(InputError, match="lacks a column") as caught:
        read_class_map(tmp_path / "map.csv", ("ant",), 1)
    assert caught.value.got == f"columns {heading.replace(',', ', ')}"
    assert "label,index" in caught.value.rule and "--class-map" in caught.value.remedy


def test_a_field_that_never_ends_is_one_line(tmp_path):
    (tmp_path / "map.csv").write_text('label,index\n"' + "a" * 200_000)
    with pytest.raises(InputError, match="the class map cannot be read"):
        read_class_map(tmp_path / "map.csv", ("ant",), 1)


def test_a_class_map_of_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "map.csv").write_text("label,index\nant,1\nbee,0\n", encoding="utf-8-sig")
    assert read_class_map(tmp_path / "map.csv", ("ant", "bee"), 2) == {"ant": 1, "bee": 0}


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_the_command_line_ends_at_a_class_map_with_a_label_twice(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "data", per_class=4)
    (tmp_path / "map.csv").write_text("label,index\na,0\nb,1\nc,2\na,2\n")
    words = ["--model", "tests.audit.conftest:network", "--data", "data", "--class-map", "map.csv"]
    assert run(["audit", command, *words]) == 3
    assert "map.csv has a label twice; got 'a' (2 times)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_list_of_classes_with_one_twice_names_it():
    with pytest.raises(InputError, match=r"list of class names has a label twice; got 'cat' \(2 times\)"):
        load_model(network(), classes=["ant", "cat", "cat"])
    with pytest.raises(InputError, match=r"got 'cat' \(2 times\)"):
        open_sequence([(np.zeros((4, 4, 3), np.uint8), 0)], classes=["cat", "cat"])


class OfOthers(list):
    classes = ("cat", "dog", "cat")


def test_names_that_a_data_set_brings_along_are_made_distinct_and_said(capsys):
    items = OfOthers((np.full((4, 4, 3), label, np.uint8), label) for label in (0, 1, 2))
    assert open_sequence(items).labels == ("cat", "dog", "cat (2)")
    assert "cat (2) is number 2, cat number 0" in capsys.readouterr().err


def test_a_table_of_others_has_distinct_names_too(tmp_path, capsys):
    picture(0, False, np.random.default_rng(0)).save(tmp_path / "one.png")
    features = {"label": {"names": ["cat", "dog", "cat"], "_type": "ClassLabel"}}
    table = pa.table({"image": [(tmp_path / "one.png").read_bytes()] * 3, "label": [0, 1, 2]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (tmp_path / "data").mkdir()
    for name in ("train-0", "train-1"):
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "data" / f"{name}.parquet")
    assert open_corpus(tmp_path / "data").labels == ("cat", "dog", "cat (2)") * 2
    assert capsys.readouterr().err.count("cat (2) is number 2") == 1


def test_an_own_name_of_the_model_that_is_the_label_of_another_output_is_numbered(tmp_path):
    """Oracle: the map as it is written: ant is output 1, whatever the model calls its outputs."""
    write_corpus(tmp_path / "data", per_class=2)
    (tmp_path / "map.csv").write_text("label,index\na,1\nb,2\nc,2\n")
    settings = AuditSettings(model="mine", data=str(tmp_path / "data"), class_map=str(tmp_path / "map.csv"))
    audit = Audit.of(settings, load_model(network(), classes=["a", "x", "y"]))
    assert audit.names == ("a (2)", "a", "b / c")
    assert audit.index == {"a": 1, "b": 2, "c": 2}
