"""`klarsicht audit stability` as a user types it."""

import json

import pytest
from tests.cli.test_cleaning import finished, once

from klarsicht.cli.app import run

__all__ = ["finished", "once"]


def test_a_noise_without_numbers_and_a_run_that_is_none_are_one_line(tmp_path, capsys):
    assert run(["audit", "stability", str(tmp_path)]) == 3
    assert run(["audit", "stability", str(tmp_path), "--images", "1"]) == 2
    assert "--images" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_of_stability_and_json(finished, capsys):
    words = ["audit", "stability", finished, "--images", "3"]
    capsys.readouterr()
    assert run([*words, "--noise", "0.02"]) == 2
    assert run([*words, "--noise", "0.02,0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "class" and {line.split()[0] for line in lines[1:4]} == {"a", "b", "c"}
    assert "27 explained passes" in lines[-1]
    assert run([*words, "--noise", "0.02,0.01", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["passes"] == 27 and [one["with_noise"]["n"] for one in facts["classes"]] == [3, 3, 3]
