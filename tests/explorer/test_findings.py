"""Findings: classes of one artifact, and undecided ones that seem to share one."""

from tests.explorer.made_run import CARRIERS, EACH, write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun


def test_classes_of_one_artifact_are_one_finding(app):
    for target in (0, 1):
        ask(app, "/api/decisions", {"target": target, "decision": "artifact", "artifact": "tag"})
    ask(app, "/api/decisions", {"target": 2, "decision": "legitimate"})
    told = ask(app, "/api/findings").json
    (found,) = told["decided"]
    assert found["artifact"] == "tag" and found["images"] == 2 * CARRIERS
    assert [name for _, name, _ in found["classes"]] == ["tagged", "observed"]
    assert set(found["first"]) <= {*range(CARRIERS), *range(EACH, EACH + CARRIERS)}
    assert (told["proposed"], told["alone"], told["why"]) == ([], 0, "")


def test_undecided_classes_that_differ_alike_are_proposed_as_one_finding(tmp_path):
    """Carriers of two classes have more of the same feature; the third class has noise."""
    app = make_app(ExploredRun.of(write_run(tmp_path, images=False, quantified=False), "ada"))
    told = ask(app, "/api/findings").json
    (found,) = told["proposed"]
    assert (told["decided"], told["alone"], told["why"]) == ([], 0, "")
    assert found["classes"] == [[0, "tagged", CARRIERS], [1, "observed", CARRIERS]] and found["likeness"] > 0.9
    assert found["first"] == [row for i in range(CARRIERS) for row in (i, EACH + i)]  # of both classes in turn
    assert found["images"] == 2 * CARRIERS
    ask(app, "/api/decisions", {"target": 0, "decision": "artifact", "artifact": "tag"})
    told = ask(app, "/api/findings").json
    (found,) = told["decided"]
    assert [entry[:3] for entry in found["alike"]] == [[1, "observed", CARRIERS]] and found["alike"][0][3] > 0.9
    assert (told["proposed"], told["alone"]) == ([], 0)
    ask(app, "/api/decisions", {"target": 1, "decision": "legitimate"})
    assert ask(app, "/api/findings").json["decided"][0]["alike"] == []


def test_classes_that_differ_otherwise_are_not_proposed(tmp_path):
    app = make_app(ExploredRun.of(write_run(tmp_path / "a", images=False, quantified=False, feature_axes=(0, 1))))
    told = ask(app, "/api/findings").json
    assert (told["proposed"], told["alone"]) == ([], 2)
    app = make_app(ExploredRun.of(write_run(tmp_path / "b", images=False, quantified=False, feature_axes=()), "ada"))
    told = ask(app, "/api/findings").json
    assert (told["proposed"], told["alone"], told["why"]) == ([], 0, "the run stores no features")
