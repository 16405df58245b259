"""The record of stability: cells by hand, JSON and CSV that are read again, and a run in which nothing was measured."""

import csv
import json

import pytest
from tests.explorer.made_run import write_run

from klarsicht.audit.results.stability import STABILITY_COLUMNS, ClassStability, Stability, read_stability
from klarsicht.ground.errors import RunDamaged, StoreError
from klarsicht.numerics.statistics.intervals import Interval

ONE = ClassStability("ant", 3, 4.26, Interval(0.812, 0.7, 0.924, 10), Interval(0.6, 0.5, 0.7, 10), -0.003)
OTHER = ClassStability("bee", 1, 0.0, Interval(1.0, 1.0, 1.0, 4), Interval(1.0, 1.0, 1.0, 4), 0.25)
FOUND = Stability((ONE, OTHER), "EpsilonPlusFlat", "swift")


def test_the_cells_of_a_class():
    assert dict(zip(STABILITY_COLUMNS, ONE.texts, strict=True)) == {
        "class": "ant", "images": "10", "noise (grey levels)": "4.3", "map with noise (95 %)": "0.81 (0.70 to 0.92)",
        "map denoised (95 %)": "0.60 (0.50 to 0.70)", "map of another image": "0.00",
    }  # fmt: skip


def test_each_image_costs_three_explained_passes():
    assert FOUND.passes == 3 * (10 + 4) and "42 explained passes" in FOUND.cost


def test_json_is_read_again_and_csv_has_a_line_for_each_class(tmp_path):
    store = write_run(tmp_path, images=False, quantified=False)
    with pytest.raises(StoreError, match="audit stability"):
        read_stability(store)
    store.write_json("stability.json", FOUND.to_json())
    assert read_stability(store) == FOUND and json.loads(json.dumps(FOUND.to_json())) == FOUND.to_json()
    first, _ = csv.DictReader(FOUND.to_csv().splitlines())
    assert (first["class"], first["with_noise_value"], first["without_noise_high"], first["other"]) == (
        "ant", "0.8120", "0.7000", "-0.0030",
    )  # fmt: skip


def test_a_class_is_found_by_its_output():
    assert FOUND.of_target(1) is OTHER and FOUND.of_target(2) is None


def test_a_record_that_lacks_a_key_is_damage(tmp_path):
    store = write_run(tmp_path, images=False, quantified=False)
    store.write_json("stability.json", {"classes": [{"class": "ant"}]})
    with pytest.raises(RunDamaged):
        read_stability(store)
