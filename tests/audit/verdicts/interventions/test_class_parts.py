"""Images whose border tells where they come from: what is exchanged is the border of a donor, and nothing else."""

import numpy as np
import pytest
import torch

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.class_parts import ClassParts
from klarsicht.audit.verdicts.interventions.image_parts import border_mask

SIDE = 20
SCALE = PixelScale(np.array([-1.0, -2.0, 0.0], np.float32), np.array([1.0, 2.0, 1.0], np.float32))


def grey(low, n, rng):
    return np.repeat(rng.integers(low, low + 50, (n, SIDE, SIDE, 1)), 3, 3).astype(np.uint8)


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    parts = ClassParts(("border",), grey(200, 5, rng), grey(0, 7, rng), SCALE)
    return parts, SCALE.inputs(grey(100, 6, rng)), rng


def test_the_border_becomes_that_of_one_donor_and_the_control_that_of_another_class(made):
    parts, images, rng = made
    inside = ~border_mask(SIDE, SIDE)
    for changed, donors in zip(parts.put(images, rng), (parts.donors, parts.others), strict=True):
        for before, after in zip(images, changed, strict=True):
            assert torch.equal(before[:, inside], after[:, inside])
            seen = SCALE.levels(after)[~inside]
            assert sum((seen == donor[~inside]).all() for donor in donors) == 1


def test_parts_that_are_taken_away_are_those_of_other_classes(made):
    parts, images, rng = made
    away = SCALE.levels(parts.take_away(images[0], rng))[border_mask(SIDE, SIDE)]
    assert away.max() < 50


def test_what_is_kept_makes_the_same_artifact_again(made):
    parts, images, _ = made
    again = ClassParts.from_json(parts.to_json(), parts.arrays())
    first, then = (one.put(images, np.random.default_rng(1))[0] for one in (parts, again))
    assert torch.equal(first, then) and str(again) == "border"


def test_images_of_another_shape_do_not_fit(made):
    parts, images, _ = made
    assert parts.fits(images[0]) and not parts.fits(images[0][:, 1:]) and not parts.fits(images[0][:1])
