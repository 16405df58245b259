"""Decisions from Python are those that the explorer records: the log of the run is the oracle."""

import shutil

import pytest

from klarsicht.audit.results.decide import decide
from klarsicht.audit.results.ranking import read_ranking
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.decisions import DecisionLog


def test_a_decision_is_in_the_log_and_the_ranking_follows_it(quantified, tmp_path):
    shutil.copytree(quantified[0], tmp_path / "run")
    first = read_ranking(tmp_path / "run")[0]
    found = decide(tmp_path / "run", first.name, "artifact", artifact="tag", note="lower left", author="ada")
    assert found.members == tuple(sorted(first.judged.rows)) and (found.artifact, found.author) == ("tag", "ada")
    assert DecisionLog(tmp_path / "run").decisions() == {first.target: found}
    decide(tmp_path / "run", str(first.target), "legitimate")
    (record, after) = DecisionLog(tmp_path / "run").records()
    assert record["base"] == list(first.judged.rows) and "base" not in after
    assert read_ranking(tmp_path / "run").entries[-1].name == first.name  # legitimate ones come last
    with pytest.raises(UsageError, match=r"unknown decision.*Known: artifact, legitimate, unsure"):
        decide(tmp_path / "run", first.name, "maybe")
