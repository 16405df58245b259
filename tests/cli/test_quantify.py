import json
from pathlib import Path

import pytest
from tests.audit.conftest import write_corpus

from klarsicht.cli.app import run

ROOT = Path(__file__).parents[2]
MODEL = "tests.audit.conftest:network"


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data", per_class=30)
    out = tmp_path / "run"
    assert run(["audit", "run", "--model", MODEL, "--data", str(tmp_path / "data"), "--out", str(out)]) == 0
    return out


def test_quantify_prints_a_line_for_every_class_and_what_p_is_worth(finished, capsys):
    capsys.readouterr()
    assert run(["audit", "quantify", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert {line.split()[0] for line in printed.splitlines()[1:4]} == set("abc")
    assert "Fewer than 5 classes" in printed and "none is called" in printed
    assert run(["audit", "quantify", str(finished), "--json", "--level", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {line["class"] for line in found["classes"]} == set("abc") and found["level"] == 0.2
    assert run(["audit", "status", str(finished), "--json"]) == 0
    assert {"signs", "effects"} <= {step["name"] for step in json.loads(capsys.readouterr().out)}


def test_a_level_that_is_none_is_a_usage_error(finished, capsys):
    assert run(["audit", "quantify", str(finished), "--level", "2"]) == 2
    assert "level is out of range" in capsys.readouterr().err


def test_power_says_unknown_until_copies_are_trained(finished, capsys):
    asked = ["audit", "power", str(finished), "--kind", "blocks", "--prevalence", "0.2", "--classes", "1"]
    capsys.readouterr()
    assert run(asked) == 0
    assert "unknown: --train" in capsys.readouterr().out
    assert run([*asked, "--train", "1"]) == 0
    printed = capsys.readouterr().out
    assert "A fine-tuned copy is not your training" in printed and "unknown" not in printed
    assert [line for line in printed.splitlines() if line.startswith("blocks ")][1].endswith("of 1")
    assert run([*asked, "--train", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["poisoned"]
    assert told["epochs"] == 1 and [t["kind"] for t in told["trials"]].count("blocks") == 1


def test_no_epochs_are_a_usage_error(finished, capsys):
    assert run(["audit", "power", str(finished), "--train", "0"]) == 2
    assert "--train is out of range; got 0" in capsys.readouterr().err
