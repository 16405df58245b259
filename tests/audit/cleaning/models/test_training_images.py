"""Images that a model was trained on, on answers written by hand."""

import numpy as np
import pytest

from klarsicht.audit.cleaning.models.training_images import LabelledAnswers, recognise_training_images


def answers(n, accuracy, confidence):
    return LabelledAnswers(np.arange(n) < round(accuracy * n), np.full(n, confidence) + np.linspace(-0.001, 0.001, n))


def test_the_manifest_says_it():
    shown = answers(100, 0.9, 0.9)
    assert recognise_training_images(shown, ["Train"] * 100).trained_on
    assert recognise_training_images(shown, ["test"] * 99 + ["training"]).trained_on
    held_out = recognise_training_images(answers(100, 1, 1), ["val"] * 100)
    assert not held_out.trained_on
    assert "split: val" in held_out.why
    assert recognise_training_images(answers(100, 1, 1), ["test"] * 50 + [""] * 50).trained_on  # not said of all


@pytest.mark.parametrize(
    ("shown", "other", "trained_on", "told"),
    [
        (answers(400, 0.87, 0.9), answers(2000, 0.998, 0.99), False, "trained on the run's own"),
        (answers(400, 0.998, 0.99), answers(2000, 0.87, 0.9), True, "99.8% right"),
        (answers(400, 0.88, 0.9), answers(2000, 0.885, 0.9), False, "of another corpus"),
        (answers(400, 0.95, 0.9), answers(400, 0.88, 0.95), False, "of another corpus"),  # less sure of them
    ],
)
def test_accuracy_and_confidence_far_above_those_of_other_images_say_it(shown, other, trained_on, told):
    found = recognise_training_images(shown, (), other)
    assert found.trained_on == trained_on
    assert told in found.why


def test_with_nothing_to_compare_with_nearly_all_must_be_right_and_sure():
    assert recognise_training_images(answers(400, 0.9975, 0.99)).trained_on
    for shown in (answers(400, 0.95, 0.99), answers(400, 1, 0.6), answers(20, 1, 1)):
        assert not recognise_training_images(shown).trained_on


def test_confidence_is_that_of_the_softmax():
    found = LabelledAnswers.of(np.log([[0.7, 0.3], [0.2, 0.8]]), np.array([0, 0]))
    np.testing.assert_allclose(found.confidence, [0.7, 0.8])
    np.testing.assert_array_equal(found.right, [True, False])
