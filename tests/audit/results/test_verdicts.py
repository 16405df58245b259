"""Verdicts on a run: their classes by name, and the words of what was inserted."""

from dataclasses import replace

import numpy as np
import pytest
from tests.explorer.made_run import write_run

from klarsicht.audit.results import words
from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict
from klarsicht.audit.results.detection_rows import name_further_step
from klarsicht.audit.results.verdicts import Quantification, read_verdicts
from klarsicht.audit.verdicts.detectors.bank import ALL_DETECTORS
from klarsicht.audit.verdicts.interventions.shared_content import ESTIMATES
from klarsicht.ground.errors import InputError, StoreError
from klarsicht.ground.run_folder.store import RunStore

USE = UseResult("veil 0.002", "12 levels of light", 0.1, -0.1, 0.3, 0.4, 0.6, 3, 0.0, 0.0, 0.0, 1.0, "light")
FOUND = Verdict(
    "carton", 4, 90, 0, DetectionResult("veil 0.002", 9.0, 5.0, 0.01, 0.1, 0.03), (1, 2), ("a", "b"), USE,
    artifactual=True, poisoned=False,
)  # fmt: skip


def test_words_say_what_was_put_on_and_how_much():
    assert words.describe_insertion(USE.how, USE.covered) == "12 levels of light"
    told = words.describe_insertion("shared pixels", 0.987)
    assert told == "the shared change of each pixel (covers 99 % of the difference)"
    assert ESTIMATES.keys() <= words.PUT_ON.keys()
    assert words.describe_detector("a detector of another version .5") == "a detector of another version .5"
    assert words.SEEN.keys() <= ALL_DETECTORS.keys()


def test_a_class_is_found_by_its_name_before_the_output_of_another():
    """Classes that are called by numbers, from 1, of outputs that are counted from 0, whatever their order."""
    some = [
        replace(FOUND, name=str(k + 1), target=k, further=(replace(FOUND, name=str(k + 1), target=k),)) for k in (0, 1)
    ]
    for order in (some, some[::-1]):
        found = Quantification(tuple(order), 0.01, 0.05)
        assert [found.of(name).target for name in ("1", "2", "0")] == [0, 1, 0]
        assert found["1"] is found.of(1) is found.of("1")
        assert [found.of(f"{name} (artifact 2)").target for name in ("1", "2", "0")] == [0, 1, 0]
        assert [found.of_target(k).target for k in (0, 1)] == [0, 1] and found.of_target(7) is None


def test_a_class_may_be_called_as_a_further_artifact_is():
    alike = replace(FOUND, name="carton (artifact 2)", target=5)
    for some in ((FOUND, alike), (alike, FOUND)):
        several = [replace(one, further=(replace(one, n=7),)) for one in some]
        found = Quantification(tuple(several), 0.01, 0.05)
        assert found.of("carton (artifact 2)").target == 5
        second, other = found.of("4 (artifact 2)"), found.of("carton (artifact 2) (artifact 2)")
        assert (second.n, second.target) == (7, 4) and (other.n, other.target) == (7, 5)


def test_a_level_is_the_same_number_in_any_type():
    """JSON gives a float back whatever was given: the table of the step is found by it."""
    assert name_further_step([FOUND], np.float64(0.05)) == name_further_step([FOUND], 0.05)
    assert name_further_step([FOUND], 0.1) != name_further_step([FOUND], 0.05)


def test_verdicts_of_another_version_are_refused_with_the_command_that_makes_them_again(tmp_path):
    """And that command reads none of them."""
    store = write_run(tmp_path)
    content = store.read_json("quantification.json")
    assert len(read_verdicts(store)) == len(content["classes"])
    for line in content["classes"]:
        del line["remainder"], line["p_rank"]
    store.write_json("quantification.json", content)
    with pytest.raises(InputError, match="no p_rank") as refused:
        read_verdicts(store)
    assert "\n" not in str(refused.value) and f"Run klarsicht audit quantify {tmp_path / 'run'} again." in str(
        refused.value
    )


def test_a_run_without_verdicts_names_the_command_that_makes_them(tmp_path):
    store = RunStore.create(tmp_path / "a run", settings={}, identity={})
    with pytest.raises(StoreError, match=r"not been quantified.*klarsicht audit quantify '.*a run'"):
        read_verdicts(store)
