"""A sample of a quantification computes what `audit quantify` does, and knows more of a pair than of an image."""

from dataclasses import replace

import numpy as np
import pytest
from tests.audit.conftest import in_brief, network, write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.verdicts.forecast import pair_cost
from klarsicht.audit.verdicts.forecast.cost import Cost, StepCost
from klarsicht.audit.verdicts.forecast.explained_sample import ExplainedSample
from klarsicht.audit.verdicts.forecast.forecast import PlannedAudit, forecast
from klarsicht.audit.verdicts.forecast.quantification_cost import PlannedQuantification
from klarsicht.audit.verdicts.forecast.quantified_sample import QuantifiedSample
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor

MODEL = "tests.audit.conftest:network"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """An audit of 75 images, 24 of them explained as a sample: the folder of the corpus, audit, plan and its pool."""
    folder = tmp_path_factory.mktemp("planned")
    write_corpus(folder / "data", per_class=25)
    settings = AuditSettings(model=MODEL, data=str(folder / "data"), map_side=8, unit=8, batch=8)
    audit = Audit.of(settings, load_model(network()))
    whole = PlannedAudit(audit, folder / "samples", 60, 1)
    rows = np.flatnonzero(np.array(audit.corpus.labels) == "b")[:24].tolist()
    sample = ExplainedSample.begin(audit, rows, 8, folder / "sample")
    for unit in partition(len(rows), 8):
        sample.explain(unit)
    sample = replace(sample, done_units=len(rows)).first_rows()
    units = DetectionUnits(
        sample.store, audit.corpus, settings, whole.groups(), audit.classifier.identity, audit.classifier
    )
    return folder, audit, PlannedQuantification(units, sample, 60, 1)


@pytest.fixture(scope="module")
def audited(planned):
    """The run of that audit, not quantified."""
    folder, audit, _ = planned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "report", lambda *given: None)
        return pipeline.run(audit.settings, folder / "run")


def begin(plan):
    _, readable = plan.read(plan.units.pool_rows)
    groups = plan.choose_classes(1e-3)
    return QuantifiedSample.begin(plan.sample, plan.units, readable, groups, None), groups


@pytest.mark.slow
def test_detections_are_those_of_the_quantification(planned, audited):
    """Oracle: the same class of the run; maps are left out, which images that are not explained borrow."""
    _, audit, plan = planned
    known, groups = begin(plan)
    assert groups[0].name == "a" and len(groups[0]) == 25
    known.examine(0)
    with quantification.open_run(audited.path, level=0.05, workers=1, data=None, classifier=None) as (_, units):
        _, signs = units.examine(0)
    found = known.units.sign_rows[groups[0].target]
    keys = np.array(known.units.corpus.keys)
    for sign, other in zip(found, signs, strict=True):
        if not sign["sign"].startswith("evidence"):
            assert (sign["sign"], sign["score"]) == (other["sign"], other["score"])
            assert keys[sign["rows"]].tolist() == [audit.corpus.keys[row] for row in other["rows"]]


def test_logits_of_images_that_are_not_explained_are_computed(planned, audited):
    """Oracle: the logits of the run."""
    _, audit, plan = planned
    known, _ = begin(plan)
    rows = np.array([0, 30, 3, 60])
    place = [audit.corpus.keys.index(known.units.corpus.keys[row]) for row in rows]
    with predictor(known.units) as predict:
        found = known.units.logits(rows, predict)
    np.testing.assert_allclose(found, audited.array("logits")[place], atol=1e-4)
    assert known.units.excluded_time.wall > 0


@pytest.mark.slow
def test_every_step_of_the_quantification_is_foretold(planned):
    _, _, plan = planned
    report = StepCost.of("report", "", "", Cost(1, 2, 3, 4, 5))
    with in_brief(40):
        steps = list(replace(plan, seconds=1).forecast(report, report))
    assert [step.step for step in steps] == [
        "opening and hash", "reading images", "signs of artifacts", "artifacts on other images",
        "clusters on other images", "pictures and report",
    ]  # fmt: skip
    assert all(step.cpu_seconds > 0 for step in steps)


@pytest.mark.nightly
def test_its_sum_is_that_of_its_steps_and_a_screening_has_none(tmp_path):
    write_corpus(tmp_path / "data", per_class=25)
    settings = AuditSettings(model=MODEL, data=str(tmp_path / "data"), map_side=8)
    told = forecast(settings, seconds=5).to_json()["quantification"]
    assert told["cpu_seconds"] == pytest.approx(sum(step["cpu_seconds"] for step in told["steps"]))
    assert "quantification" not in forecast(settings.with_values(target="b"), seconds=1).to_json()


def test_seconds_of_a_pair_are_those_of_blocks_over_their_pairs(planned, monkeypatch):
    """Oracle: the closed form that blocks are made to take."""
    _, _, plan = planned
    (group,) = plan.sample.classes()
    analysis = plan.sample.analysis("features", [group])
    assert 0 < pair_cost.measure_pair_cost(analysis, group, 100_000).cpu < 1e-5
    monkeypatch.setattr(pair_cost, "_time_blocks", lambda _, rows: Cost(7e-9 * 16 * 256 * len(rows)))
    assert pair_cost.measure_pair_cost(analysis, group, 100_000).cpu == pytest.approx(7e-9)
    assert pair_cost.measure_pair_cost(analysis, group, len(group) + 1) == Cost()
