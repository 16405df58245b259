"""Recalls of classes before and after a correction, against counts, closed forms and the law of equal classes."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, recall_score
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls, weigh_classes
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, NOT_PROVEN, Harm
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Logits

BOUND = 0.02
NAMES = {0: "benign", 1: "melanoma", 2: "naevus"}


def answers(*rows):
    """Recalls of class 0 and others from rows (truth, answer before, answer after, number of images)."""
    columns = [np.repeat(column, [row[3] for row in rows]) for column in np.array(rows).T[:3]]
    return ClassRecalls(*columns, (0,), NAMES)


def shifted(gone, benign=400, melanoma=40):
    """A threshold moved to benign: of 40 melanomas `gone` are lost, and 30 of 400 benign are gained."""
    return answers((0, 0, 0, benign - 30), (0, 1, 0, 30), (1, 1, 1, melanoma - gone), (1, 1, 0, gone))


def test_recalls_and_their_mean_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, before, after = (rng.integers(3, size=300) for _ in range(3))
    found = ClassRecalls(truth, before, after, (0,))
    table = {one.name: one for one in found.table()}
    for look, own in (("before", before), ("after", after)):
        shares = [getattr(table[f"class {label}"], look).value for label in range(3)]
        np.testing.assert_allclose(shares, recall_score(truth, own, average=None))
    means = [one.value for one in found.mean()]
    np.testing.assert_allclose(means, [balanced_accuracy_score(truth, own) for own in (before, after)])


@pytest.mark.parametrize("gone", [0, 1, 2, 12])
def test_a_gain_of_accuracy_by_a_shifted_threshold_is_harm_to_the_small_class(gone):
    """Plain accuracy gains in all four; two of forty melanomas may be chance, twelve are not."""
    found = shifted(gone)
    assert (found.after == found.truth).mean() > (found.before == found.truth).mean()
    assert found.is_shift(BOUND) == (gone == 12)
    harm = Harm(found.harm(BOUND))
    assert (harm.answer == HARMFUL) == bool(harm.losses) == (gone == 12)
    if gone == 12:
        assert harm.reasons.startswith("the model loses 30.00 points") and "on clean images of melanoma" in harm.reasons
        assert found.largest_harm(BOUND).transfer == found.largest_harm(BOUND).loss  # of two classes there is no third


@pytest.mark.parametrize(("goes_to", "answer"), [(0, HARMFUL), (2, NOT_PROVEN)])
def test_of_three_classes_a_loss_to_the_corrected_one_is_harm_and_to_another_a_question(goes_to, answer):
    found = answers((0, 0, 0, 400), (2, 2, 2, 300), (1, 1, 1, 28), (1, 1, goes_to, 12))
    harm = Harm(found.harm(BOUND))
    assert harm.answer == answer
    assert ("to benign: do its images carry an artifact of their own?" in harm.reasons) == (answer == NOT_PROVEN)
    assert harm.to_json()["losses"][0]["most lost"] == "melanoma"


def test_a_class_of_few_images_needs_a_large_loss_and_one_of_very_few_is_never_shown():
    of = {n: answers((0, 0, 0, 400), (1, 1, 1, n - n // 10), (1, 1, 0, n // 10)) for n in (20, 100, 400)}
    assert {n: one.largest_harm(BOUND) is not None for n, one in of.items()} == {20: False, 100: True, 400: True}
    assert answers((0, 0, 0, 400), (1, 1, 0, 9)).largest_harm(BOUND) is None
    assert answers((0, 0, 0, 400), (1, 1, 0, 10)).largest_harm(BOUND) is not None


def test_the_interval_holds_for_all_classes_together():
    """Of two classes one loses eight of fifty, which is shown; among twenty it is not."""
    rows = [(0, 0, 0, 50), (5, 5, 5, 42), (5, 5, 0, 8)]
    assert answers(*rows).largest_harm(BOUND) is not None
    rows += [(k, k, k, 50) for k in range(1, 20) if k != 5]
    assert answers(*rows).largest_harm(BOUND) is None
    assert answers(*rows)._z == pytest.approx(NormalDist().inv_cdf(1 - 0.05 / 20 / 2))


@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_with_equal_classes_the_mean_over_classes_is_plain_accuracy_to_the_bit(each, classes, seed):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(classes), each))
    assert weigh_classes(np.append(truth, [-1, -1])) == {}
    before, after = (np.where(rng.random(len(truth)) < 0.7, truth, rng.integers(classes)) for _ in range(2))
    found = ClassRecalls(truth, before, after, (0,)).mean()
    np.testing.assert_allclose([one.value for one in found], [(y == truth).mean() for y in (before, after)])


def test_weights_make_a_mean_over_images_one_over_classes():
    labels, rng = np.repeat([0, 1, 2], [500, 40, 10]), np.random.default_rng(0)
    values, weights = rng.random(550), weigh_classes(labels)
    mean = np.mean([weights[label] * value for label, value in zip(labels.tolist(), values, strict=True)])
    assert mean == pytest.approx(np.mean([values[labels == label].mean() for label in range(3)]))
    few = weigh_classes(np.repeat([0, 1], [500, 1]))  # one image does not weigh as much as five hundred
    assert few[1] / few[0] == pytest.approx(50)


def test_losses_that_are_chosen_by_weigh_classes_alike():
    """Of equal classes as the plain loss; of unequal ones as the mean of the losses of each."""
    plain = CorrectionTest(classifier(), sample(120), TARGET, place())
    worse = Logits(np.roll(plain.before.plain, 1, axis=1), plain.before.pasted)
    assert plain.balanced_loss(worse) == plain.evaluate_logits(worse).harm.value
    truth, fair = plain.truth, plain.sample.fair_draw
    kept = fair & ((truth != 1) | (np.arange(120) < 30))
    labels = truth[kept]
    few = replace(plain, sample=plain.sample.select(kept), class_weights=weigh_classes(labels))
    y, z = (np.asarray(one)[kept].argmax(1) == labels for one in (plain.before.plain, worse.plain))
    losses = [y[labels == label].mean() - z[labels == label].mean() for label in range(3)]
    assert few.balanced_loss(Logits(worse.plain[kept], worse.pasted)) == pytest.approx(np.mean(losses))


def guesses(shift, seed=0, classes=8, shown=3, each=400):
    """Logits of images of `classes` classes, before and after a change that raises the outputs of those shown."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    before = rng.normal(0, 1, (len(truth), classes)) + 1.5 * np.eye(classes)[truth]
    after = before + rng.normal(0, 0.3, before.shape) + shift * (np.arange(classes) < shown)
    return truth, before.argmax(1), after.argmax(1), truth < shown


@pytest.mark.parametrize("seed", range(5))
def test_a_gain_of_the_classes_at_hand_at_the_cost_of_others_is_harm(seed):
    """Oracle: the images of the other classes, which the audit has not."""
    truth, before, after, shown = guesses(0.6, seed)
    found = ClassRecalls(truth[shown], before[shown], after[shown], (0,), NAMES)
    right = [(answers == truth)[~shown].mean() for answers in (before, after)]
    assert (found.after == found.truth).mean() > (found.before == found.truth).mean() and right[0] - right[1] > 0.05
    moved = [((here < 3) & (there >= 3))[shown].sum() for here, there in ((after, before), (before, after))]
    assert found.predicted_less.value == pytest.approx((moved[0] - moved[1]) / shown.sum())
    harm = Harm(found.harm(BOUND))
    assert harm.answer == HARMFUL and "fewer images as classes that have no images here" in harm.reasons
    assert Harm(ClassRecalls(truth, before, after, (0,)).harm(1.0)).losses == ()  # of all classes there are images


@pytest.mark.parametrize("seed", range(5))
def test_a_change_that_favours_no_class_is_no_harm_to_classes_without_images(seed):
    truth, before, after, shown = guesses(0.0, seed)
    found = ClassRecalls(truth[shown], before[shown], after[shown], (0,), NAMES)
    assert found.harm(BOUND) == () and (before != after).mean() > 0.1
