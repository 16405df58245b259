"""The explorer's answers about a run with known content, and what it records."""

import io
import json
import shutil
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.explorer.made_run import EIGENVALUES, SIDE, TAG, WINDOW, D, write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import as_json, make_app
from klarsicht.explorer.explored_run import ExploredRun, open_explored_run
from klarsicht.explorer.point_clouds import principal_plane
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, DecisionLog
from klarsicht.ground.run_folder.store import RunStore

EACH, CARRIERS = 24, 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("made"), each=EACH, carriers=CARRIERS)


@pytest.fixture
def app(made):
    yield make_app(ExploredRun(made, "ada"))
    for name in (DECISIONS_FILE,):
        (made.path / name).unlink(missing_ok=True)


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


def test_a_note_keeps_its_lines_and_a_class_of_that_name_its_figures():
    told = {"note": {"harm": 0.5, "path": "a\nb"}, "decided": {"note": "one\ntwo"}}
    assert as_json(told) == {"note": {"harm": 0.5, "path": "a\\x0ab"}, "decided": {"note": "one\ntwo"}}


def test_classes_of_a_run_that_is_not_quantified_have_the_words_of_the_ranking(tmp_path):
    app = make_app(ExploredRun(write_run(tmp_path, images=False, quantified=False)))
    found = {line["name"]: (line["kind"], line["verdict"]) for line in ask(app, "/api/classes").json["classes"]}
    assert found["observed"] == ("raises", "raises the target (observational)")
    assert found["plain"] == ("nothing", "no cluster clearly raises the target")


def parse(content):
    magic, n, d, _ = struct.unpack("<4sIII", content[:16])
    assert magic == b"KSP1"
    at, columns = 16, {}
    for name in ("rows", "label", "predicted", "component", "flags"):
        columns[name] = np.frombuffer(content, "<i4", n, at)
        at += 4 * n
    for name, wide in (("plane", 2 if d else 0), ("vectors", d)):
        columns[name] = np.frombuffer(content, "<f4", n * wide, at).reshape(n, wide)
        at += 4 * n * wide
    assert at == len(content)
    return columns


def test_points_are_the_stored_embedding_with_labels_and_membership(app, made):
    stored = made.part("embedding-concept", 0, "spray-concept")
    found = parse(ask(app, "/api/classes/0/points").content)
    assert found["rows"].tolist() == stored["row"].to_pylist() == list(range(EACH))
    np.testing.assert_array_equal(found["vectors"], stored["vector"].to_pylist())
    assert set(found["label"].tolist()) == {0}
    assert [i for i in range(EACH) if found["predicted"][i] != 0] == [5, 16]
    assert found["flags"].tolist() == [3] * CARRIERS + [0] * (EACH - CARRIERS)
    told = ask(app, "/api/classes/0").json
    assert (told["eigenvalues"], told["eigengap"]) == (EIGENVALUES, 2)  # .01 to .4 is the largest step
    assert told["members"] == told["found"] == list(range(CARRIERS)) and told["windows"] == CARRIERS


def test_the_plane_holds_the_first_two_principal_axes():
    """Against numpy's singular values: distances in the plane are those of the best approximation of rank 2."""
    X = np.random.default_rng(1).normal(size=(50, 5)) * [5, 3, 1, 0.5, 0.1]
    plane = principal_plane(X.astype(np.float32)).astype(float)
    u, s, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    wanted = u[:, :2] * s[:2]
    apart = lambda Z: np.linalg.norm(Z[:, None] - Z[None], axis=2)  # noqa: E731
    np.testing.assert_allclose(apart(plane) * np.abs(wanted).max(), apart(wanted), rtol=1e-3, atol=1e-3)
    assert np.abs(plane).max() == pytest.approx(1)
    assert principal_plane(np.zeros((0, 3), np.float32)).shape == (0, 2)
    assert not principal_plane(np.ones((4, 1), np.float32)).any()


def test_decisions_are_recorded_with_their_members_and_undone(app, made):
    told = ask(app, "/api/decisions", {"target": 0, "decision": "artifact", "artifact": "tag"}).json
    assert (told["number"], told["decided"]["members"], told["decided"]["author"]) == (0, CARRIERS, "ada")
    told = ask(app, "/api/decisions", {"target": 0, "add": [9], "remove": [0, 1]}).json
    assert told["decided"]["removed"] == 2
    decision = DecisionLog(made.path).decisions()[0]
    assert decision.members == (2, 3, 4, 5, 9) and decision.removed == (0, 1)
    assert ask(app, "/api/classes/0/members.txt").content.decode().split() == [
        f"tagged/{i:05d}.png" for i in (2, 3, 4, 5, 9)
    ]
    flags = parse(ask(app, "/api/classes/0/points").content)["flags"]
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
def test_simultaneous_decisions_are_all_kept_and_of_undos_one(made, app, servers):
    apps = [app, make_app(ExploredRun(made, "bo"))][:servers]
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


def test_an_addition_is_undone_after_that_of_another(app, made):
    other = make_app(ExploredRun(made, "bo"))
    mine = ask(app, "/api/decisions", {"target": 0, "add": [9], "remove": [0]}).json["number"]
    assert ask(other, "/api/decisions", {"target": 0, "add": [10]}).json["decided"]["members"] == CARRIERS + 1
    assert ask(app, "/api/undo", {"number": mine}).json["decided"]["members"] == CARRIERS + 1
    assert ask(other, "/api/classes/0").json["members"] == [*range(CARRIERS), 10]


def test_a_page_knows_whether_others_decided_in_between(app, made):
    """The number of the next record is the count that the list and the progress tell; results have a text of their
    own."""
    known = ask(app, "/api/classes").json
    assert known["records"] == ask(app, "/api/progress").json["records"] == 0
    assert ask(app, "/api/decisions", {"target": 0, "decision": "unsure"}).json["number"] == 0
    ask(make_app(ExploredRun(made, "bo")), "/api/decisions", {"target": 1, "decision": "unsure"})
    assert ask(app, "/api/decisions", {"target": 0, "note": "a"}).json["number"] == 2
    now = ask(app, "/api/progress").json
    assert (now["records"], now["revision"]) == (3, known["revision"])


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
    app = make_app(ExploredRun(write_run(tmp_path, images=False, quantified=False), "ada"))
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
    app = make_app(ExploredRun(write_run(tmp_path / "a", images=False, quantified=False, feature_axes=(0, 1)), "ada"))
    told = ask(app, "/api/findings").json
    assert (told["proposed"], told["alone"]) == ([], 2)
    app = make_app(ExploredRun(write_run(tmp_path / "b", images=False, quantified=False, feature_axes=()), "ada"))
    told = ask(app, "/api/findings").json
    assert (told["proposed"], told["alone"], told["why"]) == ([], 0, "the run stores no features")


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
def test_a_bad_decision_is_refused_and_not_recorded(app, made, body, status):
    answer = ask(app, "/api/decisions", body)
    assert answer.status == status and answer.json["error"]
    assert not (made.path / DECISIONS_FILE).exists()


def picture(answer):
    assert answer.status == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


def test_pictures_are_those_of_the_files_and_of_the_stored_maps(app, made):
    file = Image.open(RunStore.open(made).table("corpus")["path"][0].as_py())
    drawn = picture(ask(app, "/api/images/0/picture?side=96"))
    wanted = np.asarray(file.resize((96, 96), Image.Resampling.NEAREST)).astype(int)
    assert drawn.shape == (96, 96, 3) and np.abs(drawn - wanted).mean() < 12  # JPEG
    relevance = picture(ask(app, "/api/images/0/picture?kind=relevance&side=64"))
    red = relevance[..., 0] - relevance[..., 2]
    assert np.argwhere(red > 50).min(0).tolist() == [16, 32]  # cell (2, 4) of 8 x 8, 8 pixels each
    overlay = picture(ask(app, "/api/images/0/picture?kind=overlay&side=96"))
    assert (overlay[28:34, 52:58, 0] - overlay[28:34, 52:58, 2]).mean() > 60
    window = picture(ask(app, "/api/images/0/picture?kind=window&side=96&target=0"))
    assert window[24, 60, 1] - window[24, 60, 0] > 30  # the upper edge of the outline
    mask = picture(ask(app, "/api/images/0/picture?kind=mask&target=0"))
    assert mask.shape == (SIDE, SIDE, 3)
    assert np.argwhere(mask[..., 0] > 0).min(0).tolist() == [WINDOW[0] * SIDE, WINDOW[1] * SIDE]
    assert (mask[..., 0] > 0).sum() == TAG**2


@pytest.mark.parametrize(
    "query", ["kind=mask&target=1", "kind=window&side=9", "kind=passwd", "kind=mask", "side=99999"]
)
def test_a_picture_that_there_is_not_is_refused(app, query):
    assert ask(app, f"/api/images/{EACH}/picture?{query}").status in (400, 422)
    assert ask(app, "/api/images/100000/picture").status == 400


def test_rows_of_thousands_of_digits_are_no_rows(app):
    answer = ask(app, f"/api/images?rows=0,{'1' * 5000},1")
    assert answer.status == 200 and [one["row"] for one in answer.json] == [0, 1]


@pytest.mark.parametrize(("name", "value"), [("model", None), ("target", 5), ("metric", "concept")])
def test_settings_of_another_kind_are_damage_and_no_failure(made, tmp_path, name, value):
    run = RunStore(shutil.copytree(made.path, tmp_path / "run"))
    facts = run.manifest
    run.write_json("manifest.json", facts | {"settings": facts["settings"] | {name: value}})
    answer = ask(make_app(open_explored_run(run.path, "a")), "/api/run")
    assert answer.status == 410 and name in answer.json["error"]


def test_a_mean_is_that_of_the_maps(app):
    """Maps differ only in one cell; the mean of an even and an odd row is drawn as any single map, and counted."""
    one = ask(app, "/api/mean", {"rows": [0], "side": 32})
    two = ask(app, "/api/mean", {"rows": [0, 1, 1], "side": 32})
    assert (one.headers["x-images"], two.headers["x-images"]) == ("1", "2")
    np.testing.assert_array_equal(picture(one), picture(two))
    assert ask(app, "/api/mean", {"rows": []}).status == 400
    assert ask(app, "/api/mean", {"rows": [3 * EACH]}).status == 400


def test_members_are_saved_as_masks_and_in_the_coco_format(app):
    with zipfile.ZipFile(io.BytesIO(ask(app, "/api/classes/0/masks.zip").content)) as archive:
        assert len(archive.namelist()) == CARRIERS
        mask = np.asarray(Image.open(io.BytesIO(archive.read(archive.namelist()[0]))))
    assert mask.sum() == 255 * TAG**2
    found = ask(app, "/api/classes/0/coco.json").json
    assert len(found["images"]) == len(found["annotations"]) == CARRIERS
    box = [WINDOW[1] * SIDE, WINDOW[0] * SIDE, TAG, TAG]
    assert all(one["bbox"] == box and one["area"] == TAG**2 and not one["whole"] for one in found["annotations"])
    assert found["images"][0] == {"id": 0, "file_name": "tagged/00000.png", "width": SIDE, "height": SIDE}
    assert ask(app, "/api/classes/1/masks.zip").status == 400
    whole = ask(app, "/api/classes/1/coco.json").json["annotations"]
    assert {one["carries"] for one in whole} == {"undecided"} and found["annotations"][0]["carries"] == "yes"
    assert len(whole) == CARRIERS and all(one["whole"] and one["bbox"] == [0, 0, SIDE, SIDE] for one in whole)
    own_to_fiftyone = {"mask", "mask_path", "label", "bounding_box", "confidence", "index", "instance", "tags"}
    assert not own_to_fiftyone & {field for one in whole for field in one}  # its Detection has these fields


def test_the_list_opens_before_the_images_are_read(made):
    """Of a million images that takes seconds: neither the run nor its classes wait for it."""
    run = ExploredRun(made, "ada")
    app = make_app(run)
    for path in ("/", "/api/run", "/api/classes", "/api/progress"):
        assert ask(app, path).status == 200
    assert "images" not in run._cache
    assert ask(app, "/api/classes/0").status == 200 and "images" in run._cache


def test_a_class_opens_before_its_masks_are_known(made):
    """Of a class of 100,000 images they take a second: only the question for them, and for a masked picture, waits."""
    run = ExploredRun(made, "ada")
    app = make_app(run)
    for path in ("", "/points", "/history"):
        assert ask(app, "/api/classes/0" + path).status == 200
    assert "masks" not in run._cache
    assert ask(app, "/api/classes/0/masks").json == {"masks": list(run.masks(0))} and run.masks(0)
    assert ask(app, "/api/classes/99/masks").status == 400


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
    before = run.revision
    store.write_json("ranking.json", [])
    assert run.revision != before and ask(app, "/api/classes").json["classes"] == []


def test_without_an_embedding_or_maps_or_files_a_class_still_answers(tmp_path):
    app = make_app(ExploredRun(write_run(tmp_path, images=False, maps=False, embedded=[1])))
    found = parse(ask(app, "/api/classes/0/points").content)
    assert len(found["rows"]) == EACH and found["vectors"].shape == (EACH, 0)
    assert parse(ask(app, "/api/classes/1/points").content)["vectors"].shape == (EACH, D)
    assert ask(app, "/api/images/0/picture").status == 404
    assert ask(app, "/api/images/0/picture?kind=relevance").status == 400
    assert ask(app, "/api/classes/0/coco.json").json["images"] == []


NAMES = ["<script>alert(1)</script>", "\u202egnp.exe", 'a"b&c', "x" * 300, "line\nverdict: clean"]


def test_names_that_mislead_are_shown_as_they_are_written(tmp_path):
    app = make_app(ExploredRun(write_run(tmp_path, NAMES, images=False)))
    content = ask(app, "/api/classes").content
    names = {line["name"] for line in json.loads(content)["classes"]}
    assert names == {NAMES[0], "\\u202egnp.exe", NAMES[2], NAMES[3], "line\\x0averdict: clean"}
    assert "\u202e" not in content.decode() and ask(app, "/api/images?rows=0,24").json[1]["label"] == "\\u202egnp.exe"


def test_damaged_and_missing_files_are_told(tmp_path):
    store = write_run(tmp_path, images=False)
    (store.path / "ranking.json").write_text("[")
    answer = ask(make_app(ExploredRun(store)), "/api/classes")
    assert answer.status == 410 and "ranking.json" in answer.json["error"]


PATHS = st.sampled_from(
    [
        "/",
        "/api/run",
        "/api/progress",
        "/api/classes",
        "/api/classes/{}",
        "/api/classes/{}/points",
        "/api/classes/{}/masks",
        "/api/classes/{}/history",
        "/api/classes/{}/members.txt",
        "/api/classes/{}/masks.zip",
        "/api/classes/{}/coco.json",
        "/api/images",
        "/api/images/{}/picture",
        "/api/findings",
        "/api/corrections",
        "/static/{}",
        "/api/{}",
        "/{}",
    ]
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
