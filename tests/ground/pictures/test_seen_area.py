"""Rectangles of files that a model sees, against arithmetic done by hand."""

import json

import pytest

from klarsicht.ground.errors import StoreError
from klarsicht.ground.pictures.seen_area import SeenArea, read_seen_area


@pytest.mark.parametrize(
    ("area", "size", "box"),
    [
        (SeenArea(), (640, 480), (0, 0, 640, 480)),
        (SeenArea("side", 0.5, 0.25), (640, 480), (240, 120, 400, 360)),
        (SeenArea("shorter", 0.875, 0.875), (640, 480), (110, 30, 530, 450)),
        (SeenArea("longer"), (640, 480), (0, -80, 640, 560)),
        (SeenArea("longer", top=0, left=0), (480, 640), (0, 0, 640, 640)),
        (SeenArea("pixels", 224, 112), (640, 480), (264, 128, 376, 352)),
        (SeenArea("pixels", 224, 224, 1, 1), (200, 300), (-24, 76, 200, 300)),
    ],
)
def test_boxes_are_those_by_hand(area, size, box):
    assert area.box(size) == box
    assert SeenArea.from_json(json.loads(json.dumps(area.to_json()))) == area


@pytest.mark.parametrize(
    "content", [None, "", {}, {"unit": "side"}, {**SeenArea().to_json(), "unit": "mile"}, 0.875, [1]]
)
def test_what_is_no_area_is_refused(content):
    with pytest.raises(ValueError, match="not a seen area"):
        SeenArea.from_json(content)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        read_seen_area({"seen": content})


def test_a_run_whose_area_is_not_known_has_none():
    assert read_seen_area({}) is None and read_seen_area({"seen": SeenArea().to_json()}) == SeenArea()
