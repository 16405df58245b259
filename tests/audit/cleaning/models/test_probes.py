"""Probes on a model whose mark is known: they find it before, and not after it is erased."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tests.audit.shortcut import TARGET, Shortcut, classifier, place, sample

from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.models.probes import (
    CarrierLabels,
    audit_again,
    balanced_accuracy,
    probe_layer,
    relevance_share,
)
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.numerics.erasure import Eraser


def erased():
    return CLOSED["oblique"].make(
        FittingData(classifier(), TARGET, sample(300), place()), CorrectionParameters("last", 4)
    )


def test_the_probe_finds_the_mark_before_and_not_after():
    train, shown = (CarrierLabels.of(sample(300, seed=s), place(), TARGET, s) for s in (2, 3))
    before = probe_layer(classifier(), None, "last", train, shown)
    assert before.low > 0.9
    noise = CarrierLabels(sample(300, seed=4).images, np.random.default_rng(0).random(300) < 0.5)
    assert (
        probe_layer(classifier(), None, "head", noise, noise.__class__(noise.images[::-1], noise.carries)).value < 0.7
    )
    after = probe_layer(classifier(), erased(), "head", train, shown)
    assert after.value < 0.8 < before.value


def test_a_correction_of_the_images_taken_for_one_class_is_probed_on_all_images():
    """Images of three classes: the correction runs a part of each batch again, and the labels are of the whole."""
    fitted = FittingData(classifier(), TARGET, sample(300), place())
    correction = CLOSED["reactive-class"].make(fitted, CorrectionParameters("last", 4))
    train, shown = (CarrierLabels.of(sample(300, seed=s), place(), TARGET, s) for s in (2, 3))
    before, after = (probe_layer(classifier(), c, "head", train, shown) for c in (None, correction))
    assert after.n == before.n == 300
    assert after.value < before.value


def test_balanced_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    carries, called = rng.random(300) < 0.2, rng.random(300) < 0.5
    found = balanced_accuracy(called == carries, carries)
    assert found.value == pytest.approx(balanced_accuracy_score(carries, called))
    assert found.low < 0.5 < found.high


def test_relevance_on_the_mask_is_the_literal_share():
    net = classifier()
    images = [image for image, m in zip(sample(30).images, sample(30).member, strict=True) if not m][:8]
    shares = []
    for image in images:
        x = put_on(image, place(), np.random.default_rng(0))[None].requires_grad_()
        y = net.module(x)
        (y[0, TARGET] - y[0].mean()).backward()
        R = (x * x.grad).abs().sum(1)[0]
        shares.append(float(R[:2, :2].sum() / R.sum()))
    found = relevance_share(net, images, place(), TARGET, None)
    assert found.value == pytest.approx(np.mean(shares), rel=1e-5)
    assert relevance_share(net, images, place(), TARGET, erased()).value < found.value


def test_the_second_audit_finds_the_members_before_and_not_after():
    s = sample(300, seed=1)
    before, after = (audit_again(classifier(), s, TARGET, c) for c in (None, erased()))
    assert before.found > 0.95
    assert before.suspect
    assert before.z == pytest.approx(before.members, rel=0.2)
    assert not after.suspect
    assert audit_again(classifier(), sample(12), TARGET, None) is None


def test_images_of_other_classes_are_pasted_and_members_carry():
    s = sample(200)
    found = CarrierLabels.of(s, place(), TARGET, 0)
    marked = torch.stack(list(found.images))[:, 3, :2, :2].amin((1, 2)) > 3.9
    np.testing.assert_array_equal(marked.numpy(), found.carries)
    assert not found.carries[(s.labels == TARGET) & ~s.member].any()


class Noisy(Shortcut):
    """A network whose logits have the rounding of another processor: a few units in the last place, drawn."""

    def __init__(self, seed):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def forward(self, x):
        y = super().forward(x)
        units = torch.from_numpy(self.rng.integers(-8, 9, y.shape)).to(y)
        return y + units * torch.finfo(y.dtype).eps * y.abs().max()


@pytest.mark.parametrize("seed", range(8))
def test_evidence_that_does_not_vary_is_none_whatever_the_processors_rounding(seed):
    s, eraser = sample(300, seed=1), erased()
    net = replace(classifier(), module=Noisy(seed).eval())
    before, after = (audit_again(net, s, TARGET, c) for c in (None, eraser))
    assert before.suspect
    assert before.varies
    assert not after.varies
    assert not after.suspect
    assert abs(after.z) < 0.01 > abs(after.members)
    assert "does not vary" in after.summary


def test_a_rise_that_is_a_hundredth_of_what_it_was_is_not_suspect():
    """Logits scaled by .01: the same clusters, the same z of the cluster by itself, and nothing left that matters."""
    s = sample(300, seed=1)
    weak = Erasure("head", Eraser(np.eye(4), np.eye(4), np.zeros(4)), strength=0.99)
    before, after = (audit_again(classifier(), s, TARGET, c) for c in (None, weak))
    assert after.shift == pytest.approx(before.shift / 100, rel=0.2)
    assert after.varies
    assert not after.suspect
