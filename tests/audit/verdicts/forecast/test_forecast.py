"""Forecasts agree with what the audit then writes, and their sample with what the audit would compute."""

import json

import numpy as np
import pytest
from tests.audit.conftest import network, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import relevance_step
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.verdicts.forecast.cost import disk_bytes
from klarsicht.audit.verdicts.forecast.explained_sample import ExplainedSample
from klarsicht.audit.verdicts.forecast.forecast import PlannedAudit, forecast
from klarsicht.cli.app import run
from klarsicht.ground.errors import UsageError

MODEL = "tests.audit.conftest:network"


@pytest.fixture
def corpus(tmp_path):
    write_corpus(tmp_path / "data", per_class=30)
    return tmp_path / "data"


def settings(corpus, **more):
    return AuditSettings(model=MODEL, data=str(corpus), map_side=8, unit=32, batch=8, **more)


@pytest.mark.nightly
def test_disk_is_that_of_the_audit(corpus, tmp_path, monkeypatch):
    """Oracle: `audit run` itself; without pictures, which take seconds."""
    monkeypatch.setattr(pipeline, "illustrate", lambda *given: None)
    found = forecast(settings(corpus), seconds=1)
    store = pipeline.run(settings(corpus), tmp_path / "run")
    assert found.total.disk_bytes == pytest.approx(disk_bytes(store.path), rel=0.15)
    assert (found.images, found.classes, found.workers) == (90, 3, 1)
    names = ["opening", "hash", "relevance", "clusters (concept)", "clusters (features)", "ranking and report"]
    assert [step.step for step in found.steps] == names
    assert found.total.cpu_seconds == pytest.approx(sum(step.cpu_seconds for step in found.steps))
    assert all(step.cpu_seconds > 0 for step in found.steps)


@pytest.mark.slow
def test_sample_holds_what_the_audit_computes(corpus, tmp_path):
    """Oracle: the arrays of `audit run` of the same images."""
    audit = Audit.of(settings(corpus, target="label"), load_model(network()))
    planned = PlannedAudit(audit, tmp_path / "samples", 60, 1)
    _, sample = planned.explain()
    assert sample.done_units == 90
    rows = [sample.audit.corpus.keys.index(key) for key in audit.corpus.keys]
    store = pipeline.open_run(audit, tmp_path / "run")
    relevance_step.attribute(audit, store, 1)
    for name in ("maps", "head", "logits"):
        np.testing.assert_allclose(
            np.asarray(sample.store.array(name)[np.arange(90)], float)[rows],
            np.asarray(store.array(name)[np.arange(90)], float), rtol=1e-3, atol=1e-5,
        )  # fmt: skip
    assert [len(group) for group in sample.classes()] == [30, 30, 30]
    assert [group.target for group in sample.classes()] == [0, 1, 2]


def test_labels_keep_their_outputs_in_a_sample_of_some_classes(corpus, tmp_path):
    """Labels are matched to outputs by their order in the whole corpus: class c alone is output 2."""
    audit = Audit.of(settings(corpus), load_model(network()))
    rows = [row for row, label in enumerate(audit.corpus.labels) if label == "c"]
    sample = ExplainedSample.begin(audit, rows, 32, tmp_path / "sample")
    assert set(sample.audit.targets.tolist()) == {2}


@pytest.mark.nightly
@pytest.mark.parametrize("target", ["all", "b"])
def test_screenings_are_foretold(corpus, tmp_path, target):
    """Oracle: `audit run` itself."""
    found = forecast(settings(corpus, target=target), seconds=1, workers=2)
    store = pipeline.run(settings(corpus, target=target), tmp_path / "run")
    assert found.total.disk_bytes == pytest.approx(disk_bytes(store.path), rel=0.25)
    assert found.workers == 2


@pytest.mark.nightly
def test_classes_by_prediction_count_as_labelled(corpus):
    found = forecast(settings(corpus, target="predicted"), seconds=60)
    assert found.steps[3].sample == "3 groups of 30 to 30 images"


@pytest.mark.nightly
def test_a_corpus_of_classes_too_small_to_be_compared_is_foretold(tmp_path):
    write_corpus(tmp_path / "data", per_class=5)
    found = forecast(settings(tmp_path / "data"), seconds=1)
    assert [step.sample for step in found.steps][-1] == "no class of the sample"


def test_seconds_are_checked(corpus):
    with pytest.raises(UsageError, match="seconds"):
        forecast(settings(corpus), seconds=0)


@pytest.mark.nightly
def test_the_command_prints_it(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("klarsicht.audit.explanation.doctor.BUDGET", 0.0)
    given = ["audit", "doctor", "--model", MODEL, "--data", str(corpus), "--cost", "--seconds", "1"]
    (tmp_path / "small.toml").write_text("map_side = 8\n")
    given += ["--settings", str(tmp_path / "small.toml")]
    assert run(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("relevance ", "hash ", "all "))] == [
        "hash", "relevance", "all", "all",  # the last of `audit quantify`
    ]  # fmt: skip
    assert run([*given, "--json", "--workers", "3"]) == 0
    told = json.loads(capsys.readouterr().out)["cost"]
    assert told["images"] == 90 and told["workers"] == 3
    assert told["disk_bytes"] == sum(step["disk_bytes"] for step in told["steps"])
