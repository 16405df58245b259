"""Decisions of a person in the explorer are those that cleaning and ranking take."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.cleaning.data.clean_data import clean_data
from klarsicht.audit.cleaning.models import audited_run
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_model import describe_missing_use
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.detection_rows import read_places
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind
from klarsicht.cli import tables
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.point_clouds import read_points
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, DecisionLog

ROWS = tuple(range(60, 72))  # marked images of class b


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decided")
    write_corpus(folder / "data")
    classifier = load_model(network(), classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(folder / "data"), neighbours=6, metric=("euclidean",))
    pipeline.run(settings, folder / "run", classifier=classifier)
    run = AuditedRun.of(folder / "run", classifier=classifier)
    detection, use = DetectionResult("texture 4 0.9", *[0.001] * 5), UseResult("", "", *[0.0] * 10)
    told = Verdict("b", 1, 60, 0, detection, ROWS, (), use, artifactual=True, poisoned=True)
    run.store.write_json(verdicts.VERDICTS_FILE, Quantification((told,), 0.1, 0.05).to_json())
    return run


@pytest.fixture
def explored(audited):
    yield ExploredRun.of(audited.store, "ada")
    (audited.store.path / DECISIONS_FILE).unlink(missing_ok=True)


@pytest.mark.slow
def test_the_explorer_shows_what_ranking_and_verdicts_say(audited):
    lines = {line.name: line for line in ExploredRun.of(audited.store).results.lines().values()}
    known = verdicts.read_verdicts(audited.store)
    (told,) = (line for line in known.lines if line.name == "b")
    headline = told.headline_at(read_places(audited.store, known).get((told.verdict.target, told.number), ""))
    assert (lines["b"].words, lines["b"].p) == (headline, told.verdict.detection.p)
    assert lines["b"].found == ROWS
    for entry in ranking.read_ranking(audited.store):
        line = lines[entry.name]
        told = line.to_json()
        assert (line.target, line.cluster) == (entry.target, entry.rows)
        assert (told["z"], told["tau"]) == (entry.z, entry.tau)
        assert entry.name == "b" or line.words == entry.verdict


def test_the_stored_embedding_is_that_of_the_analysis(audited, explored):
    analysis = pipeline.make_analyses(audited.audit, audited.store)["euclidean"]
    for target in range(3):
        group = analysis.group(target)
        embedded, cloud = analysis.embedding(group), read_points(explored, target)
        assert cloud.rows.tolist() == group.rows.tolist() == explored.reader.images().rows_of(target).tolist()
        np.testing.assert_allclose(cloud.vectors, embedded.vectors, atol=1e-6)
        np.testing.assert_allclose(cloud.eigenvalues, embedded.values)
        assert cloud.components.tolist() == embedded.components.tolist()
    assert explored.masks.seen_area == SeenArea()


def test_decided_members_are_those_that_are_cleaned(audited, explored):
    assert audited.find_members("b").origin == "detector: the same patch (4 px, match at least 0.9)"
    explored.decisions.decide(1, decision="artifact", artifact="corner", add=[80], remove=[60])
    found = audited.find_members("b")
    assert found.origin == "decision: corner" and found.members.tolist() == [*ROWS[1:], 80] and found.change == ""
    assert audited.find_members("b", "detector").members.tolist() == list(ROWS)  # what is asked for by name stays
    explored.decisions.decide(1, remove=[80])
    found = audited.find_members("b")
    assert found.members.tolist() == list(ROWS[1:]) and found.change == "tile"  # all of them the detector's


def test_legitimate_classes_are_not_cleaned_and_decided_ones_are(audited, explored):
    assert audited_run.find_classes_to_clean(audited) == ("b",)
    explored.decisions.decide(0, decision="artifact")
    assert audited_run.find_classes_to_clean(audited) == ("b", "a")
    explored.decisions.decide(1, decision="legitimate")
    assert audited_run.find_classes_to_clean(audited) == ("a",)
    with pytest.raises(UsageError, match="decided to be legitimate"):
        audited.find_members("b")
    explored.decisions.decide(0, decision="legitimate")
    with pytest.raises(UsageError, match="every class that relies on an artifact was decided to be legitimate"):
        audited_run.find_classes_to_clean(audited)


def test_content_is_cleaned_only_where_a_person_names_the_class(audited, explored, monkeypatch):
    """A model relies on the context of class b: only a person can say whether it belongs to the class."""
    (told,) = verdicts.read_verdicts(audited.store)
    content = replace(told, used=True, poisoned=False)
    assert content.kind is VerdictKind.CONTEXT
    monkeypatch.setattr(AuditedRun, "quantification", Quantification((content,), 0.1, 0.05))
    with pytest.raises(UsageError, match=r"no class is named, and no verdict decides.*to be looked at: b") as told_why:
        audited_run.find_classes_to_clean(audited)
    assert "--class b" in str(told_why.value) and "nothing to clean" not in str(told_why.value)
    assert audited.find_members("b").members.tolist() == list(ROWS)  # named, it is cleaned as it was found
    artifact = SimpleNamespace(target=1, number=1)
    assert describe_missing_use(audited, artifact) == ""  # that the model uses it is shown
    monkeypatch.setattr(AuditedRun, "quantification", Quantification((replace(content, used=False),), 0.1, 0.05))
    assert "could not be tested" in describe_missing_use(audited, artifact)
    explored.decisions.decide(1, decision="artifact")
    assert audited_run.find_classes_to_clean(audited) == ("b",)


@pytest.mark.slow
def test_an_image_that_was_taken_out_stays_in_the_cleaned_data(audited, explored, tmp_path):
    run = audited.store.path
    before = clean_data(run, tmp_path / "a", name="b", classifier=audited.audit.classifier, dry_run=True)
    dropped = {Path(line.path).name for line in before.lines if line.action == "drop"}
    assert dropped == {f"{i:03d}.png" for i in range(12)}
    explored.decisions.decide(1, decision="artifact", remove=[60])
    after = clean_data(run, tmp_path / "a", name="b", classifier=audited.audit.classifier, dry_run=True)
    assert {Path(line.path).name for line in after.lines if line.action == "drop"} == dropped - {"000.png"}


def test_the_ranking_tells_decisions_and_puts_legitimate_classes_last(audited, explored, capsys):
    first = ranking.read_ranking(audited.store)
    assert first[0].name == "b" and "decision" not in first.to_json()[0]
    explored.decisions.decide(1, decision="legitimate")
    explored.decisions.decide(2, decision="artifact", artifact="tag")
    found = ranking.read_ranking(audited.store)
    assert [entry.name for entry in found][-1] == "b" and found.order.endswith("classes decided legitimate last")
    assert found.of("c").to_json()["decision"] == "artifact" and found.of("c").to_json()["artifact"] == "tag"
    assert ranking.read_ranking(audited.store, observed=True).of("c").decided is None
    tables.ranking(found, 5)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("decision") and sum(line.endswith("artifact: tag") for line in printed) == 1
    DecisionLog(audited.store.path).undo(0, "ada")
    assert ranking.read_ranking(audited.store)[0].name == "b"
