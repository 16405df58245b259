"""Groups of images that are analysed together."""

import numpy as np
import pytest

from klarsicht.audit.explanation.data import groups
from klarsicht.ground.errors import UsageError

LABELS = ("cat", "dog", "cat", "dog", "cat")
USABLE = np.array([True, True, False, True, True])


def test_by_label_each_class_has_its_usable_rows():
    names = ("", "dog", "", "cat")
    targets = np.array([names.index(label) for label in LABELS])
    found = [(g.name, g.target, g.rows.tolist()) for g in groups.group_by_label(targets, names, USABLE)]
    assert found == [("cat", 3, [0, 4]), ("dog", 1, [1, 3])]


def test_by_prediction_partitions_the_usable_rows():
    found = groups.group_by_prediction(np.array([2, 0, 2, 2, 0]), ("a", "b", "c"), USABLE)
    assert [(g.name, g.rows.tolist()) for g in found] == [("a", [1, 4]), ("c", [0, 3])]
    assert sorted(np.concatenate([g.rows for g in found])) == np.flatnonzero(USABLE).tolist()


def test_screening_gives_every_target_all_usable_rows():
    found = groups.group_for_screening([1, 2], ("a", "b", "c"), USABLE)
    assert [g.name for g in found] == ["b", "c"]
    assert all(g.rows.tolist() == [0, 1, 3, 4] for g in found)


def test_a_class_is_named_by_label_by_the_models_name_or_by_number():
    names = ("tench", "goldfish", "carton")
    assert groups.find_output("box", names, {"box": 2}) == 2
    assert groups.find_output("goldfish", names, {}) == 1
    assert groups.find_output("0", names, {}) == 0
    with pytest.raises(UsageError, match="carton"):
        groups.find_output("cartoon", names, {})


def test_an_image_counts_once_for_an_output_that_two_of_its_labels_have():
    first = groups.first_of_each(np.array([0, 0, 1, 1, 0]), np.array([2, 1, 2, 2, 2]))
    assert first.tolist() == [True, True, True, False, False]
