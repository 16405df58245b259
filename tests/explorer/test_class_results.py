"""Lines of classes: of quantified runs, of ranked ones, and of those that are not ranked yet."""

import pyarrow as pa
from tests.explorer.made_run import CARRIERS, EACH, write_run
from tests.explorer.requests import ask

from klarsicht.audit.results.ranking import read_ranking
from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS
from klarsicht.audit.results.words import VerdictKind
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
    assert found["observed"]["prevalence"] is None  # a cluster was seen, of which nothing is an artifact
    assert found["plain"]["verdict"] == "No artifact was found in 24 images of plain."
    assert found["plain"]["decided"] is None and found["observed"]["z"] > found["plain"]["z"]


def test_a_class_has_the_sentences_and_the_next_command_of_the_terminal(tmp_path):
    store = write_run(tmp_path, images=False)
    line = ExploredRun.of(store).results.line(0)
    assert line.words == (
        "6 of 24 images of tagged share the same patch, in the centre. The model uses it: pasted on images of other "
        "classes, it adds 2.0 logits and turns 50 of 100 into tagged (0 without). It is a mark: the same pixels."
    )
    ((advice, command),) = line.next_steps
    assert advice == "look at the images, then correct the model"
    assert command == f"klarsicht audit clean {store.path} --class tagged"


def test_classes_of_a_run_that_is_not_quantified_have_the_words_of_the_ranking(tmp_path):
    app = make_app(ExploredRun.of(write_run(tmp_path, images=False, quantified=False)))
    found = {line["name"]: (line["kind"], line["verdict"]) for line in ask(app, "/api/classes").json["classes"]}
    assert found["observed"] == ("raises", "group with a higher class score (not tested yet)")
    assert found["plain"] == ("no-rise", "no group with a clearly higher class score")


def test_headings_and_labels_are_those_of_the_table_of_verdicts(app):
    told = ask(app, "/api/classes").json
    assert told["headings"] == {name: column.heading for name, column in VERDICT_COLUMNS.items()}
    labels = [line["label"] for line in told["classes"]]
    assert labels == [VerdictKind(one).label for one in ("poisoned", "nothing", "nothing")]


def test_a_class_without_a_cluster_has_the_words_of_its_verdict_or_why_it_has_none(tmp_path):
    """The ranking leaves out both: one was examined all the same, of the other no image could be read."""
    store = write_run(tmp_path, images=False)
    ranking, verdicts = store.read_json("ranking.json"), store.read_json("quantification.json")
    store.write_json("ranking.json", [one for one in ranking if one["class"] == "observed"])
    verdicts["classes"] = [one for one in verdicts["classes"] if one["class"] != "plain"]
    store.write_json("quantification.json", verdicts | {"skipped": [["plain", "no image"], ["observed", "no image"]]})
    tagged, observed, plain = ask(make_app(ExploredRun.of(store)), "/api/classes").json["classes"]
    assert (tagged["name"], tagged["kind"], tagged["z"], tagged["size"]) == ("tagged", "poisoned", None, CARRIERS)
    assert (observed["name"], observed["kind"]) == ("observed", "nothing")
    assert (plain["kind"], plain["label"], plain["verdict"]) == ("skipped", "not examined", "not examined: no image")
    assert (plain["n"], plain["p"], plain["prevalence"], plain["first"]) == (0, None, None, [])


def test_the_cluster_that_the_model_follows_is_shown_with_its_effect(tmp_path):
    """As `read_ranking` gives it."""
    store = write_run(tmp_path, images=False, quantified=False)
    rows = [EACH + 1, EACH + 2, EACH + 3]
    own = store.table("suspects-concept").to_pylist()[1] | {"rows": rows, "z": 7.0, "metric": "euclidean"}
    effect = {"effect": 1.5, "low": 1.0, "high": 2.0, "effect_z": 3.0, "follows": 0.5, "stability": 0.5}
    store.write_table("followed", pa.Table.from_pylist([own | effect | {"runner_up": 0.1, "rank": 0}]))
    entry, line = read_ranking(store).of("observed"), ExploredRun.of(store).results.line(1)
    told = line.to_json()
    assert line.cluster == line.found == entry.rows == tuple(rows)
    assert [told[name] for name in ("shift", "low", "high", "size")] == [1.5, 1.0, 2.0, 3]
    assert (told["z"], line.metric) == (entry.z, "euclidean")


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
