"""Exceptions to shared surroundings in a run made by hand: the list, pictures of own places, exports."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tests.audit.results.test_surroundings import LIGHT
from tests.explorer.made_run import EACH, write_run
from tests.explorer.requests import ask

from klarsicht.audit.results.surroundings import SURROUNDINGS_FILE, SURROUNDINGS_STEP, ExceptionalImage, Surroundings
from klarsicht.explorer.app import make_app
from klarsicht.explorer.exceptional_images import MOST_EXCEPTIONS
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.export import export_run
from klarsicht.explorer.thumbnails import DARKENED

NAMES, OWN = ("light", "dark"), np.zeros((12, 12), bool)
OWN[3:9, 4:10] = True
ODD = {2: -1.5, 5: -4.0}  # rows of light on surroundings of dark, with their margins


def examined(folder, p=0.025):
    store = write_run(folder, NAMES)
    places = [
        {
            "row": row, "target": row // EACH, "side": 1 if row in ODD else row // EACH, "margin": ODD.get(row, 3.0),
            "height": 12, "width": 12, "own": np.packbits(OWN).tobytes(),
        }
        for row in range(2 * EACH - 1)
    ]  # fmt: skip
    store.mark_done(SURROUNDINGS_STEP, 0, store.write_part("places", 0, pa.Table.from_pylist(places)))
    store.finish_step(SURROUNDINGS_STEP, 1)
    found = Surroundings((LIGHT,), (ExceptionalImage("light/00005.png", "light", "dark", -4.0),), 0.7, p)
    store.write_json(SURROUNDINGS_FILE, found.to_json())
    return store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return examined(tmp_path_factory.mktemp("examined"))


def test_exceptions_are_listed_the_clearest_first_with_others_of_their_class(run):
    told = ask(make_app(ExploredRun.of(run)), "/api/exceptions").json
    (one,) = told["classes"]
    assert [(image["row"], image["name"], image["side"], image["margin"]) for image in one["exceptions"]] == [
        (5, "light/00005.png", "dark", -4.0), (2, "light/00002.png", "dark", -1.5),
    ]  # fmt: skip
    assert one["count"] == 2 <= MOST_EXCEPTIONS and "the model relies on them" in one["sentence"]
    assert one["usual"] and not {2, 5} & set(one["usual"]) and max(one["usual"]) < EACH


def test_the_list_of_classes_says_that_they_share_their_surroundings(run, tmp_path):
    def told(store):
        return ask(make_app(ExploredRun.of(store)), "/api/classes").json["surroundings"]

    assert told(run).endswith(" of light share their surroundings, and the model relies on them.")
    assert told(examined(tmp_path / "a", p=0.5)) == told(write_run(tmp_path / "b")) == ""


def test_nothing_is_listed_where_nothing_was_found_or_asked(tmp_path):
    silent = ask(make_app(ExploredRun.of(examined(tmp_path / "a", p=0.5))), "/api/exceptions").json
    assert silent["classes"] == [] and silent["sentences"][0].startswith("surroundings: ")
    unasked = ask(make_app(ExploredRun.of(write_run(tmp_path / "b"))), "/api/exceptions").json
    assert unasked == {"sentences": [], "classes": []}


def test_own_places_are_bright_and_the_rest_is_darkened(run):
    """The file has 24 px, own places 12: each is two by two pixels."""
    explored = ExploredRun.of(run)
    plain, own = (
        np.asarray(Image.open(io.BytesIO(explored.pictures.draw(5, kind, 24))), float) for kind in ("image", "own")
    )
    inside = np.kron(OWN, np.ones((2, 2), bool))
    around = np.pad(inside, 1)
    inner = inside & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    assert own[inner].mean() == pytest.approx(plain[inner].mean(), rel=0.05)
    assert own[~inside].mean() == pytest.approx(DARKENED * plain[~inside].mean(), rel=0.15)
    red, green, _ = (own - plain)[inside & ~inner].mean(0)  # the edge is drawn in WINDOW_COLOUR
    assert green > red + 40


def test_an_image_that_was_not_examined_has_no_such_picture(run):
    answer = ask(make_app(ExploredRun.of(run)), f"/api/images/{2 * EACH - 1}/picture?kind=own")
    assert answer.status == 400 and "audit shortcuts" in answer.json["error"]


def test_the_tables_and_the_page_have_them_too(run, tmp_path):
    out = export_run(run.path, "csv", tmp_path / "images.csv")
    lines = {(line["class"], int(line["row"])): line for line in csv.DictReader(io.StringIO(out.read_text()))}
    sides = {row: (line["surroundings"], line["surroundings_margin"]) for (_, row), line in lines.items()}
    assert [row for row, (side, _) in sides.items() if row < EACH and side == "dark"] == [2, 5]
    assert sides[5] == ("dark", "'-4.0") or sides[5] == ("dark", "-4.0")
    assert sides[2 * EACH - 1] == ("", "")
    page = export_run(run.path, "page", tmp_path / "page.html").read_text()
    saved = json.loads(page.split('id="saved">')[1].split("</script>")[0])
    assert [one["row"] for one in saved["answers"]["/api/exceptions"]["classes"][0]["exceptions"]] == [5, 2]
    assert {"5 own", "5 image", "2 own"} <= saved["pictures"].keys()
