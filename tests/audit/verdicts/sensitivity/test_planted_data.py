"""Courses hold the whole grid and never a kind twice; planted input images show what planting makes, and only there."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.audit.explanation.models.test_finetuning import corpus, network  # noqa: F401

from klarsicht.audit.explanation.models import classifier
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.verdicts.sensitivity.planted_data import PlantedInputImages, plan_courses
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.seeding import generator


@given(
    kinds=st.integers(1, 9), shares=st.integers(1, 5), classes=st.integers(1, 4), clean=st.integers(1, 12),
    room=st.integers(1, 12),
)  # fmt: skip
def test_courses_hold_the_whole_grid_in_as_few_trainings_as_can_be(kinds, shares, classes, clean, room):
    names, prevalences, numbers = (
        [f"k{i}" for i in range(kinds)],
        [0.1 / (i + 1) for i in range(shares)],
        range(50, 50 + clean),
    )
    planned = plan_courses(names, prevalences, classes, list(numbers), room, np.random.default_rng(0))
    held = Counter((dose.kind, dose.prevalence) for course in planned for dose in course)
    assert held == dict.fromkeys(product(names, prevalences), classes)
    most = min(room, clean, kinds)
    for course in planned:
        assert len({dose.kind for dose in course}) == len({dose.number for dose in course}) == len(course) <= most
        assert {dose.number for dose in course} <= set(numbers)
    assert len(planned) == -(-classes * shares * kinds // most)


@pytest.mark.parametrize("kind", ["tag", "noise"])
def test_planted_input_images_show_plants_on_its_rows_only_and_always_the_same(corpus, kind):  # noqa: F811
    plain = InputImages.of(corpus, classifier.load_model(network()))
    planted = PlantedInputImages(plain.corpus, plain.classifier, plain.pixel_scale, plain.shape, {3: kind, 60: kind}, 5)
    shown = planted([60, 4, 3])
    np.testing.assert_array_equal(shown[1], plain([4])[0])
    for place, row in ((0, 60), (2, 3)):
        picture = np.asarray(Image.open(corpus.paths[row]))
        expected = artifacts.PLANTS[kind](picture, generator(5, "planted", row)).pixels
        np.testing.assert_array_equal(shown[place][..., 0], expected)
        assert (shown[place] != plain([row])[0]).any()
    np.testing.assert_array_equal(shown, planted(np.array([60, 4, 3])))
