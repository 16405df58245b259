"""A known artifact on images is what `audit plant` writes into files, in the units of the model."""

import json

import numpy as np
import pytest
import torch

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.audit.verdicts.interventions.planted_artifact import PlantedArtifact
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.errors import UsageError

SCALE = PixelScale(np.float32([-2.1, -2.0, -1.8]), np.float32([2.2, 2.4, 2.6]))


def inputs(levels):
    """By the definition: black at one end, white at the other."""
    black, white = (np.array(end)[:, None, None] for end in ([-2.1, -2.0, -1.8], [2.2, 2.4, 2.6]))
    return torch.from_numpy((levels.transpose(2, 0, 1) / 255 * (white - black) + black).astype(np.float32))


@pytest.mark.parametrize("kind", ["tag", "glyphs", "noise", "stripe"])
def test_images_get_the_pixels_that_audit_plant_writes(kind):
    levels = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    put = put_on(inputs(levels), PlantedArtifact(kind, 3, SCALE), np.random.default_rng(7))
    expected = artifacts.draw_plant(kind, 3)(levels, np.random.default_rng(7)).pixels
    assert (expected != levels).any()
    torch.testing.assert_close(put, inputs(expected), atol=1e-4, rtol=0)


def test_grey_images_are_drawn_on_and_the_control_is_the_image():
    scale = PixelScale(np.zeros(1, np.float32), np.ones(1, np.float32))
    images = torch.full((2, 1, 28, 28), 0.5)
    put, control = PlantedArtifact("tag", 0, scale).put(images, np.random.default_rng(0))
    assert torch.equal(control, images)
    assert put[:, 0, :2, :2].eq(1).all()  # white, upper left of the chequered tag
    assert put[:, 0, 2:4, :2].eq(0).all()
    torch.testing.assert_close(put[:, 0, 4:], images[:, 0, 4:], atol=1 / 255, rtol=0)


def test_images_of_any_channels_fit_but_changes_of_colour_need_three():
    shapes = [torch.zeros(c, 28, 28) for c in (1, 2, 3, 4)]
    assert all(PlantedArtifact("tag", 0, SCALE).fits(image) for image in shapes)
    assert [PlantedArtifact("hue", 0, SCALE).fits(image) for image in shapes] == [False, False, True, False]


def test_a_record_gives_the_same_draw_of_a_family():
    planted = PlantedArtifact("random-tag", 5, SCALE)
    known = PlantedArtifact.from_json(json.loads(json.dumps(planted.to_json())))
    image = torch.zeros(3, 40, 40)
    assert torch.equal(*(put_on(image, one, np.random.default_rng(1)) for one in (planted, known)))


def test_an_unknown_kind_is_told_with_near_ones():
    with pytest.raises(UsageError, match="glyphs"):
        _ = PlantedArtifact("glyph", 0, SCALE).plant
