"""The pool of a quantification. Oracle: the pool walked for each class, image by image."""

from unittest.mock import Mock

import numpy as np
import pytest

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.detectors.patch_matches import WINDOW_POOL
from klarsicht.audit.verdicts.quantification.units import DetectionUnits


def walked(pool, of_class):
    """How far one goes in the pool until WINDOW_POOL images are not of the class, or to the last one that is not."""
    last, count = 0, 0
    for place, row in enumerate(pool):
        if row not in of_class and count < WINDOW_POOL:
            last, count = place + 1, count + 1
    return last


@pytest.mark.parametrize(("images", "classes"), [(3000, 2), (3000, 10), (1000, 4)])
def test_windows_of_the_pool_are_those_that_any_class_compares(images, classes):
    names = tuple(f"{row:04d}" for row in range(images))
    labels = tuple(str(row % classes) for row in range(images))
    groups = tuple(Group(str(c), c, np.arange(c, images, classes)) for c in range(classes))
    units = DetectionUnits(Mock(), Corpus(names, names, labels), AuditSettings(model="m", data="d"), groups, "")
    units.__dict__["pool_rows"] = np.random.default_rng(0).permutation(images)
    assert units.compared_images == max(walked(units.pool_rows, set(group.rows.tolist())) for group in groups)
    assert units.compared_images <= images


def test_images_of_the_pool_are_numbered_by_their_classes():
    names = tuple(f"{row:04d}" for row in range(60))
    groups = tuple(Group(str(c), c, np.arange(c, 60, 3)) for c in range(3))
    settings = AuditSettings(model="m", data="d")
    units = DetectionUnits(Mock(), Corpus(names, names, tuple(str(row % 3) for row in range(60))), settings, groups, "")
    units.__dict__["pool_rows"] = np.random.default_rng(1).permutation(60)[:40]
    np.testing.assert_array_equal(units.pool_classes, units.pool_rows % 3)
