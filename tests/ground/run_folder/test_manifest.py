"""Agreement of manifests, migrations and the JSON they are written in."""

import json
from pathlib import Path

import numpy as np
import pytest

from klarsicht.ground.errors import RunMismatch, StoreError
from klarsicht.ground.run_folder import manifest


def test_first_difference_is_named_with_both_values_and_the_remedy():
    has = {"settings": {"a": 1, "b": {"c": 2, "d": 3}}, "other": 9}
    with pytest.raises(RunMismatch) as caught:
        manifest.require_agreement({"settings": {"a": 1, "b": {"c": 5, "d": 6}}}, has)
    assert "settings.b.c" in caught.value.what
    assert (caught.value.got, caught.value.rule) == ("5", "the run has 2")
    assert "--out" in caught.value.remedy


@pytest.mark.parametrize(
    ("wanted", "has"), [({"s": {"a": 1}}, {"s": {}}), ({"s": {}}, {"s": {"a": 1}}), ({"threads": 2}, {})]
)
def test_a_fact_on_one_side_only_is_a_difference(wanted, has):
    with pytest.raises(RunMismatch):
        manifest.require_agreement(wanted, has)


def test_facts_not_asked_for_may_differ():
    manifest.require_agreement({"s": {"a": [1, 2]}}, {"s": {"a": [1, 2]}, "created": "long ago"})


def test_migrations_run_in_order(monkeypatch):
    monkeypatch.setattr(manifest, "STORE_VERSION", 3)
    monkeypatch.setitem(manifest.MIGRATIONS, 1, lambda m: m | {"path": ["1 to 2"]})
    monkeypatch.setitem(manifest.MIGRATIONS, 2, lambda m: m | {"path": [*m["path"], "2 to 3"]})
    assert manifest.migrate({"store": 1}) == {"store": 3, "path": ["1 to 2", "2 to 3"]}


def test_every_older_version_has_its_migration():
    assert sorted(manifest.MIGRATIONS) == list(range(1, manifest.STORE_VERSION))


def test_newer_and_foreign_manifests_are_refused():
    with pytest.raises(StoreError, match="Upgrade"):
        manifest.migrate({"store": manifest.STORE_VERSION + 1})
    with pytest.raises(StoreError, match="not a run's"):
        manifest.migrate({"name": "a web app"})


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
