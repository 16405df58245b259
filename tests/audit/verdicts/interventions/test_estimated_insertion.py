"""A way of `audit quantify`, estimated anew from examples that are kept with it."""

import numpy as np
import pytest
import torch
from tests.audit.verdicts.interventions.test_shared_content import as_pixels, scenes, stripe

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.corruption import Corruption
from klarsicht.audit.verdicts.interventions.estimated_insertion import EstimatedInsertion, read_imitation
from klarsicht.audit.verdicts.interventions.patch import Patch
from klarsicht.audit.verdicts.interventions.shared_content import SharedContent

GLASS = PixelScale(np.full(3, -1, np.float32), np.full(3, 1, np.float32))


def no_place(carriers, others):
    return ArtifactExamples(carriers, others, np.zeros((0, 2), np.intp), (0, 0))


@pytest.mark.parametrize(
    ("how", "change", "kind"),
    [
        ("shared pixels", "shared", SharedContent),
        ("own place", "tile", Patch),
        ("64 levels of light", "light", Corruption),  # as large as the examples show it
    ],
)
def test_a_record_puts_on_what_the_way_puts_on(how, change, kind):
    x = scenes(60)
    carriers = as_pixels(x[:20] + 40.0) if change == "light" else stripe(x[:20], 0, 250)
    examples = no_place(carriers, x[20:])
    if change == "tile":
        examples = ArtifactExamples(carriers, x[20:], np.tile([10, 0], (20, 1)), (6, 3))
    made = EstimatedInsertion.of(how, change, examples, GLASS)
    again = read_imitation(made.to_json(), made.arrays())
    assert isinstance(made.way, kind) and isinstance(again, EstimatedInsertion) and str(again) == str(made)
    images = GLASS.inputs(scenes(4, 5))
    for one in (made, again):
        both = one.put(images, np.random.default_rng(0)), made.way.put(images, np.random.default_rng(0))
        assert all(torch.equal(*pair) for pair in zip(*both, strict=True))
    assert made.fits(images[0]) and not made.fits(images[0, :, :9])
    if change == "light":
        assert made.way.size == pytest.approx(40, abs=2)


def test_examples_that_show_nothing_give_no_insertion():
    x = scenes(60)
    assert EstimatedInsertion.of("shared tones", "shared", no_place(x[:20], x[20:]), GLASS) is None
