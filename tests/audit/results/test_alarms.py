"""Alarms of runs. Oracles: verdicts, copies and certificates written by hand, and sets of images that are counted."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from tests.audit.results.test_verdicts import FOUND

from klarsicht.audit.results.alarm_files import to_junit, to_sarif
from klarsicht.audit.results.alarms import CAUSES, Alarm, asked_causes, compare_runs, read_alarms
from klarsicht.audit.results.verdicts import VERDICTS_FILE, Quantification
from klarsicht.cli.app import run as klarsicht
from klarsicht.cli.audit_gates import CAUSE_NAMES
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.run_folder.decisions import LEGITIMATE, Change, DecisionLog
from klarsicht.ground.run_folder.store import RunStore

KEYS = [f"carton/{i}.png" for i in range(10)]
USED = replace(FOUND, rows=(1, 2, 3), poisoned=True, used=True)
COPIES = [
    {"keys": ["train/1.png", "test/1.png"], "splits": ["train", "test"], "labels": ["a", "a"], "kind": "near",
     "crosses_splits": True, "crosses_labels": False},
    {"keys": ["train/5.png", "test/6.png"], "splits": ["train", "test"], "labels": ["a", "b"], "kind": "alike",
     "crosses_splits": True, "crosses_labels": True},
    {"keys": ["train/2.png", "train/3.png"], "splits": ["train", "train"], "labels": ["a", "b"], "kind": "exact",
     "crosses_splits": False, "crosses_labels": True},
]  # fmt: skip


def make_run(folder, *verdicts, copies=None):
    store = RunStore.create(folder, settings={}, identity={})
    with store.lock():
        store.write_table("corpus", pa.table({"key": KEYS}))
        if verdicts:
            store.write_json(VERDICTS_FILE, Quantification(verdicts, 0.01, 0.05).to_json())
        if copies is not None:
            store.write_json("duplicates.json", {"groups": copies})
    return store


def test_each_cause_is_read_from_what_its_command_wrote(tmp_path):
    store = make_run(tmp_path / "run", USED, replace(FOUND, name="lemon", target=5), copies=COPIES)
    assert asked_causes(store) == ("relies", "artifact", "leak", "label")
    alarms = read_alarms(store, ("label", "leak", "artifact", "relies"))
    assert [(one.cause, one.subject) for one in alarms] == [
        ("relies", "carton"), ("artifact", "lemon"), ("leak", "train/1.png"), ("label", "train/2.png"),
    ]  # fmt: skip
    assert alarms[0].images == ("carton/1.png", "carton/2.png", "carton/3.png")
    assert "The model uses it" in alarms[0].message
    with pytest.raises(InputError, match="klarsicht audit shortcuts"):
        read_alarms(store, ("shortcut",))
    with pytest.raises(UsageError, match="Did you mean leak"):
        read_alarms(store, ("leaks",))


def test_a_gate_stops_for_content_that_the_model_uses_and_says_so(tmp_path, capsys):
    """`relies` has the exit code 20, as docs/exit-codes.md says; content whose use is not shown is another cause."""
    run = tmp_path / "run"
    content = replace(USED, poisoned=False, use=replace(USED.use, recognition=None, remainder=0.78))
    make_run(run, content)
    assert klarsicht(["audit", "gate", str(run), "--fail-on", "relies"]) == 20
    told = capsys.readouterr().out
    assert "It is content" in told and "78 % of pairs" in told
    (alarm,) = read_alarms(RunStore.open(run), ("relies",))
    assert alarm.images == tuple(KEYS[row] for row in USED.rows)
    make_run(tmp_path / "unused", replace(content, used=False))
    assert klarsicht(["audit", "gate", str(tmp_path / "unused"), "--fail-on", "relies"]) == 0
    assert klarsicht(["audit", "gate", str(tmp_path / "unused"), "--fail-on", "artifact"]) == 21


def test_a_run_that_was_asked_for_nothing_does_not_pass(tmp_path, capsys):
    make_run(tmp_path / "run")
    assert klarsicht(["audit", "gate", str(tmp_path / "run")]) == 3
    printed = capsys.readouterr()
    assert "asked for nothing" in printed.err and "open" not in printed.out


def test_a_correction_alarms_in_each_seed_whose_verdict_is_that_it_harms(tmp_path):
    """The gate says what the verdict says, also of a loss that one class bears alone, or on images trained on."""
    store = make_run(tmp_path / "run")
    words = "harmful: the model loses 2.00 points (0.60 to 3.40) on clean images, more than the 0.50 allowed"
    record = {
        "class": "carton",
        "corrections": [
            {"name": "reactive", "kinds": ["harmful", "clean"], "verdicts": [words, "cleaned: 4 % is left"]},
            {"name": "clarc", "kinds": ["clean-unproven"], "verdicts": ["cleaned, loss not excluded: so"]},
        ],
    }
    with store.lock():
        store.write_json("certificate/certificate.json", record)
    (alarm,) = read_alarms(store, ("harm",))
    assert alarm.message == f"The correction reactive is {words}."


def test_two_runs_are_compared_by_their_images(tmp_path):
    before = make_run(tmp_path / "before", USED, replace(USED, name="lemon", target=5, rows=(0, 1, 2, 3)))
    moved = replace(USED, name="lemon", target=5, rows=(3, 4, 5, 6))
    after = make_run(tmp_path / "after", replace(USED, rows=(2, 3, 4)), moved, copies=COPIES)
    found = compare_runs(before, after)
    assert found.causes == ("relies", "artifact")
    assert [one.subject for one in found.same] == ["carton"]  # {1, 2, 3} and {2, 3, 4}: 2 of 4
    assert [one.subject for one in found.new] == [one.subject for one in found.gone] == ["lemon"]
    assert found.describe() == "1 new, 1 gone, 1 the same; asked: relies, artifact."
    with pytest.raises(InputError, match="in common"):
        compare_runs(make_run(tmp_path / "nothing"), after)


ALARMS = (
    Alarm("relies", "carton", "60 images <share> a mark.", ("a b.png", "c.png")),
    Alarm("relies", "lemon", "Accepted\0.", (), "ada"),
)


def test_junit_counts_failures_and_what_a_person_accepted():
    root = ElementTree.fromstring(to_junit(ALARMS, ("relies", "leak")))
    counts = {suite.get("name"): [suite.get(key) for key in ("tests", "failures", "skipped")] for suite in root}
    assert counts == {"relies": ["2", "1", "1"], "leak": ["1", "0", "0"]}
    failure = root.find(".//failure")
    assert failure.get("message") == "60 images <share> a mark." and failure.text == "a b.png\nc.png"
    assert "ada" in root.find(".//skipped").get("message")


def test_sarif_has_what_the_standard_requires():
    """SARIF 2.1.0 by OASIS: version and runs; of a run its tool's driver and name; of a result its message."""
    log = json.loads(to_sarif(ALARMS, ("relies", "leak")))
    (made,) = log["runs"]
    assert log["version"] == "2.1.0" and made["tool"]["driver"]["name"] == "klarsicht"
    assert [rule["id"] for rule in made["tool"]["driver"]["rules"]] == ["relies", "leak"]
    first, second = made["results"]
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.png"
    assert first["suppressions"] == [] and second["suppressions"][0]["kind"] == "external"


def test_the_gate_ends_with_the_code_of_the_gravest_cause(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = make_run(tmp_path / "run", USED, copies=COPIES)
    assert klarsicht(["audit", "gate", "run", "--junit", "gate.xml", "--sarif", "gate.sarif"]) == 20
    printed = capsys.readouterr()
    assert "3 of 90 images of carton" in printed.out and "1 relies, 0 artifact, 1 leak, 1 label" in printed.err
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().tag == "testsuites"
    assert len(json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]) == 3
    assert klarsicht(["audit", "gate", "run", "--fail-on", "label, leak"]) == CAUSES["leak"].exit_code == 23
    assert klarsicht(["audit", "gate", "run", "--fail-on", "artifact"]) == 0
    assert klarsicht(["audit", "gate", "run", "--fail-on", "harm"]) == 3
    assert "not tested is not passed" in capsys.readouterr().err
    assert klarsicht(["audit", "gate", "run", "--since", "run"]) == 0
    DecisionLog(store.path).append(Change(4, "carton", LEGITIMATE), "ada")
    assert klarsicht(["audit", "gate", "run", "--fail-on", "relies"]) == 0
    assert klarsicht(["audit", "gate", "run", "--fail-on", "relies", "--json"]) == 0
    assert '"accepted_by": "ada"' in capsys.readouterr().out


def test_the_help_names_all_causes():
    assert ", ".join(CAUSES) == CAUSE_NAMES


def test_the_command_compares_two_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "before", USED)
    make_run(tmp_path / "after", replace(FOUND, rows=(1, 2, 3)))
    assert klarsicht(["audit", "compare", "before", "after"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["new", "artifact", "carton"], ["gone", "relies", "carton"]]
    assert lines[-1] == "1 new, 1 gone, 0 the same; asked: relies, artifact."
    assert klarsicht(["audit", "compare", "before", "after", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gone"][0]["images"] == ["carton/1.png", "carton/2.png", "carton/3.png"]
