"""Three answers to harm, by intervals alone, on losses written by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, MEMORISED, NOT_PROVEN, Harm, Loss
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss, paired_loss

BOUND = 0.02


def loss(low, high, trained_on=False, n=400):
    return Loss("x", PairedLoss((low + high) / 2, low, high, n, 8), BOUND, trained_on)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.01, 0.02, HARMLESS), (-0.01, 0.0201, NOT_PROVEN), (0.02, 0.05, NOT_PROVEN), (0.0201, 0.05, HARMFUL)],
)
def test_the_whole_interval_decides_and_nothing_else(low, high, answer):
    found = loss(low, high)
    assert found.answer == answer
    words = {HARMLESS: "within the", HARMFUL: "more than the", NOT_PROVEN: "400 images cannot exclude more than the"}
    assert f", {words[answer]} 2.00 allowed" in str(found).replace("; ", ", ")


def test_without_images_nothing_is_proven():
    found = Loss("x", NO_LOSS, BOUND)
    assert (found.answer, found.settled_by, str(found)) == (NOT_PROVEN, 0, "no x to measure a loss on")


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (-0.01, 0.01, NOT_PROVEN),  # nothing lost there says nothing of other images
        (0.03, 0.06, NOT_PROVEN),  # what was known by heart
        (BOUND * MEMORISED + 1e-4, 0.3, HARMFUL),  # more than that
    ],
)
def test_images_trained_on_prove_nothing_harmless_and_little_harmful(low, high, answer):
    found = loss(low, high, True)
    assert found.answer == answer
    assert ("the model was trained on these images" in str(found)) == (answer == NOT_PROVEN)


def test_two_of_ninety_images_are_beyond_the_bound_and_decide_nothing():
    """A true loss of half a point loses two of 90 images in more than one sample of forty (binomial distribution)."""
    assert binom.sf(1, 90, 0.005) > 0.025
    right = np.ones(90, bool)
    measured = paired_loss(right, np.arange(90) > 1)
    assert measured.value > BOUND
    found = Loss("clean images of the class", measured, BOUND)
    assert found.answer == NOT_PROVEN
    assert found.settled_by > measured.n


@pytest.mark.parametrize(("trained_on", "who"), [(False, "ten times these 21 images"), (True, "as many others")])
def test_where_nobody_has_so_many_images_a_person_is_asked_and_given_no_number(trained_on, who):
    """None of 21 right answers changes. By the rule of three, 95 % of such samples lose less than 3 / n, so some 150
    images would exclude two points at best, and half a point some 600: more than ten times 21."""
    few = Loss("clean images of the class", paired_loss(*[np.ones(21, bool)] * 2), 0.005, trained_on)
    assert few.settled_by > 600 > 10 * few.measured.n
    end = f"decide whether a loss of {100 * few.measured.high:.2f} points is acceptable"
    assert str(few).endswith(f"{who} would hardly exclude more than the 0.50 allowed: {end}")
    many = Loss("clean images of the class", paired_loss(*[np.ones(400, bool)] * 2), 0.005, trained_on)
    assert many.settled_by <= 4000 and f"about {many.settled_by:,} " in str(many)


@pytest.mark.parametrize("n", [1, 5])
def test_a_handful_of_images_is_said_to_be_too_few_without_a_number_of_points(n):
    """By the rule of three, none of n changed excludes losses and gains of 3 / n at best: 6 / n is beyond one half."""
    one = Loss("clean images of the class", paired_loss(*[np.ones(n, bool)] * 2), BOUND)
    assert one.measured.high - one.measured.low >= min(1, 6 / n) / 2
    assert str(one) == f"too few clean images of the class to measure a loss on ({n})"
    assert one.answer == NOT_PROVEN


@pytest.mark.parametrize("trained_on", [False, True])
def test_two_losses_that_nobody_has_images_to_exclude_have_one_reason(trained_on):
    """Each interval and bound is named; the clause that both had in common stands once."""
    right = np.ones(21, bool)
    losses = [Loss(kind, paired_loss(right, right), bound, trained_on) for kind, bound in (("x", 0.005), ("y", 0.02))]
    words = Harm(tuple(losses)).reasons
    assert words.count("hardly exclude") == words.count("decide whether") == words.count("the model") == 1
    assert words.count("(-15.46 to 15.46) on x") == words.count("(-15.46 to 15.46) on y") == 1
    assert "more than the 0.50 and 2.00 allowed" in words and ("trained on" in words) == trained_on
    assert len(words.split()) <= 0.75 * len(f"{losses[0]}; it also {losses[1]}".split())


def test_one_harmful_loss_is_harm_and_all_must_be_harmless():
    within, beyond, between = loss(-0.01, 0.01), loss(0.03, 0.05), loss(-0.01, 0.03)
    assert Harm((within, within)).answer == HARMLESS
    assert Harm((within, between)).answer == NOT_PROVEN
    assert Harm((between, beyond)).answer == HARMFUL
    assert Harm((within, within)).reasons == ""
    few = loss(-0.3, 0.3)
    assert (
        Harm((between, few)).reasons.count("the model") == 1 and "; it also too few" not in Harm((between, few)).reasons
    )
    assert Harm((within, between)).settled_by == between.settled_by > 0
    assert Harm((between, beyond)).settled_by == 0
    assert Harm((between, beyond)).to_json()["losses"][1]["lost"]["changed"] == 8


@pytest.mark.parametrize(
    ("low", "without", "trained_on", "answer"),
    [
        (0.03, -0.01, False, NOT_PROVEN),  # one class bears it
        (0.03, BOUND, False, NOT_PROVEN),
        (0.03, BOUND + 1e-4, False, HARMFUL),  # others lose as well
        (BOUND * MEMORISED + 0.01, -0.01, True, NOT_PROVEN),
        (BOUND * MEMORISED + 0.01, BOUND + 1e-4, True, HARMFUL),
    ],
)
def test_a_loss_that_one_other_class_bears_alone_is_not_harmful_and_the_class_is_named(
    low, without, trained_on, answer
):
    elsewhere = PairedLoss(without + 0.01, without, without + 0.02, 300, 4)
    found = Loss("x", PairedLoss(low + 0.01, low, low + 0.02, 400, 8), BOUND, trained_on, elsewhere, "bottle")
    assert found.answer == answer
    assert ("without bottle: do its images carry an artifact" in str(found)) == (answer == NOT_PROVEN)
    assert "settle" not in str(found)  # by no number of images: they would say the same
    assert Harm((found,)).to_json()["losses"][0]["most lost"] == "bottle"
