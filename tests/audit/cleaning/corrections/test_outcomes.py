"""Remaining effect and losses of a correction, against literal counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.cleaning.corrections.activations import compute_activations, compute_logits, compute_logits_jointly
from klarsicht.audit.cleaning.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, NOT_PROVEN, Bounds
from klarsicht.audit.cleaning.corrections.outcomes import (
    CorrectionTest,
    Logits,
    log_odds,
    loss_elsewhere,
    probability,
    reaches_members,
)
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.statistics.intervals import Interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS


def erase_mark(strength=1.0):
    e = np.eye(4)[:, 3:]
    return Erasure("last", Eraser(e, e.T, np.array([0.5, 0.5, 0.5, 0.1])), strength)


def literal(trial, correction):
    """Flips, accuracies and rise by one image at a time."""
    net, s = trial.classifier, trial.sample
    flipped, eligible, right, own, rises, under = 0, 0, [], [], [], []
    for image, label, member in zip(s.images, s.labels, s.member, strict=True):
        y = compute_logits(net, [image], correction)[0]
        if not member:
            right.append(y.argmax() == label)
            if label == TARGET:
                own.append(y.argmax() == label)
            else:
                z = compute_logits(net, [put_on(image, place(), np.random.default_rng(0))], correction)[0]
                eligible += y.argmax() != TARGET
                flipped += (y.argmax() != TARGET) and (z.argmax() == TARGET)
                rises.append((z[TARGET] - z.mean()) - (y[TARGET] - y.mean()))
                under.append(z.argmax() == label)
    return flipped / eligible, np.mean(right), np.mean(own), np.mean(rises), np.mean(under)


@pytest.mark.parametrize("strength", [None, 0.4, 1.0])
def test_every_figure_is_the_literal_count(strength):
    trial = CorrectionTest(classifier(), sample(), TARGET, place())
    correction = None if strength is None else erase_mark(strength)
    found = trial.evaluate(correction)
    values = (found.flips, found.accuracy, found.affected, found.rise, found.under)
    np.testing.assert_allclose([v.value for v in values], literal(trial, correction), atol=1e-6)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_the_fall_of_members_is_that_of_their_logit_less_that_of_other_images_of_the_class(strength):
    trial, correction = CorrectionTest(classifier(), sample(200), TARGET, place()), erase_mark(strength)
    falls = {True: [], False: []}
    for image, label, member in zip(trial.sample.images, trial.sample.labels, trial.sample.member, strict=True):
        if label == TARGET:
            y, z = (compute_logits(trial.classifier, [image], one)[0] for one in (None, correction))
            falls[bool(member)].append((y[TARGET] - y.mean()) - (z[TARGET] - z.mean()))
    found = trial.evaluate(correction)
    assert found.member_fall.n == len(falls[True])
    assert found.member_fall.value == pytest.approx(np.mean(falls[True]) - np.mean(falls[False]), abs=1e-5)
    assert trial.evaluate(None).member_fall.value == 0


def test_a_correction_of_what_members_do_not_carry_does_not_reach_them():
    """Members that carry the mark, and as many unmarked images of the class that are called members."""
    mark = CorrectionTest(classifier(), sample(200), TARGET, place())
    own = np.flatnonzero(~mark.sample.member & (mark.sample.labels == TARGET))
    wrong = np.isin(np.arange(len(mark.sample)), own[: len(own) // 2])
    unmarked = replace(mark, sample=replace(mark.sample, member=wrong, fair=mark.sample.fair_draw & ~wrong))
    for trial, reached in ((mark, True), (unmarked, False)):
        before, after = trial.evaluate(None), trial.evaluate(erase_mark())
        assert abs(after.rise.value) < 0.2 * before.rise.value  # on images that the mark was put on
        assert reaches_members(before.rise, after) == reached


@pytest.mark.parametrize(
    ("fall", "reached"),
    [((1.6, 0.4, 2.8, 3), True), ((0.2, -0.4, 0.8, 3), True), ((0.0, -0.4, 0.7, 3), False), ((0.9, -0.1, 1.9, 3), True),
     ((0.9, -0.1, 1.9, 10), False), ((0.9, 0.1, 1.9, 10), True), ((0.0, -9.0, 9.0, 0), True)],
)  # fmt: skip
def test_a_few_members_tell_that_they_are_not_reached_and_many_that_they_are(fall, reached):
    """Of 1.5 logits that are taken, .75 must be possible; of ten members on something must be sure. None tell nothing.
    The first four are Student's intervals of three members."""
    trial = CorrectionTest(classifier(), sample(200), TARGET, place())
    rise, left = Interval(1.6, 1.5, 1.7, 100), Interval(0.1, 0.0, 0.2, 100)
    after = replace(trial.evaluate(None), rise=left, member_fall=Interval(*fall))
    assert reaches_members(rise, after) == reached


def test_what_is_left_is_counted_in_log_odds():
    """log P / (1 - P), image by image, by softmax: a mark that lifts the class by weakening others counts as well."""
    trial, correction = CorrectionTest(classifier(), sample(), TARGET, place()), erase_mark(0.4)

    def odds(found):
        p, q = (softmax(y, 1)[:, TARGET].astype(np.float64) for y in (found.plain[trial.other_rows], found.pasted))
        return np.log(q / (1 - q)) - np.log(p / (1 - p)), q - p

    found = trial.compute_logits(correction)
    shares = [1 - after.mean() / before.mean() for after, before in zip(odds(found), odds(trial.before), strict=True)]
    gained = trial.gain(found).share
    assert gained.value == pytest.approx(min(shares), rel=1e-3)
    unchanged = trial.gain(trial.before).share
    assert (unchanged.value, unchanged.low, unchanged.high) == (0, 0, 0)  # the same images: no error


def test_the_interval_of_a_gain_is_that_of_the_bootstrap():
    trial = CorrectionTest(classifier(), sample(300), TARGET, place())
    found, rng = trial.compute_logits(erase_mark(0.4)), np.random.default_rng(0)
    after, before = (trial._rises(answers, log_odds) for answers in (found, trial.before))
    drawn = [rng.integers(0, len(after), len(after)) for _ in range(2000)]
    shares = [1 - abs(after[i].mean()) / before[i].mean() for i in drawn]
    gained, left = trial._share_taken(found, log_odds)
    assert left.mean() == pytest.approx(1 - gained.value)
    np.testing.assert_allclose((gained.low, gained.high), np.quantile(shares, (0.025, 0.975)), atol=0.01)


def test_the_interval_between_two_gains_is_that_of_the_bootstrap_over_the_same_images():
    trial, rng = CorrectionTest(classifier(), sample(300), TARGET, place()), np.random.default_rng(0)
    less, more = (trial.compute_logits(erase_mark(s)) for s in (0.6, 0.64))
    gain = trial.gain(less)
    level = {"log-odds": log_odds, "probability": probability}[gain.level]
    rises = [trial._rises(found, level).astype(np.float64) for found in (less, more, trial.before)]
    drawn = [rng.integers(0, len(rises[0]), len(rises[0])) for _ in range(2000)]
    behind = [(rises[0][i].mean() - rises[1][i].mean()) / rises[2].mean() for i in drawn]
    found = gain.behind(trial.gain(more))
    assert found.value == pytest.approx((rises[0].mean() - rises[1].mean()) / rises[2].mean()) and found.low > 0
    np.testing.assert_allclose((found.low, found.high), np.quantile(behind, (0.025, 0.975)), atol=0.1 * found.value)
    assert gain.behind(gain).value == 0
    assert gain.share.value == pytest.approx(1 - gain.left[gain.level].mean())


def test_images_that_are_turned_and_the_fall_of_the_right_label_are_counted_one_by_one():
    trial, correction = CorrectionTest(classifier(), sample(), TARGET, place()), erase_mark(2.0)
    turned, falls = [], []
    for image, label, member in zip(trial.sample.images, trial.sample.labels, trial.sample.member, strict=True):
        y, after = (compute_logits(trial.classifier, [image], one)[0] for one in (None, correction))
        if not member:
            falls.append(softmax(y)[label] - softmax(after)[label])
        if not member and label != TARGET:
            marked = put_on(image, place(), np.random.default_rng(0))
            z = compute_logits(trial.classifier, [marked])[0]
            turned.append(int(z.argmax() == TARGET) - int(y.argmax() == TARGET))
    found = trial.evaluate(None).turned
    assert (found.value, found.n) == (pytest.approx(np.mean(turned)), len(turned))
    assert found.low < found.value <= found.high + 1e-9
    assert trial.fall(trial.compute_logits(correction)).value == pytest.approx(np.mean(falls), abs=1e-6)
    assert not CorrectionTest(classifier(), sample(), TARGET, None).evaluate(None).turned.n


def test_what_is_left_of_an_overshoot_counts_as_what_is_left():
    trial = CorrectionTest(classifier(), sample(), TARGET, place())
    whole, twice = (trial.gain(trial.compute_logits(erase_mark(s))).share for s in (1.0, 2.0))
    assert whole.value > 0.85
    assert twice.value < 0.2


def test_harm_is_what_accuracy_lost():
    trial = CorrectionTest(classifier(), sample(), TARGET, place())
    before, after = trial.evaluate(None), trial.evaluate(erase_mark(3.0))
    assert after.harm.value == pytest.approx(before.accuracy.value - after.accuracy.value)
    assert after.harm_affected.value == pytest.approx(before.affected.value - after.affected.value)
    assert before.harm.value == 0


def test_a_broken_bound_is_named_with_its_figures():
    class Blind:
        def applied(self, module):
            return Erasure("last", Eraser(np.eye(4), np.eye(4), np.zeros(4))).applied(module)

    found = CorrectionTest(classifier(), sample(), TARGET, place()).evaluate(Blind())
    told = found.harm_answer(Bounds())
    assert told.answer == HARMFUL
    assert "clean images" in told.reasons
    assert "more than the 0.50 allowed" in told.reasons
    assert found.harm_answer(Bounds(1, 1)).answer == HARMLESS
    few = CorrectionTest(classifier(), sample(12), TARGET, place()).evaluate(None).harm_answer(Bounds())
    assert few.answer == NOT_PROVEN
    assert "images" in few.reasons


def test_where_labels_are_unknown_a_changed_answer_is_a_loss():
    unlabelled = replace(sample(), labels=np.full(120, -1))
    trial = CorrectionTest(classifier(), unlabelled, TARGET, place())
    assert trial.evaluate(None).accuracy.value == 1
    assert trial.evaluate(erase_mark(3.0)).harm.value >= 0
    assert trial.evaluate(None).affected.n == 0


def test_without_a_place_the_rise_is_that_of_the_members():
    s = sample()
    found = CorrectionTest(classifier(), s, TARGET, None).evaluate(None)
    y = compute_logits(classifier(), s.images)
    c = y[:, 0] - y.mean(1)
    own = ~s.member & (s.labels == 0)
    assert found.rise.value == pytest.approx(c[s.member].mean() - c[own].mean(), rel=1e-5)
    assert found.flips.n == 0


def test_activations_are_what_the_layer_receives_and_positions_are_paired():
    s = sample(9, side=12)
    found = compute_activations(classifier(), s.images, "last")
    x = torch.stack(list(s.images))
    np.testing.assert_allclose(found.pooled, x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.spread, x.amax((2, 3)) - x.mean((2, 3)), atol=1e-6)
    assert found.positions.shape == (9 * 32, 4)
    shifted = compute_activations(classifier(), [image + 1 for image in s.images], "last")
    np.testing.assert_allclose(shifted.positions - found.positions, 1, atol=1e-5)


def test_images_of_different_sizes_are_batched_in_order():
    images = [torch.full((4, 2 + i % 3, 4), float(i)) for i in range(20)]
    np.testing.assert_allclose(compute_logits(classifier(), images)[:, 1], 4 * np.arange(20), atol=1e-4)


class Passing(torch.nn.Module):
    """Something passes `last` by: x + last(x)."""

    def __init__(self):
        super().__init__()
        self.last, self.head = torch.nn.Conv2d(4, 4, 1), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head((x + self.last(x)).mean((2, 3)))


@pytest.mark.parametrize("net", [classifier(), load_model((Passing().eval(), classifier().transform))])
def test_corrections_abreast_answer_as_they_do_one_by_one(net):
    trial = CorrectionTest(net, sample(40), TARGET, place())
    corrections = [erase_mark(strength) for strength in (0.4, 1.0, 2.0)]
    for found, correction in zip(trial.compute_logits_jointly(corrections), corrections, strict=True):
        np.testing.assert_allclose(found.plain, compute_logits(net, trial.sample.images, correction), atol=1e-5)
        np.testing.assert_allclose(found.pasted, compute_logits(net, trial.pasted_images, correction), atol=1e-5)
    assert not net.module.get_submodule("last")._forward_pre_hooks


def test_an_erasure_for_a_predicted_class_is_answered_from_its_erasure():
    """As it answers by itself, and without a run of its own."""
    trial, erasure = CorrectionTest(classifier(), sample(40), TARGET, place()), erase_mark()
    corrections = [erasure, WhenPredicted(erasure, TARGET), erase_mark(0.5), WhenPredicted(erase_mark(0.3), TARGET)]
    for found, correction in zip(trial.compute_logits_jointly(corrections), corrections, strict=True):
        alone = trial.compute_logits(correction)
        np.testing.assert_allclose(found.plain, alone.plain, atol=1e-5)
        np.testing.assert_allclose(found.pasted, alone.pasted, atol=1e-5)


def test_erasures_at_one_layer_run_what_comes_before_it_once():
    net, images = classifier(), sample(40).images
    rows = []
    handle = net.module.get_submodule("body").register_forward_hook(lambda _, inputs, y: rows.append(len(y)))
    compute_logits_jointly(net, images, [erase_mark(), erase_mark(0.5)])
    handle.remove()
    assert sum(rows) == len(images)


def test_the_class_that_loses_most_is_left_out_of_a_second_loss():
    """Class 1, of 30 images, loses 5 and wins 1; class 2 loses 1; the target, class 0, loses 8 and is kept."""
    truth = np.repeat([0, 1, 2], 30)
    was, right = np.ones(90, bool), np.ones(90, bool)
    right[[*range(8), *range(30, 35), 60]] = False
    was[40] = False
    found, most = loss_elsewhere(was, right, truth, [0])
    assert most == 1
    assert (found.value, found.changed, found.n) == (pytest.approx(9 / 60), 9, 60)
    assert loss_elsewhere(was[:60], right[:60], truth[:60], [0]) == (NO_LOSS, None)  # one other class
    assert loss_elsewhere(was, was, truth, [0]) == (NO_LOSS, None)
    assert loss_elsewhere(was, right, truth, [0, 1]) == (NO_LOSS, None)  # one class that is not corrected
    four = np.append(truth, np.full(30, 3))
    longer, fell = np.append(was, np.ones(30, bool)), np.append(right, np.ones(30, bool))
    found, most = loss_elsewhere(longer, fell, four, [0, 1])
    assert (most, found.changed, found.n) == (2, 14, 90)
    trial = CorrectionTest(classifier(), sample(300), TARGET, place(), names={1: "one", 2: "two"})
    erased = trial.evaluate_logits(Logits(np.roll(trial.before.plain, 1, axis=1), trial.before.pasted))
    lost = trial.before.plain.argmax(1) == trial.truth
    kept = trial.sample.fair_draw & (trial.truth != {"one": 1, "two": 2}[erased.most_lost])
    right = np.roll(trial.before.plain, 1, axis=1).argmax(1) == trial.truth
    assert erased.harm_elsewhere.value == pytest.approx(lost[kept].mean() - right[kept].mean())
    assert erased.to_json()["most_lost"] == erased.most_lost
