"""Places of windows in words, against their coordinates."""

import numpy as np
import pytest

from klarsicht.audit.results.detection_rows import describe_places

ROW = {"target": 0, "sign": "fine 32 0.8", "score": 9.0, "rows": [], "height": 0.1, "width": 0.1}


@pytest.mark.parametrize(
    ("corner", "words"),
    [
        ((0.0, 0.9), "top right"),
        ((0.9, 0.0), "bottom left"),
        ((0.0, 0.45), "top"),
        ((0.45, 0.9), "right"),
        ((0.45, 0.45), "in the centre"),
    ],
)
def test_windows_at_one_place_are_there_and_strays_of_one_in_ten_change_nothing(corner, words):
    rng = np.random.default_rng(0)
    places = np.clip(np.array(corner) + rng.uniform(-0.02, 0.02, (20, 2)), 0, 0.9)
    places[:2] = 0.3
    assert describe_places(ROW | {"places": places.ravel().tolist()}) == words
    places[:3] = 0.3
    assert describe_places(ROW | {"places": places.ravel().tolist()}) == "at varying places"


@pytest.mark.parametrize(("windows", "strays", "words"), [(9, 1, "bottom"), (9, 2, "at varying places"),
                                                          (5, 1, "bottom"), (4, 1, "at varying places")])  # fmt: skip
def test_one_stray_of_few_windows_changes_nothing(windows, strays, words):
    """As of a web address along the lower edge of nine photographs, which was matched once a step to the left."""
    places = np.tile([0.88, 0.48], (windows, 1))
    places[:strays, 1] = 0.32
    assert describe_places(ROW | {"places": places.ravel().tolist()}) == words


def test_detections_without_windows_have_no_place():
    assert describe_places(ROW | {"places": []}) == ""
