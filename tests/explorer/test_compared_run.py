"""Two runs compared on a page: alarms by sets of images that are counted, rows by the keys that were written."""

import re

import pytest
from tests.explorer.made_run import CARRIERS, EACH, verdict_of, write_run
from tests.explorer.requests import ask

from klarsicht.audit.explanation.report.page import write_report
from klarsicht.explorer.app import make_app
from klarsicht.explorer.compared_run import MOST_SHOWN, NOT_NAMED
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.run_folder.decisions import LEGITIMATE, Change, DecisionLog

NAMES = ("tagged", "observed", "plain")


def run_with(folder, found):
    """A run whose classes carry an artifact on the first so many of their images, by name of class."""
    store = write_run(folder, NAMES)
    keys = store.texts("corpus", "key")
    verdicts = []
    for k, name in enumerate(NAMES):
        rows = list(range(k * EACH, k * EACH + found.get(name, 0)))
        verdicts.append(verdict_of(k, name, rows, [keys[row] for row in rows], EACH, bool(rows)))
    store.write_json("quantification.json", {"floor": 0.05, "level": 0.05, "skipped": [], "classes": verdicts})
    return store


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    before = run_with(folder / "before", {"tagged": CARRIERS, "observed": 20})
    return before, run_with(folder / "after", {"tagged": CARRIERS - 1, "plain": 20})


def comparison(run, earlier=None):
    return ask(make_app(ExploredRun.of(run, earlier=earlier)), "/api/comparison").json


def test_new_gone_and_same_alarms_are_listed_with_images_of_this_run(runs):
    before, after = runs
    told = comparison(after, before)
    assert {state: [one["subject"] for one in told[state]] for state in ("new", "gone", "same")} == {
        "new": ["plain"], "gone": ["observed"], "same": ["tagged"]
    }  # fmt: skip
    assert told["same"][0]["rows"] == list(range(CARRIERS - 1)) and told["same"][0]["target"] == 0
    assert told["gone"][0]["rows"] == list(range(EACH, EACH + MOST_SHOWN)) and told["gone"][0]["images"] == 20
    assert "The model uses it" in told["new"][0]["message"]
    assert told["sentence"] == "1 new, 1 gone, 1 the same; asked: relies, artifact." and told["before"] == str(
        before.path
    )


def test_images_that_this_run_has_not_and_classes_of_the_other_are_only_counted(runs, tmp_path):
    other = write_run(tmp_path, ("else", "where"))
    told = comparison(runs[0], other)
    (gone,) = told["gone"]
    assert (gone["subject"], gone["target"], gone["rows"], gone["images"]) == ("else", None, [], CARRIERS)


def test_a_page_without_an_earlier_run_or_without_results_says_so(runs, tmp_path):
    before, after = runs
    assert comparison(after) == {"sentence": NOT_NAMED, "before": "", "new": [], "gone": [], "same": []}
    told = comparison(write_run(tmp_path, quantified=False), before)
    assert "no finding in common" in told["sentence"] and told["new"] == []


def test_the_report_compares_two_runs_and_names_no_folder(runs):
    before, after = runs
    page = write_report(after, before.path).read_text()
    section = page.split("Compared with an earlier run")[1].split("<h2>")[0]
    shown = re.findall(r"<h3>(.+?)</h3>\s*<ul><li><b>(.+?)</b>", section)
    assert shown == [("New", "plain"), ("Gone", "observed"), ("The same", "tagged")]
    assert "1 new, 1 gone, 1 the same" in section and str(before.path.parent) not in page
    assert "Compared with" not in write_report(after).read_text()


def test_an_alarm_that_a_person_accepted_says_who_did(tmp_path):
    store = write_run(tmp_path)
    DecisionLog(store.path).append(Change(0, "tagged", LEGITIMATE), "ada")
    assert [one["accepted_by"] for one in comparison(store, store)["same"]] == ["ada"]
