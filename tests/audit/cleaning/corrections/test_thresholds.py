"""A shifted threshold is seen and undone: logits in closed form, and a network whose last bias is moved."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score
from tests.audit.shortcut import TARGET, classifier, sample

from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters, JointCorrection
from klarsicht.audit.cleaning.corrections.corrected_model import build_in
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.corrections.selection import evaluate_setting
from klarsicht.audit.cleaning.corrections.thresholds import add_bias, fit_bias
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.numerics.erasure import Eraser


@given(st.integers(0, 2**32 - 1), st.floats(-6, 6), st.integers(2, 4))
def test_a_moved_bias_is_undone_to_the_last_answer(seed, moved, classes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=200)
    before = rng.normal(size=(200, classes)) + 1.5 * np.eye(classes)[truth]
    after = before + moved * np.eye(classes)[0]
    bias = fit_bias(before, after, truth, 0)
    np.testing.assert_array_equal((after + bias * np.eye(classes)[0]).argmax(1) == 0, before.argmax(1) == 0)
    if classes == 2:
        np.testing.assert_array_equal((after + bias * np.eye(2)[0]).argmax(1), before.argmax(1))


def test_what_moves_nothing_has_no_bias():
    before = np.random.default_rng(0).normal(size=(50, 3))
    assert fit_bias(before, before, np.arange(50) % 3, 1) == 0
    scaled = 0.3 * before  # order and answers are the same
    assert fit_bias(before, scaled, np.arange(50) % 3, 1) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]))
def test_images_of_equal_margins_stay_on_one_side(seed, classes):
    """Beside every threshold that can be set: no other calls nearer to as many, classes weighing alike."""
    rng = np.random.default_rng(seed)
    truth = np.arange(30) % classes
    before, after = rng.integers(-2, 3, (2, 30, classes)).astype(float)
    bias = fit_bias(before, after, truth, 0)

    def distance(bias):
        called = [(y[:, 0] + moved > np.delete(y, 0, 1).max(1)) for y, moved in ((before, 0.0), (after, bias))]
        return abs(sum(float(called[1][truth == c].mean() - called[0][truth == c].mean()) for c in range(classes)))

    assert distance(bias) <= min(distance(one) for one in np.arange(-6, 7) + 0.5) + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.2, 2))
def test_of_two_classes_both_then_lose_the_same_recall(seed, moved, noise):
    """The mean share that is called class 0 is kept, so what one class loses of it the other gains: up to one image."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(440) >= 400).astype(int)
    before = rng.normal(size=(440, 2)) + 2 * np.eye(2)[truth]
    after = before + rng.normal(0, noise, before.shape) + moved * np.eye(2)[0]
    after[:, 0] += fit_bias(before, after, truth, 0)
    losses = np.subtract(*(recall_score(truth, y.argmax(1), average=None) for y in (before, after)))
    assert abs(losses[0] - losses[1]) <= 1 / 40 + 1e-9


class Reader(torch.nn.Module):
    """Two classes by the mean of two channels, and a third channel that is the artifact, for class 0."""

    def __init__(self):
        super().__init__()
        self.last, self.head = torch.nn.Conv2d(3, 3, 1), torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(3)[:, :, None, None])
            self.last.bias.zero_()
            self.head.weight.copy_(torch.tensor([[4.0, -4.0, 6.0], [-4.0, 4.0, -6.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.last(x).mean((2, 3)))


def unequal_classes(n=440):
    """400 images of class 0, of which a quarter carry the artifact, and 40 of class 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(n) >= 400).astype(int)
    x = rng.normal(0, 0.1, (n, 3, 1, 1))
    x[np.arange(n), labels] += 0.15
    member = np.arange(n) < 100
    x[member, 2] += 1
    images = [torch.tensor(one, dtype=torch.float32).expand(3, 4, 4) for one in x]
    return Sample(images, member, np.arange(n), labels)


def test_an_erasure_that_shifts_the_threshold_is_set_back_and_keeps_its_ranking():
    """The artifact's channel is erased to a value above that of clean images, which all of them get as a bias: AUC and
    gain are those of the erasure, recalls those of a network without the artifact's channel."""
    net = load_model((Reader().eval(), lambda image: image))
    e = np.eye(3)[:, 2:]
    test = CorrectionTest(net, unequal_classes(), 0, None, class_weights={0: 0.55, 1: 5.5})
    shifting = Erasure("last", Eraser(e, e.T, np.array([0, 0, 0.2])))
    found = test.compute_logits(shifting)
    one = evaluate_setting(test, "project", CorrectionParameters("last"), shifting, found, Bounds())
    harmed = one.outcome.recalls.largest_harm(0.02)
    assert harmed is not None and not one.within_bounds
    assert one.outcome.harm.value < 0.005  # by plain accuracy it would be chosen
    back = one.with_bias
    assert back.lost < one.lost and back.bias < 0 and back.outcome.recalls.largest_harm(0.02) is None
    assert back.gained.value == pytest.approx(one.gained.value, abs=1e-3)
    own = compute_logits(net, test.sample.images, back.correction)
    np.testing.assert_allclose(
        own - own.mean(1, keepdims=True), centred(test.add_bias(found, back.bias).plain), atol=1e-5
    )
    areas = [roc_auc_score(test.truth, y[:, 1] - y[:, 0]) for y in (found.plain, own)]
    assert areas[0] == pytest.approx(areas[1], abs=1e-4)
    built = build_in(copy.deepcopy(net.module), back.correction)
    np.testing.assert_allclose(built(torch.stack(list(test.sample.images))).detach().numpy(), own, atol=1e-5)


def centred(y):
    return y - y.mean(1, keepdims=True)


def test_a_bias_of_one_output_is_added_by_the_last_layer_or_by_none():
    net, images = classifier(), sample(20).images
    before = centred(compute_logits(net, images))
    with applied(net, add_bias(net, TARGET, 3, 1.25)):
        after = centred(compute_logits(net, images))
    wanted = 1.25 * (np.eye(3)[TARGET] - 1 / 3)
    np.testing.assert_allclose(after - before, np.tile(wanted, (20, 1)), atol=1e-4)
    narrow = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2), torch.nn.Linear(2, 9))
    assert add_bias(load_model((narrow.eval(), lambda image: torch.zeros(4, 1, 1))), 0, 9, 1.0) is None


@contextmanager
def applied(net, correction):
    with JointCorrection((correction,)).applied(net.module):
        yield
