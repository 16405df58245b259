"""Surroundings of single pictures, on images whose own places are known by hand."""

from types import SimpleNamespace

import numpy as np

from klarsicht.audit.results.checked_picture import PictureQuestion
from klarsicht.audit.verdicts.quantification.picture_surroundings import PictureSurroundings

SIDE = 16


def made():
    """Twelve images, each of one level, of two classes; the last of each class is on the other's side."""
    levels = np.repeat(np.arange(12, dtype=np.uint8) * 20, SIDE * SIDE * 3).reshape(12, SIDE, SIDE, 3)
    own = np.zeros((12, SIDE // 2, SIDE // 2), bool)
    own[:, 2:4, 2:4] = True
    labels = np.repeat([0, 1], 6)
    sides = labels.copy()
    sides[[5, 11]] = 1, 0
    work = SimpleNamespace(settings=SimpleNamespace(seed=0), input_images=lambda rows: levels[np.asarray(rows) - 100])
    return PictureSurroundings(work, 100 + np.arange(12), labels, sides, own), levels


def test_donors_are_of_the_side_and_of_others_and_no_exceptions():
    one, _ = made()
    own, others = one.draw_donors(0, 4)
    assert len(own) == len(others) == 4
    assert set(own) <= {100, 101, 102, 103, 104} and set(others) <= {106, 107, 108, 109, 110}
    assert [len(rows) for rows in one.draw_donors(0, 9)] == [5, 5]
    assert [len(rows) for rows in one.draw_donors(7, 4)] == [0, 0]  # no image shows the surroundings of that class


def test_own_places_of_a_picture_lie_on_its_donors_and_nothing_else_does():
    one, levels = made()
    picture, own = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE), bool)
    own[9:12, 1:5] = True
    found = one.give(picture, own, np.array([103, 108]))
    for image, donor in zip(found, (3, 8), strict=True):
        np.testing.assert_array_equal(image, np.where(own[..., None], 255, levels[donor]))


def test_what_a_picture_rests_on_is_said_with_its_counts():
    rests = PictureQuestion("surroundings", 6, 1, 6, "dark", 9.2, 8.1, 10.4, 5)
    assert rests.rests and rests.describe("light") == (
        "rests on the surroundings: on those of other classes it is dark (5 of 6), and the score of light falls by 9.2 "
        "logits (8.1 to 10.4); on others of light 6 of 6 stay light"
    )
    unsure = PictureQuestion("surroundings", 6, 4, 6, "light", 1.2, 0.6, 1.8, 4)
    assert not unsure.rests and unsure.describe("light").startswith("not decided by the surroundings")
