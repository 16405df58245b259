import json
from pathlib import Path

import pytest
from tests.audit.conftest import write_corpus

from klarsicht.cli.app import run

ROOT = Path(__file__).parents[2]
MODEL = "tests.audit.conftest:network"


@pytest.fixture
def finished(tmp_path, monkeypatch):
    return audited(tmp_path, monkeypatch)


@pytest.fixture
def unmarked(tmp_path, monkeypatch):
    """A run without any artifact, so that there is room for a planted one."""
    return audited(tmp_path, monkeypatch, share=0.0)


def audited(tmp_path, monkeypatch, share=0.2):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data", per_class=30, share=share)
    out = tmp_path / "run"
    assert run(["audit", "run", "--model", MODEL, "--data", str(tmp_path / "data"), "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_quantify_prints_a_line_for_every_class_and_what_p_is_worth(finished, capsys):
    capsys.readouterr()
    assert run(["audit", "quantify", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert {line.split()[0] for line in printed.splitlines()[1:4]} == set("abc")
    assert "fewer than 5 classes" in printed
    assert run(["audit", "quantify", str(finished), "--json", "--level", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {line["class"] for line in found["classes"]} == set("abc") and found["level"] == 0.2
    assert run(["audit", "status", str(finished), "--json"]) == 0
    assert {"signs", "effects"} <= {step["name"] for step in json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_a_level_that_is_none_is_a_usage_error(finished, capsys):
    assert run(["audit", "quantify", str(finished), "--level", "2"]) == 2
    assert "level is out of range" in capsys.readouterr().err


def test_shortcuts_prints_what_tells_each_class(finished, capsys):
    capsys.readouterr()
    assert run(["audit", "shortcuts", str(finished), "--images", "8"]) == 0
    printed = capsys.readouterr().out
    assert {line.split()[0] for line in printed.splitlines()[1:] if line.strip()} >= set("abc")
    assert "fewer than 5 classes" in printed
    assert run(["audit", "shortcuts", str(finished), "--images", "8", "--json"]) == 0
    found = {line["class"]: line for line in json.loads(capsys.readouterr().out)["classes"]}
    areas = {part["part"]: part["area"] for part in found["b"]["parts"]}
    assert areas["colours"] > 0.9  # the class is a colour
    assert run(["audit", "shortcuts", str(finished), "--images", "7"]) == 2


def test_check_needs_a_quantified_run_and_tells_every_picture(finished, capsys, tmp_path):
    pictures = [str(file) for file in sorted((finished.parent / "data" / "b").iterdir())[:3]]
    assert run(["audit", "check", *pictures, "--run", str(finished)]) == 5
    assert run(["audit", "quantify", str(finished)]) == 0
    capsys.readouterr()
    assert run(["audit", "check", *pictures, "--run", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert all(file in printed for file in pictures) and "Significance level of both tests: 0.05." in printed
    assert run(["audit", "check", *pictures, "--run", str(finished), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["pictures"]
    assert [line["path"] for line in checked] == pictures
    for one in checked:  # each finding is a line below the picture's name, and none is a cell of hundreds of letters
        below = printed[printed.index(f"\n{one['path']}\n") :].splitlines()[2:]
        assert "; ".join(words.removeprefix("- ") for words in below[: below.index("")]) == one["verdict"]
    assert run(["audit", "check", str(finished), *pictures, "--json"]) == 0  # the run first, as of all other commands
    assert json.loads(capsys.readouterr().out)["pictures"] == checked
    assert run(["audit", "check", *pictures]) == run(["audit", "check", str(finished)]) == 2
    told = capsys.readouterr().err
    assert f"no run folder of `audit run`; got {pictures[0]}" in told and "no picture is named" in told
    assert run(["audit", "check", str(tmp_path / "none.png"), "--run", str(finished)]) == 3
    (tmp_path / "notes.txt").write_text("no picture")
    some = ["audit", "check", str(tmp_path / "notes.txt"), pictures[0], "--run", str(finished), "--json"]
    assert run(some) == 13  # a script learns that one is missing, and has the result of the other
    printed = capsys.readouterr()
    assert [bool(line["why"]) for line in json.loads(printed.out)["pictures"]] == [True, False]
    assert "some pictures could not be checked; got 1 of 2, first" in printed.err and "notes.txt" in printed.err
    assert run(["audit", "check", str(tmp_path / "notes.txt"), "--run", str(finished)]) == 3
    printed = capsys.readouterr()
    assert "not checked" in printed.out and "none of the pictures could be checked" in printed.err
    assert "BufferedReader" not in printed.out


def test_power_says_unknown_until_copies_are_trained(unmarked, capsys):
    asked = ["audit", "power", str(unmarked), "--kind", "blocks", "--prevalence", "0.2", "--classes", "1"]
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


@pytest.mark.slow
def test_no_epochs_are_a_usage_error(finished, capsys):
    assert run(["audit", "power", str(finished), "--train", "0"]) == 2
    assert "--train is out of range; got 0" in capsys.readouterr().err
