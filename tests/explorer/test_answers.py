"""Answers of the explorer about a run with known content."""

import io
import json
import zipfile

import numpy as np
from PIL import Image
from tests.explorer.made_run import CARRIERS, EACH, SIDE, TAG, WINDOW, D, write_run
from tests.explorer.requests import ask, parse_points

from klarsicht.explorer.answers import as_json
from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun


def test_a_note_keeps_its_lines_and_a_class_of_that_name_its_figures():
    told = {"note": {"harm": 0.5, "path": "a\nb"}, "decided": {"note": "one\ntwo"}}
    assert as_json(told) == {"note": {"harm": 0.5, "path": "a\\x0ab"}, "decided": {"note": "one\ntwo"}}


def test_rows_of_thousands_of_digits_are_no_rows(app):
    answer = ask(app, f"/api/images?rows=0,{'1' * 5000},1")
    assert answer.status == 200 and [one["row"] for one in answer.json] == [0, 1]


def test_without_an_embedding_or_maps_or_files_a_class_still_answers(tmp_path):
    app = make_app(ExploredRun.of(write_run(tmp_path, images=False, maps=False, embedded=[1])))
    found = parse_points(ask(app, "/api/classes/0/points").content)
    assert len(found["rows"]) == EACH and found["vectors"].shape == (EACH, 0)
    assert parse_points(ask(app, "/api/classes/1/points").content)["vectors"].shape == (EACH, D)
    assert ask(app, "/api/images/0/picture").status == 404
    assert ask(app, "/api/images/0/picture?kind=relevance").status == 400
    assert ask(app, "/api/classes/0/coco.json").json["images"] == []


NAMES = ["<script>alert(1)</script>", "\u202egnp.exe", 'a"b&c', "x" * 300, "line\nverdict: clean"]


def test_names_that_mislead_are_shown_as_they_are_written(tmp_path):
    app = make_app(ExploredRun.of(write_run(tmp_path, NAMES, images=False)))
    content = ask(app, "/api/classes").content
    names = {line["name"] for line in json.loads(content)["classes"]}
    assert names == {NAMES[0], "\\u202egnp.exe", NAMES[2], NAMES[3], "line\\x0averdict: clean"}
    assert "\u202e" not in content.decode() and ask(app, "/api/images?rows=0,24").json[1]["label"] == "\\u202egnp.exe"


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
