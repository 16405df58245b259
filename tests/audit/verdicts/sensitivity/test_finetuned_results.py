"""Results of fine-tuned copies follow from their rows by definition."""

import math

import pytest

from klarsicht.audit.verdicts.sensitivity.finetuned_results import FinetunedResults


def plant(prevalence, learned, poisoned, course=0):
    line = {"course": course, "kind": "tag", "prevalence": prevalence, "learned": learned, "poisoned": poisoned}
    line |= {"used": learned}
    return line | {"artifactual": poisoned, "accuracy_before": 0.9, "accuracy": 0.8 - 0.1 * course}


def clean(poisoned):
    return plant(None, None, poisoned) | {"kind": "", "artifactual": True}


def of(*trials, prevalences=(0.2, 0.1, 0.05)):
    return FinetunedResults(trials, ("tag",), prevalences, 2, 1e-3)


def test_the_limit_is_of_what_was_learned():
    found = of(plant(0.2, True, True), plant(0.1, False, False), plant(0.05, True, True), plant(0.05, True, False))
    assert found.limit("tag") == 0.05 and found.format_limit("tag") == "5%"  # at 10 % there is nothing to find
    assert math.isnan(found.share("tag", 0.1)) and found.share("tag", 0.05) == 0.5
    assert found.format_counts("tag", 0.05) == "1/2 of 2" and found.format_counts("tag", 0.1) == "0/0 of 1"
    assert of(plant(0.2, True, False), plant(0.05, True, True)).format_limit("tag") == "not found"


def test_what_was_not_learned_has_no_limit_and_a_call_of_it_is_false():
    found = of(plant(0.2, False, True), plant(0.1, False, False))
    assert found.format_limit("tag") == "not learned" and found.limit("tag") is None
    assert found.unused == {"plants": 2, "poisoned": 1}
    assert found.counts("tag", 0.2)["poisoned"] == 0
    assert "1 of 2 plants that are not used" in " ".join(found.notes())


def test_what_was_used_before_the_training_is_neither_learned_nor_a_false_call():
    found = of(plant(0.2, False, True) | {"used": True}, plant(0.2, True, True), plant(0.1, False, False))
    assert found.used_before == found.to_json()["used_before"] == 1
    assert found.unused == {"plants": 1, "poisoned": 0} and found.format_counts("tag", 0.2) == "1/1 of 2"


def test_clean_classes_and_accuracy_are_counted_by_copy():
    found = of(plant(0.2, True, True), plant(0.1, True, True, course=1), clean(True), clean(False), clean(False))
    assert found.clean == {"classes": 3, "artifactual": 3, "poisoned": 1}
    assert found.accuracy == pytest.approx((0.9, 0.75))  # each copy once, however many lines it has
    assert found.to_json()["accuracy"] == found.accuracy[1]
