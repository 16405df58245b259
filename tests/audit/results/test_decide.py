"""Decisions from Python are those that the explorer records: the log of the run is the oracle."""

import shutil

import pytest

from klarsicht.audit.results import ranking
from klarsicht.audit.results.decide import decide
from klarsicht.audit.results.ranking import read_ranking
from klarsicht.audit.results.verdicts import read_verdicts
from klarsicht.cli.app import run
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


def test_a_class_with_a_verdict_and_no_cluster_is_named_and_can_be_decided(quantified, tmp_path, monkeypatch, capsys):
    shutil.copytree(quantified[0], tmp_path / "run")
    found = next(verdict for verdict in read_verdicts(tmp_path / "run") if verdict.has_group)
    read = ranking.read_entries
    monkeypatch.setattr(
        ranking, "read_entries", lambda *args, **more: [one for one in read(*args, **more) if one.name != found.name]
    )
    ranked = read_ranking(tmp_path / "run")
    told = f"without a cluster, so not in this table: {found.name} ({found.kind_of_class.label})"
    assert ranked.describe_other_verdicts() == told and told in ranked._repr_html_()
    assert repr(ranked).endswith("findings without a cluster: 1)")
    assert found.name not in [entry.name for entry in ranked]
    with pytest.raises(UsageError, match=r"no cluster was found in this class.*read_verdicts"):
        ranked.of(found.name)
    assert run(["audit", "rank", str(tmp_path / "run")]) == 0 and f"note: {told}\n" in capsys.readouterr().err
    decision = decide(tmp_path / "run", found.name, "artifact")
    assert decision.members == tuple(sorted(found.rows))
    assert list(DecisionLog(tmp_path / "run").decisions()) == [found.target]
    with pytest.raises(UsageError, match="unknown class"):
        decide(tmp_path / "run", "no such class", "artifact")
