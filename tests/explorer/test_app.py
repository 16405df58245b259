"""The explorer's application: its routes, what is read before it answers, damage, and requests that nobody expects."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.explorer.made_run import write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import ROUTES, make_app
from klarsicht.explorer.explored_run import ExploredRun


def test_the_list_opens_before_the_images_are_read(whole_run):
    """Of a million images that takes seconds: neither the run nor its classes wait for it."""
    run = ExploredRun.of(whole_run, "ada")
    app = make_app(run)
    for path in ("/", "/api/run", "/api/classes", "/api/progress"):
        assert ask(app, path).status == 200
    assert "images" not in run.reader._cache
    assert ask(app, "/api/classes/0").status == 200 and "images" in run.reader._cache


def test_a_class_opens_before_its_masks_are_known(whole_run):
    """Of a class of 100,000 images they take a second: only the question for them, and for a masked picture, waits."""
    run = ExploredRun.of(whole_run, "ada")
    app = make_app(run)
    for path in ("", "/points", "/history"):
        assert ask(app, "/api/classes/0" + path).status == 200
    assert "masks" not in run.reader._cache
    assert ask(app, "/api/classes/0/masks").json == {"masks": list(run.masks.by_source(0))} and run.masks.by_source(0)
    assert ask(app, "/api/classes/99/masks").status == 400


def test_damaged_and_missing_files_are_told(tmp_path):
    store = write_run(tmp_path, images=False)
    (store.path / "ranking.json").write_text("[")
    answer = ask(make_app(ExploredRun.of(store)), "/api/classes")
    assert answer.status == 410 and "ranking.json" in answer.json["error"]


PATHS = st.sampled_from(
    [*(re.sub(r"\{\w+\}", "{}", path) for method, path, _ in ROUTES if method == "GET"), "/api/{}", "/{}"]
)
PIECES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["0", "1", "2", "71", "%2e%2e%2f", "..%5c", "../manifest.json", "main.js", "%00"]),
    st.text(max_size=8).map(lambda text: "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))),
)
QUERIES = st.dictionaries(st.sampled_from(["rows", "kind", "side", "target", "metric", "token"]), PIECES, max_size=3)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**65), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
BODIES = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"target": st.one_of(st.integers(0, 3), VALUES)},
        optional={
            "decision": st.one_of(st.sampled_from(["artifact", "legitimate", "unsure", ""]), VALUES),
            "note": VALUES,
            "artifact": st.one_of(st.text(max_size=9), VALUES),
            "add": st.one_of(st.lists(st.integers(0, 80), max_size=4), VALUES),
            "remove": st.one_of(st.lists(st.integers(0, 80), max_size=4), VALUES),
        },
    ),
    st.fixed_dictionaries({"number": st.one_of(st.integers(0, 9), VALUES)}),
    st.fixed_dictionaries({"rows": st.one_of(st.lists(st.integers(-1, 80)), VALUES)}),
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, piece=PIECES, query=QUERIES)
def test_no_question_is_answered_by_a_failure(app, path, piece, query):
    text = "&".join(f"{name}={value}" for name, value in query.items())
    assert ask(app, path.format(piece) + (f"?{text}" if text else "")).status < 500


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/api/decisions", "/api/undo", "/api/mean"]), body=BODIES)
def test_no_order_is_answered_by_a_failure(app, path, body):
    assert ask(app, path, body).status < 500
    assert ask(app, "/api/classes").status == 200  # and what was recorded can be read
