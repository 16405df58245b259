"""Detection limits: what is planted is what is looked for, and limits follow from trials by their definition."""

import math
import shutil

import numpy as np
import pytest
from tests.audit.conftest import in_brief
from tests.audit.results.test_significance import MEASURED
from tests.audit.verdicts.quantification.test_quantification import NOISY, POOL, UNUSED, USED
from tests.explorer.made_run import write_run

from klarsicht.audit.explanation.report.page import PAGE, write_report
from klarsicht.audit.explanation.status import read_progress
from klarsicht.audit.results import significance
from klarsicht.audit.verdicts.detectors.detection import Detection
from klarsicht.audit.verdicts.quantification import opened_runs
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.sensitivity import power
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

ALIKE = MEASURED | {"correlation": float("nan")}  # nothing is compared with reference classes


def trial(kind, prevalence, found):
    return {
        "kind": kind,
        "prevalence": prevalence,
        "found": found,
        "detectors": ["texture"] if prevalence > 0.1 else [],
    }


def test_the_limit_is_the_smallest_prevalence_down_to_which_half_are_found():
    hits = {0.2: (1, 1), 0.1: (1, 0), 0.05: (0, 0), 0.02: (1, 1)}
    trials = tuple(trial("tag", p, bool(hit)) for p, both in hits.items() for hit in both)
    found = power.Power(trials, ("tag", "text"), tuple(hits), 0.05)
    assert found.limit("tag") == 0.1 and found.format_limit("tag") == "10%"  # 2 % alone is no limit
    assert found.limit("text") is None and found.format_limit("text") == "not found"
    assert found.detectors("tag") == {"texture": 0.2} and found.detectors("text") == {}
    assert found.format_counts("tag", 0.1) == "1/2" and math.isnan(found.share("text", 0.1))


@pytest.mark.parametrize(
    ("share", "said"), [(0.2, "20%"), (0.125, "12.5%"), (0.015, "1.5%"), (0.02, "2%"), (4e-4, "0.04%")]
)
def test_shares_are_as_exact_as_they_were_asked_for(share, said):
    found = power.Power((trial("tag", share, True),), ("tag",), (share,), 0.05)
    assert found.format_limit("tag") == said


@pytest.mark.parametrize("channels", [1, 3])
def test_plants_are_those_of_planting_and_only_in_carriers(channels):
    levels = np.random.default_rng(0).integers(0, 255, (6, 28, 28, channels)).astype(np.uint8)
    planted = power.plant_in_carriers(levels, artifacts.PLANTS["tag"], np.array([1, 4]), np.random.default_rng(0))
    changed = (planted != levels).any((1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(changed), [1, 4])
    image = levels[1, ..., 0] if channels == 1 else levels[1]
    expected = artifacts.tag(image, np.random.default_rng(0)).pixels
    np.testing.assert_array_equal(planted[1].squeeze(), expected)


def test_an_artifact_of_a_family_is_drawn_once_for_a_class():
    levels = np.full((5, 32, 32, 3), 128, np.uint8)
    stripe = artifacts.draw_plant("stripe", 3)
    planted = power.plant_in_carriers(levels, stripe, np.array([0, 2, 4]), np.random.default_rng(0))
    assert (planted[[0, 2, 4]] == planted[0]).all() and (planted[0] != levels[0]).any()
    assert (planted[[1, 3]] == levels[[1, 3]]).all()
    power.check_plants(("stripe", "tag"), (0.1,), 1)
    with pytest.raises(UsageError, match="stripe"):
        power.check_plants(("strip",), (0.1,), 1)


@pytest.mark.slow
def test_power_of_a_run(quantified, tmp_path):
    """Of one that is quantified; test_finetuned begins with one that is not."""
    run, classifier, _ = quantified
    shutil.copytree(run, tmp_path / "run")
    asked = {"kinds": ["tag", "border", "cast"], "prevalences": [0.25, 0.01], "classes": 2, "classifier": classifier}
    with in_brief(POOL):
        found = power.power(tmp_path / "run", **asked)
    assert found.limit("tag") == found.limit("border") == found.limit("cast") == 0.25
    assert found.detectors("border")["frame"] == 0.25 and "texture" in found.detectors("tag")
    assert "channel-correlation" in found.detectors("cast")  # channels of these pictures go together otherwise
    assert not found.select("tag", 0.01)  # not one image of forty
    assert not {t["target"] for t in found.trials} & {USED, UNUSED, NOISY}
    assert all(t["planted"] == 10 and t["f1"] > 0.8 for t in found.select("tag", 0.25))
    page = (tmp_path / "run" / PAGE).read_text()
    assert "What this audit could have found" in page and "2/2" in page
    assert power.power(tmp_path / "run", **asked) == found  # resumes
    store = RunStore.open(tmp_path / "run")
    before = store.table("power").drop_columns(["learned", "notes"])  # as runs were before copies learned
    store.write_table("power", before)
    assert "would use them is unknown" in write_report(store).read_text()


def test_a_power_that_was_stopped_is_open_until_another_one_ends(tmp_path):
    store = write_run(tmp_path, images=False)
    write_report(store)
    of_other_calls = {"power-stopped": 20, "poisoning-stopped": 2}
    store.update_manifest(steps=store.manifest["steps"] | of_other_calls)
    assert {step.name for step in read_progress(store.path) if not step.complete} == set(of_other_calls)
    power.write_results(store, power.Power((trial("tag", 0.2, True),), ("tag",), (0.2,), 0.05))
    assert all(step.complete for step in read_progress(store.path))


@pytest.mark.slow
def test_windows_of_few_classes_count_where_no_class_shares_any_by_nature(quantified, monkeypatch):
    """As `audit quantify` does of two to four classes; every class of this run counts as one of few."""
    run, classifier, _ = quantified
    monkeypatch.setattr(significance, "MIN_CLASSES", 99)
    seen = []
    detect = power.run_detectors
    monkeypatch.setattr(
        power, "run_detectors", lambda scene: seen.append(seen[0] if seen else detect(scene)) or seen[0]
    )
    with opened_runs.open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (_, work):
        signs, clean = DetectedClasses.of(work, 0.05).signs, 5
        scores = np.array([[line["score"] for line in lines] for lines in signs.values()])
        for one_is_natural in (False, True):
            described = tuple(ALIKE | {"natural": one_is_natural and target == clean + 1} for target in signs)
            units = power.PlantingUnits(work, (("tag", 0.25, clean),), scores, tuple(signs), described, 0.05, "few")
            line = units.run_trial(0)
            called = (line["found"], line["p"] <= 0.05, line["detectors"] != [])
            assert called == (not one_is_natural,) * 3


def test_detectors_that_call_it_for_other_images_do_not_count():
    signs = [
        Detection("texture 32", 9.0, np.arange(4)),
        Detection("fine 32", 9.0, np.arange(4, 9)),
        Detection("noise", 9.0, np.arange(2)),
    ]
    assert power.calling_detectors(signs, np.array([True, True, False]), np.array([0, 1, 4])) == ["texture"]


@pytest.mark.parametrize("wrong", [{"kinds": ["tags"]}, {"prevalences": [0.0]}, {"prevalences": [1.5]}, {"classes": 0}])
def test_what_cannot_be_planted_is_refused(wrong, tmp_path):
    with pytest.raises(UsageError):
        power.power(tmp_path, **wrong)
