"""Words for steps. The oracle: the labels that steps give their lines of progress, read from the source."""

import re
from pathlib import Path

import pytest

import klarsicht
from klarsicht.ground.step_words import describe_step

AUDIT = Path(klarsicht.__file__).parent / "audit"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("attribution", "explanation/steps/relevance_step.py"),
        ("signs", "verdicts/quantification/quantification.py"),
        ("effects", "verdicts/quantification/quantification.py"),
        ("transplants", "verdicts/quantification/quantification.py"),
        ("power-0a8c66ad", "verdicts/sensitivity/power.py"),
    ],
)
def test_a_step_has_the_words_of_its_progress(name, file):
    calls = re.findall(r'run_step\(.*, "([^"]+)"', (AUDIT / file).read_text("utf-8"))
    assert describe_step(name) in calls


@pytest.mark.parametrize("name", ["kept-64", "exchanged-16"])
def test_steps_of_shortcuts_have_the_words_of_their_progress(name):
    source = (AUDIT / "verdicts/quantification/sufficiency.py").read_text("utf-8")
    assert f'"{describe_step(name)}"' in source


def test_a_step_by_a_metric_names_it_and_an_unknown_one_stands_for_itself():
    assert describe_step("spray-wasserstein-t") == "clusters (wasserstein-t)"
    assert describe_step("of a later version") == "of a later version"
