"""The export for FiftyOne. Oracles: where a cell of a map lies by hand, Pillow's reading, and the run that was made."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.explorer.made_run import write_run

from klarsicht.explorer.export import export_run
from klarsicht.explorer.export_fiftyone import HEATMAP_SIDE, place_relevance
from klarsicht.ground.pictures.seen_area import SeenArea

NAMES, EACH, CARRIERS = ("tagged", "plain"), 12, 4


def hot(row, column, side=8):
    relevance = np.zeros((side, side), np.float32)
    relevance[row, column] = 2
    relevance[0, 0] -= 5  # against the class
    return relevance


def centre(picture):
    levels = np.asarray(picture, float)
    rows, columns = np.mgrid[: levels.shape[0], : levels.shape[1]] + 0.5
    return (levels * rows).sum() / levels.sum(), (levels * columns).sum() / levels.sum()


def test_a_cell_lies_where_the_model_saw_it():
    """A crop of the centre, 0.8 of the shorter side of 200 x 100 pixels: 80 of them from (10, 60) on."""
    area = SeenArea("shorter", 0.8, 0.8)
    drawn = place_relevance(hot(2, 5), area, (200, 100))
    assert drawn.size == (200, 100)
    assert centre(drawn) == pytest.approx((10 + 2.5 * 10, 60 + 5.5 * 10), abs=0.6)
    assert np.asarray(drawn)[:10].sum() == np.asarray(drawn)[:, :60].sum() == 0


def test_a_large_file_has_a_small_map_and_a_padded_one_is_cut():
    drawn = place_relevance(hot(4, 4), SeenArea(), (4000, 1000))
    assert drawn.size == (HEATMAP_SIDE, 64)
    assert centre(drawn) == pytest.approx((4.5 * 8, 4.5 * 32), abs=1)
    padded = place_relevance(hot(4, 4), SeenArea("longer"), (100, 40))
    assert padded.size == (100, 40)
    assert centre(padded) == pytest.approx((4.5 * 12.5 - 30, 4.5 * 12.5), abs=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    store = write_run(tmp_path_factory.mktemp("made"), NAMES, EACH, CARRIERS)
    return store, export_run(store.path, "fiftyone", tmp_path_factory.mktemp("out") / "f")


def test_every_image_has_labels_tags_an_embedding_and_a_heat_map(exported):
    store, out = exported
    labels, samples = (json.loads((out / name).read_text()) for name in ("labels.json", "samples.json"))
    files = json.loads((out / "data.json").read_text())
    assert labels["labels"].keys() == samples.keys() == files.keys() and len(files) == 2 * EACH
    maps = store.array("maps")
    for key, file in files.items():
        row = labels["labels"][key]["attributes"]["row"]
        assert labels["classes"][labels["labels"][key]["label"]] == NAMES[samples[key]["target"]]
        drawn = np.asarray(Image.open(out / "heatmaps" / f"{key}.png"))
        assert drawn.shape[::-1] == Image.open(file).size
        stored = np.asarray(maps[row])
        assert (drawn.max() > 0) == (stored.max() > 0)
        assert len(samples[key]["vector"]) > 0
    tagged = [labels["labels"][key]["attributes"]["carries"] for key, one in samples.items() if one["tags"]]
    assert set(tagged) <= {"yes"}
    compile((out / "open_in_fiftyone.py").read_text(), "open_in_fiftyone.py", "exec")
