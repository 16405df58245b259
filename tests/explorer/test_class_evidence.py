"""Groups that no verdict names, and shortcuts, in what the explorer answers and in every export."""

import csv
import json

import numpy as np
import pytest
from tests.audit.results.test_sufficiency import COVID, evidence_of, profile_of
from tests.explorer.made_run import EACH
from tests.explorer.requests import ask

from klarsicht.audit.results.seen_groups import SeenGroup, write_seen_groups
from klarsicht.audit.results.sufficiency import SUFFICIENCY_FILE, Sufficiency
from klarsicht.explorer import export_page, export_tables, export_virelay
from klarsicht.explorer.app import make_app

ROWS = (EACH + 20, EACH + 22, EACH + 23)  # the last ones of class 1: no members of its cluster
GROUP = SeenGroup("observed", 1, EACH, "fine 50 0.9", 0.01, "top", "classes are few", "", ROWS, ("a", "b", "c"))


@pytest.fixture
def seen(explored):
    write_seen_groups(explored.reader.store, (GROUP,))
    return explored


def test_the_page_of_a_class_tells_its_groups_and_that_not_tested_is_not_not_used(seen):
    app = make_app(seen)
    told = ask(app, "/api/classes/1").json
    assert told["seen"] == [{"headline": GROUP.headline, "rows": list(ROWS)}]
    assert "not the same as not used" in told["not_tested"]
    assert ask(app, "/api/classes/0").json["seen"] == [] and told["shortcuts"] is None


def test_every_table_names_the_group_of_exactly_its_images(seen, tmp_path):
    export_tables.write_csv(seen, [0, 1, 2], tmp_path / "images.csv")
    lines = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert {int(line["row"]) for line in lines if line["seen"]} == {*ROWS}
    assert {line["seen"] for line in lines} == {"", "seen, not called: the same fine patch (50 px, match at least 0.9)"}


def test_coco_lists_the_groups_of_its_classes(seen):
    app = make_app(seen)
    (known,) = ask(app, "/api/classes/1/coco.json").json["info"]["seen"]["groups"]
    assert known == json.loads(json.dumps(GROUP.to_json()))
    assert ask(app, "/api/classes/0/coco.json").json["info"]["seen"]["groups"] == []


def test_a_copy_of_the_explorer_has_the_pictures_of_the_group(seen, monkeypatch):
    monkeypatch.setattr(export_page, "MOST_IMAGES", 10)  # fewer than a class has
    assert {*ROWS} <= {*export_page.choose_images(seen, 1)}


def test_virelay_numbers_the_first_group_of_an_image(seen):
    rows = np.arange(EACH, 2 * EACH)
    assert export_virelay.number_seen(seen, 1, rows).tolist() == [int(row in ROWS) for row in rows]
    assert not export_virelay.number_seen(seen, 0, rows - EACH).any()


def test_shortcuts_stand_on_the_page_of_their_class_in_the_order_of_what_matters(explored):
    weak = evidence_of("corners")
    profiles = (profile_of("tagged", 0, weak, COVID), profile_of("observed", 1, weak), profile_of("plain", 2, weak))
    explored.reader.store.write_json(SUFFICIENCY_FILE, Sufficiency(profiles, 0.05, 40).to_json())
    app = make_app(explored)
    first, second = (ask(app, f"/api/classes/{target}").json["shortcuts"] for target in (0, 1))
    told = f"{COVID.describe('tagged', 0.99)} Shown were 40 images of tagged."
    assert first["headlines"] == [told] and second["headlines"] == []
    assert [row[first["headings"].index("part")] for row in first["rows"]] == [COVID.part, "corners"]
    assert "class" not in first["headings"] and len(first["headings"]) == len(first["rows"][0])
