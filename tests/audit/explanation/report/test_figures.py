"""Pictures for people: what the model saw, at a size one can see."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from tests.audit.conftest import write_corpus

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.report import figures
from klarsicht.audit.explanation.report.views import fit_to_square
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.ranking import read_ranking
from klarsicht.ground.run_folder.store import RunStore


def test_small_pictures_are_enlarged_so_that_pixels_stay_squares():
    pixels = np.zeros((12, 12, 3), np.uint8)
    pixels[:6] = 255
    picture = Image.open(BytesIO(figures.encode_jpeg(pixels)))
    assert picture.size == (96, 96)
    column = np.asarray(picture.convert("L")).astype(int)[:, 48]
    assert column[:44].min() > 240
    assert column[52:].max() < 15


def test_points_fill_the_picture_and_keep_their_order():
    points = np.array([[-3.0, 10], [0, 30], [5, 20]])
    layout = fit_to_square(points, side=400, margin=14)
    assert layout.min() == 14
    assert layout.max() == 386
    np.testing.assert_array_equal(np.argsort(layout, 0), np.argsort(points, 0))
    assert np.isfinite(fit_to_square(np.zeros((3, 2)))).all()


def test_at_most_so_many_are_picked_and_all_when_there_are_fewer():
    rng = np.random.default_rng(0)
    assert figures.pick_at_random(np.arange(5), 9, rng).tolist() == [0, 1, 2, 3, 4]
    some = figures.pick_at_random(np.arange(100), 9, rng)
    assert len(set(some.tolist())) == 9
    assert (np.diff(some) > 0).all()


@pytest.mark.parametrize(("side", "width"), [(24, 1), (96, 2), (200, 3)])
def test_a_line_around_a_mask_lies_outside_and_is_closed(side, width):
    pixels = np.full((side, side, 3), 90, np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    drawn = (figures.outline_mask(pixels, mask) != 90).any(2)
    inside = np.kron(mask, np.ones((side // 8, side // 8), bool))
    assert not (drawn & inside).any()
    distance = ndimage.distance_transform_cdt(~inside, "taxicab")
    np.testing.assert_array_equal(drawn, (distance > 0) & (distance <= width))


def test_the_table_of_images_is_read_once_however_many_classes_are_drawn(classifier, tmp_path, monkeypatch):
    """A class more costs its own pictures: of 1,000 classes each read the table of all images, nine tenths of the
    cost."""
    write_corpus(tmp_path / "data", per_class=30)
    audit = Audit.of(AuditSettings(model="object", data=str(tmp_path / "data")), classifier)
    store = pipeline.run(audit.settings, tmp_path / "run", classifier=classifier)
    works, ordered = tuple(pipeline.make_analyses(audit, store).values()), read_ranking(store).entries
    table, read = RunStore.table, list[str]()

    def counted(self, name, *given, **named):
        read.append(name)
        return table(self, name, *given, **named)

    monkeypatch.setattr(RunStore, "table", counted)
    monkeypatch.setattr(figures, "CLASSES_ILLUSTRATED", 1)
    monkeypatch.setattr(figures, "is_noted", lambda entry: True)
    figures.Illustrator(store, audit.settings, audit.corpus, classifier, works).draw(ordered)
    assert len(ordered) == 3
    assert read.count("images") == 1
