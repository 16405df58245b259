"""Facts of a run as pages read them."""

import shutil

import pytest
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.ground.run_folder.store import RunStore


@pytest.mark.parametrize(("name", "value"), [("model", None), ("target", 5), ("metric", "concept")])
def test_settings_of_another_kind_are_damage_and_no_failure(whole_run, tmp_path, name, value):
    run = RunStore(shutil.copytree(whole_run.path, tmp_path / "run"))
    facts = run.manifest
    run.write_json("manifest.json", facts | {"settings": facts["settings"] | {name: value}})
    answer = ask(make_app(open_explored_run(run.path, "a")), "/api/run")
    assert answer.status == 410 and name in answer.json["error"]
