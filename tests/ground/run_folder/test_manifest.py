"""Agreement of manifests, their format and the JSON they are written in."""

import json
from pathlib import Path

import numpy as np
import pytest

from klarsicht.ground.errors import InputError, RunMismatch
from klarsicht.ground.run_folder import manifest


def test_first_difference_is_named_with_both_values_and_the_remedy():
    has = {"settings": {"a": 1, "b": {"c": 2, "d": 3}}, "other": 9}
    with pytest.raises(RunMismatch) as caught:
        manifest.require_agreement({"settings": {"a": 1, "b": {"c": 5, "d": 6}}}, has)
    assert caught.value.what == "the run was made with another --b.c"
    assert (caught.value.got, caught.value.rule) == ("5", "the run has 2")
    assert "--out" in caught.value.remedy


def test_an_option_and_a_hash_are_named_as_a_person_knows_them():
    has = {"settings": {"map_side": 8, "model": "m"}, "identity": {"corpus": "a" * 64}}
    other = {"settings": {"map_side": 9, "model": "m"}, "identity": {"corpus": "b" * 64}}
    with pytest.raises(RunMismatch, match=r"another --map-side; got 9; the run has 8\."):
        manifest.require_agreement(other, has)
    with pytest.raises(RunMismatch, match=r"another corpus; got b{12}; the run has a{12}\."):
        manifest.require_agreement({"identity": other["identity"]}, has)


@pytest.mark.parametrize(
    ("wanted", "has"), [({"s": {"a": 1}}, {"s": {}}), ({"s": {}}, {"s": {"a": 1}}), ({"threads": 2}, {})]
)
def test_a_fact_on_one_side_only_is_a_difference(wanted, has):
    with pytest.raises(RunMismatch):
        manifest.require_agreement(wanted, has)


def test_facts_not_asked_for_may_differ():
    manifest.require_agreement({"s": {"a": [1, 2]}}, {"s": {"a": [1, 2]}, "created": "long ago"})


@pytest.mark.parametrize("record", [{"format": 2}, {"format": 0}, {"format": "1"}, {"format": True}, {}, [], "1", None])
def test_a_record_of_another_format_or_of_none_is_refused(record):
    """True equals 1 in Python, and is no number of a format."""
    number = record.get("format", "none") if isinstance(record, dict) else "none"
    with pytest.raises(InputError) as caught:
        manifest.require_format(record, "manifest.json", "Make it again.")
    assert (caught.value.what, caught.value.got) == ("manifest.json has another format", f"format {number}")
    assert caught.value.rule.endswith("reads format 1") and caught.value.remedy == "Make it again."


def test_a_new_manifest_has_the_format_that_is_read():
    made = manifest.new_manifest({"settings": {}})
    assert made["format"] == 1
    manifest.require_format(made, "manifest.json", "Make it again.")


def test_versions_are_those_the_libraries_tell():
    assert manifest.library_versions()["numpy"] == np.__version__
    assert "no such library" not in manifest.library_versions()


def test_json_holds_paths_and_numpy_values():
    content = {
        "p": Path("a/b"),
        "f": np.float32(0.5),
        "i": np.int64(3),
        "a": np.arange(3),
        "b": np.bool_(True),
    }
    assert json.loads(manifest.to_json(content)) == {"p": "a/b", "f": 0.5, "i": 3, "a": [0, 1, 2], "b": True}
    with pytest.raises(TypeError, match="object"):
        manifest.to_json(object())
