"""Sentences on surroundings, by hand; they never deny their figures."""

import csv
import io
import json
from dataclasses import replace

import pytest

from klarsicht.audit.results.surroundings import (
    EXCEPTIONS_FILE,
    ClassSurroundings,
    ExceptionalImage,
    Surroundings,
)
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval

TAKEN, CONTROL = Interval(0.76, 0.67, 0.83, 100), Interval(0.02, 0.006, 0.07, 100)
LIGHT = ClassSurroundings("light", 0, 400, 8, "dark", TAKEN, CONTROL, Interval(0.24, 0.17, 0.33, 100))
ODD = ExceptionalImage("light/7.png", "light", "dark", -1.25)


def test_a_class_that_is_followed_is_said_in_one_sentence_with_its_figures():
    assert LIGHT.describe() == (
        "light: 392 of 400 images share their surroundings; 8 exceptions. With surroundings of another class, "
        "76 % (67 to 83) of images are predicted as that class, and 2 % (1 to 7) with other surroundings of their own "
        "class: the model relies on them."
    )


@pytest.mark.parametrize(("exceptions", "shares"), [(133, True), (134, False), (210, False)])
def test_a_class_of_which_many_are_exceptions_is_not_said_to_share_anything(exceptions, shares):
    said = replace(LIGHT, exceptions=exceptions).describe()
    assert (f"{400 - exceptions} of 400 images share their surroundings; {exceptions} exc" in said) is shares
    assert said.startswith("light: ") and f"{exceptions} " in said and said.endswith("the model relies on them.")


@pytest.mark.parametrize(
    ("taken", "control", "relies"),
    [
        (TAKEN, CONTROL, True),
        (CONTROL, CONTROL, False),
        (CONTROL, TAKEN, False),
        (Interval(0.09, 0.08, 0.1, 9999), Interval(0.0, 0.0, 0.001, 9999), False),  # sure, and too little
    ],
)
def test_use_needs_intervals_apart_and_a_rise_that_matters(taken, control, relies):
    one = ClassSurroundings("light", 0, 400, 8, "dark", taken, control, NO_INTERVAL)
    assert one.relies is relies
    assert ("relies on" in one.describe()) is relies


def test_without_exceptions_nothing_is_told():
    one = ClassSurroundings("light", 0, 400, 0, "", NO_INTERVAL, NO_INTERVAL, NO_INTERVAL)
    assert one.describe() == "light: all 400 images share their surroundings; without exceptions nothing can be told."
    assert not one.relies


@pytest.mark.parametrize(("exceptions", "denies"), [(0, False), (1, False), (2, True)])
def test_where_hardly_an_exception_exists_a_shortcut_is_not_denied(exceptions, denies):
    one = ClassSurroundings("light", 0, 400, exceptions, "dark", NO_INTERVAL, NO_INTERVAL, NO_INTERVAL)
    (line,) = Surroundings((one,), (ODD,) * exceptions, 0.0, 1.0).describe()
    assert ("no shortcut was shown" in line) is denies
    assert ("nothing can be told" in line and f"{exceptions} exception" in line) is not denies


@pytest.mark.parametrize(("p", "found"), [(0.025, True), (0.5, False)])
def test_no_class_is_said_to_be_relied_on_where_no_shortcut_was_shown(p, found):
    one = Surroundings((LIGHT,), (ODD,), 0.7, p)
    assert one.found is found
    assert [c.name for c in one.relied_on] == (["light"] if found else [])
    assert any("relies" in line for line in one.describe()) is found


@pytest.mark.parametrize(
    ("names", "use"),
    [
        (("light",), "98 % of light share their surroundings, and the model relies on them"),
        (("a", "b"), "98 % of a and 98 % of b share their surroundings, and the model relies on them"),
        (
            ("a", "b", "c", "d", "e"),
            "98 % of a, 98 % of b, 98 % of c and most images of 2 more share their surroundings, and the model relies "
            "on them",
        ),
        ((), ""),
    ],
)
def test_classes_whose_surroundings_the_model_follows_are_named_in_a_clause(names, use):
    silent = replace(LIGHT, name="silent", taken=CONTROL)
    assert Surroundings((*(replace(LIGHT, name=name) for name in names), silent), (), 0.7, 0.025).describe_use() == use


def test_one_exception_of_many_is_not_rounded_away():
    assert replace(LIGHT, exceptions=1).majority == 399 / 400
    many = replace(LIGHT, n=4000, exceptions=1)
    assert "99.9 % of light" in Surroundings((many,), (), 0.7, 0.025).describe_use()
    assert "99.8 % of light" in Surroundings((replace(LIGHT, exceptions=1),), (), 0.7, 0.025).describe_use()


def test_exceptions_are_a_table_that_others_read():
    lines = list(csv.DictReader(io.StringIO(Surroundings((LIGHT,), (ODD,), 0.7, 0.025).to_csv())))
    assert lines == [{"path": "light/7.png", "label": "light", "side": "dark", "margin": "-1.250"}]
    assert EXCEPTIONS_FILE.endswith(".csv")


def test_what_is_written_is_read_again():
    found = Surroundings((LIGHT,), (ODD,), 0.7, 0.025)

    assert Surroundings.from_json(json.loads(json.dumps(found.to_json()))) == found
