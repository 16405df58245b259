"""Three answers to harm, by intervals alone, on losses written by hand."""

import numpy as np
import pytest

from klarsicht.audit.corrections.harm import HARMFUL, HARMLESS, NOT_PROVEN, Harm, Loss
from klarsicht.audit.corrections.outcomes import expected_loss
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss

BOUND = 0.02


def loss(low, high, trained_on=False, expected=(0.0, 0.0), n=400):
    middle = (low + high) / 2
    return Loss("x", PairedLoss(middle, low, high, n, 8), Interval(sum(expected) / 2, *expected, n), BOUND, trained_on)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.01, 0.02, HARMLESS), (-0.01, 0.0201, NOT_PROVEN), (0.02, 0.05, NOT_PROVEN), (0.0201, 0.05, HARMFUL)],
)
def test_the_whole_interval_decides_and_nothing_else(low, high, answer):
    found = loss(low, high)
    assert found.answer == answer
    assert ("settled by about" in str(found)) == (answer == NOT_PROVEN)


def test_without_images_nothing_is_proven():
    found = Loss("x", NO_LOSS, NO_INTERVAL, BOUND)
    assert (found.answer, found.settled_by, str(found)) == (NOT_PROVEN, 0, "x: none")


@pytest.mark.parametrize(
    ("low", "high", "expected", "answer"),
    [
        (-0.01, 0.01, (0.0, 0.0), NOT_PROVEN),  # nothing lost there says nothing of other images
        (0.03, 0.06, (-0.001, 0.004), NOT_PROVEN),  # answers changed that the network held to be alike
        (0.03, 0.06, (0.021, 0.04), HARMFUL),  # answers changed that it was sure of
    ],
)
def test_on_images_trained_on_labels_are_not_enough(low, high, expected, answer):
    assert loss(low, high, True, expected).answer == answer


def test_one_harmful_loss_is_harm_and_all_must_be_harmless():
    within, beyond, between = loss(-0.01, 0.01), loss(0.03, 0.05), loss(-0.01, 0.03)
    assert Harm((within, within)).answer == HARMLESS
    assert Harm((within, between)).answer == NOT_PROVEN
    assert Harm((between, beyond)).answer == HARMFUL
    assert Harm((within, within)).reasons == ""
    assert Harm((within, between)).settled_by == between.settled_by > 0
    assert Harm((between, beyond)).settled_by == 0
    assert Harm((between, beyond)).to_json()["losses"][1]["lost"]["changed"] == 8


def test_the_loss_by_its_own_probabilities_is_that_of_softmax():
    before, after = np.log([[0.5, 0.4, 0.1], [0.7, 0.2, 0.1]]), np.array([[0.0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(expected_loss(before, after), [0.1, 0.0], atol=1e-12)
