"""The explorer as one HTML file. Oracles: an HTML parser, Pillow, and the answers of the server."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from tests.explorer.made_run import CARRIERS, EACH, SIDE, write_run
from tests.explorer.requests import ask

from klarsicht.explorer.app import make_app
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.export import export_run
from klarsicht.explorer.export_page import MOST_IMAGES, choose_images

NAMES = ("tagged", "</script><script>alert(1)</script>")


class Elements(HTMLParser):
    """Elements of a page with the attributes of each, and the texts of scripts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script":
            self.scripts.append((self.found[-1][1], data))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = write_run(tmp_path_factory.mktemp("made"), NAMES)
    place = export_run(store.path, "page", store.path.parent / "explorer.html")
    return store, place.read_text()


@pytest.fixture(scope="module")
def saved(made):
    return next(json.loads(text) for attrs, text in Elements(made[1]).scripts if attrs.get("id") == "saved")


def test_the_file_needs_nothing_beside_it_and_names_no_folder(made):
    """No element has an address but one inside the page, and no path of this machine is in it."""
    store, page = made
    elements = Elements(page)
    addresses = [attrs[name] for _, attrs in elements.found for name in ("src", "href") if name in attrs]
    assert addresses and all(address.startswith("#") for address in addresses)
    assert [attrs.get("type") for tag, attrs in elements.found if tag == "script"] == [
        "application/json",
        "importmap",
        "module",
    ]
    assert str(store.path.parent) not in page


def test_it_holds_the_answers_of_the_server(made, saved):
    app = make_app(ExploredRun.of(made[0]))
    assert saved["answers"]["/api/classes"] == ask(app, "/api/classes").json | {
        "classes": [
            line
            | {
                "next_steps": [
                    [advice, command.replace(str(made[0].path), "run")] for advice, command in line["next_steps"]
                ]
            }
            for line in ask(app, "/api/classes").json["classes"]
        ]
    }
    assert base64.b64decode(saved["points"]["/api/classes/0/points"]) == ask(app, "/api/classes/0/points").content
    assert list(saved["images"].values()) == ask(app, f"/api/images?rows={','.join(saved['images'])}").json
    assert len(saved["images"]) == EACH * len(NAMES)


def test_its_pictures_are_those_of_the_corpus(made, saved):
    picture = saved["pictures"][f"{CARRIERS} image"]
    drawn = Image.open(io.BytesIO(base64.b64decode(picture.removeprefix("data:image/jpeg;base64,"))))
    assert drawn.width == 5 * SIDE  # by a whole factor
    folder = made[0].path.parent / "data" / "tagged"
    for row in (CARRIERS, CARRIERS + 1):
        original = Image.open(folder / f"{row:05d}.png").resize(drawn.size, Image.Resampling.NEAREST)
        grey = [np.asarray(one.convert("L"), float).ravel() for one in (drawn, original)]
        assert (np.corrcoef(grey)[0, 1] > 0.9) == (row == CARRIERS)


def test_its_modules_find_each_other(made):
    """Every import names an entry of the import map, whose modules do not import by relative addresses."""
    import re

    imports = next(json.loads(text) for attrs, text in Elements(made[1]).scripts if attrs.get("type") == "importmap")
    for address in imports["imports"].values():
        module = base64.b64decode(address.removeprefix("data:text/javascript;base64,")).decode()
        assert set(re.findall(r"^import .* from '(.*)'", module, re.MULTILINE)) <= set(imports["imports"])
        assert "'./" not in module


def test_of_a_large_class_the_images_with_the_artifact_come_first(tmp_path):
    run = ExploredRun.of(write_run(tmp_path, ("large", "small"), 3 * MOST_IMAGES, 7, images=False))
    chosen = choose_images(run, 0)
    assert set(range(7)) <= set(chosen) and len(chosen) <= MOST_IMAGES
    assert max(np.diff(chosen)) <= 5 and chosen[-1] > 3 * MOST_IMAGES - 5
