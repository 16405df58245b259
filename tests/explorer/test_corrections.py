"""Corrections in a run folder, as the explorer lists them."""

import json

import pyarrow as pa
from pyarrow import parquet
from tests.explorer.made_run import write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_app
from klarsicht.explorer.corrections import list_corrections
from klarsicht.explorer.explored_run import ExploredRun


def test_a_run_without_corrections_lists_none(tmp_path):
    assert list_corrections(ExploredRun.of(write_run(tmp_path, images=False))) == []


def test_result_files_and_changed_predictions_are_told_and_damaged_ones_named(tmp_path):
    store = write_run(tmp_path, images=False)
    good, bad = store.path / "corrections" / "0-oblique", store.path / "corrections" / "1-x"
    for folder in (good, bad, store.path / "corrections" / "empty"):
        folder.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "correction.json").write_text("{}")
    (store.path / "corrections" / "link").symlink_to(tmp_path / "elsewhere")
    (good / "correction.json").write_text(json.dumps({"class": "tagged", "shown": {"rise": float("nan")}}))
    lines = [
        {"row": 0, "label": 0, "artifact": False, "before": 0, "after": 0},
        {"row": 25, "label": 1, "artifact": True, "before": 0, "after": 1},
        {"row": 26, "label": 1, "artifact": True, "before": 9, "after": 2},
        {"row": 10**6, "label": 1, "artifact": True, "before": 0, "after": 1},
    ]
    parquet.write_table(pa.Table.from_pylist(lines), good / "answers.parquet")
    (bad / "evaluation.json").write_text("{")
    (bad / "answers.parquet").write_bytes(b"PAR1")
    first, second = list_corrections(ExploredRun.of(store))
    assert (first["name"], first["unread"]) == ("0-oblique", [])
    assert [(one["name"], one["label"], one["before"], one["after"]) for one in first["changed"]] == [
        ("observed/00001.png", "observed", "tagged", "observed"),
        ("observed/00002.png", "observed", "9", "plain"),
    ]
    assert [text.split(":")[0] for text in second["unread"]] == ["evaluation.json", "answers.parquet"]
    told = ask(make_app(ExploredRun.of(store)), "/api/corrections")
    assert told.status == 200 and told.json[0]["correction"]["shown"]["rise"] is None
