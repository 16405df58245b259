"""Decisions on classes: recorded, undone, refused, and of several people at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.explorer.made_run import CARRIERS, EACH
from tests.explorer.requests import ask, parse_points

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, DecisionLog


def test_decisions_are_recorded_with_their_members_and_undone(app, whole_run):
    told = ask(app, "/api/decisions", {"target": 0, "decision": "artifact", "artifact": "tag"}).json
    assert (told["number"], told["decided"]["members"], told["decided"]["author"]) == (0, CARRIERS, "ada")
    told = ask(app, "/api/decisions", {"target": 0, "add": [9], "remove": [0, 1]}).json
    assert told["decided"]["removed"] == 2
    decision = DecisionLog(whole_run.path).decisions()[0]
    assert decision.members == (2, 3, 4, 5, 9) and decision.removed == (0, 1)
    assert ask(app, "/api/classes/0/members.txt").content.decode().split() == [
        f"tagged/{i:05d}.png" for i in (2, 3, 4, 5, 9)
    ]
    flags = parse_points(ask(app, "/api/classes/0/points").content)["flags"]
    assert flags[:10].tolist() == [3 | 8, 3 | 8, 7, 7, 7, 7, 0, 0, 0, 4]
    assert ask(app, "/api/undo", {"number": 1}).json["decided"]["members"] == CARRIERS
    assert ask(app, "/api/undo", {"number": 1}).status == 400
    assert len(ask(app, "/api/classes/0/history").json) == 3
    assert ask(app, "/api/classes/1/history").json == []


def together(calls):
    """Send requests at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def call(app, path, body):
        barrier.wait(60)
        return ask(app, path, body)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda one: call(*one), calls))


@pytest.mark.parametrize("servers", [1, 2])
def test_simultaneous_decisions_are_all_kept_and_of_undos_one(whole_run, app, servers):
    apps = [app, make_app(ExploredRun.of(whole_run, "bo"))][:servers]
    apps = [apps[i % servers] for i in range(12)]
    found = ask(app, "/api/classes/1").json["members"]
    others = [row for row in range(EACH, 2 * EACH) if row not in found][:12]
    answers = together(
        [(app, "/api/decisions", {"target": 1, "add": [row]}) for app, row in zip(apps, others, strict=True)]
    )
    assert sorted(answer.json["number"] for answer in answers) == list(range(12))
    for one in apps[:servers]:
        assert ask(one, "/api/classes/1").json["members"] == sorted(found + others)
    answers = together([(one, "/api/undo", {"number": 3}) for one in apps[:8]])
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert len(ask(app, "/api/classes/1").json["members"]) == len(found) + 11


def test_an_addition_is_undone_after_that_of_another(app, whole_run):
    other = make_app(ExploredRun.of(whole_run, "bo"))
    mine = ask(app, "/api/decisions", {"target": 0, "add": [9], "remove": [0]}).json["number"]
    assert ask(other, "/api/decisions", {"target": 0, "add": [10]}).json["decided"]["members"] == CARRIERS + 1
    assert ask(app, "/api/undo", {"number": mine}).json["decided"]["members"] == CARRIERS + 1
    assert ask(other, "/api/classes/0").json["members"] == [*range(CARRIERS), 10]


def test_a_page_knows_whether_others_decided_in_between(app, whole_run):
    """The number of the next record is the count that the list and the progress tell; results have a text of their
    own."""
    known = ask(app, "/api/classes").json
    assert known["records"] == ask(app, "/api/progress").json["records"] == 0
    assert ask(app, "/api/decisions", {"target": 0, "decision": "unsure"}).json["number"] == 0
    ask(make_app(ExploredRun.of(whole_run, "bo")), "/api/decisions", {"target": 1, "decision": "unsure"})
    assert ask(app, "/api/decisions", {"target": 0, "note": "a"}).json["number"] == 2
    now = ask(app, "/api/progress").json
    assert (now["records"], now["revision"]) == (3, known["revision"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"target": 0}, 400),
        ({"target": 99, "decision": "artifact"}, 400),
        ({"target": 0, "decision": "maybe"}, 422),
        ({"target": 0, "add": [EACH]}, 400),
        ({"target": 0, "add": [10**6]}, 400),
        ({"target": 0, "add": [-1]}, 422),
        ({"target": "0", "decision": "artifact"}, 422),
        ({"target": 0, "decision": "artifact", "more": 1}, 422),
        ({"target": 0, "note": "x" * 5000}, 422),
        ([], 422),
        (b"{", 422),
        (b"\xff", 400),
    ],
)
def test_a_bad_decision_is_refused_and_not_recorded(app, whole_run, body, status):
    answer = ask(app, "/api/decisions", body)
    assert answer.status == status and answer.json["error"]
    assert not (whole_run.path / DECISIONS_FILE).exists()
