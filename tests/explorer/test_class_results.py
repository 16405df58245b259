"""Lines of classes: of quantified runs, of ranked ones, and of those that are not ranked yet."""

from tests.explorer.made_run import CARRIERS, EACH, write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun, open_explored_run


def test_classes_have_their_verdicts_figures_and_first_images(app):
    found = {line["name"]: line for line in ask(app, "/api/classes").json["classes"]}
    assert list(found) == ["tagged", "observed", "plain"]
    tagged = found["tagged"]
    assert (tagged["kind"], tagged["p"], tagged["size"], tagged["n"]) == ("poisoned", 0.001, CARRIERS, EACH)
    assert (tagged["shift"], tagged["low"], tagged["high"]) == (2.0, 1.5, 2.5)
    assert tagged["resembles"] == ["logo"] and found["plain"]["resembles"] == []
    assert tagged["prevalence"] == CARRIERS / EACH and tagged["first"] == list(range(CARRIERS))
    assert (found["observed"]["kind"], found["observed"]["shift"]) == ("nothing", None)
    assert found["observed"]["verdict"] == found["plain"]["verdict"] == "nothing found"
    assert found["plain"]["decided"] is None and found["observed"]["z"] > found["plain"]["z"]


def test_classes_of_a_run_that_is_not_quantified_have_the_words_of_the_ranking(tmp_path):
    app = make_app(ExploredRun.of(write_run(tmp_path, images=False, quantified=False)))
    found = {line["name"]: (line["kind"], line["verdict"]) for line in ask(app, "/api/classes").json["classes"]}
    assert found["observed"] == ("raises", "raises the target (observational)")
    assert found["plain"] == ("nothing", "no cluster clearly raises the target")


def test_a_run_that_is_not_ranked_yet_shows_what_is_analysed(tmp_path):
    store = write_run(tmp_path, quantified=False, images=False)
    (store.path / "ranking.json").unlink()
    (store.path / "checksums" / "ranking.json.json").unlink()
    run = open_explored_run(store.path, "ada")
    app = make_app(run)
    found = ask(app, "/api/classes").json
    assert [line["kind"] for line in found["classes"]] == ["observed"] * 3
    steps = {step["name"]: (step["done"], step["units"]) for step in ask(app, "/api/progress").json["steps"]}
    assert steps["ranking"] == (0, 1) and steps["spray-concept"] == (3, 3)
    before = run.results.revision
    store.write_json("ranking.json", [])
    assert run.results.revision != before and ask(app, "/api/classes").json["classes"] == []
