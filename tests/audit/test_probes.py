"""Probes on a model whose mark is known: they find it before, and not after it is erased."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.probes import Carrying, balanced, on_mask, probe, second_audit
from klarsicht.audit.remedies import CLOSED, Bench, Setting


def erased():
    return CLOSED["oblique"].make(Bench(classifier(), TARGET, sample(300), place()), Setting("last", 4))


def test_the_probe_finds_the_mark_before_and_not_after():
    train, shown = (Carrying.of(sample(300, seed=s), place(), TARGET, s) for s in (2, 3))
    before = probe(classifier(), None, "last", train, shown)
    assert before.low > 0.9
    noise = Carrying(sample(300, seed=4).images, np.random.default_rng(0).random(300) < 0.5)
    assert probe(classifier(), None, "head", noise, noise.__class__(noise.images[::-1], noise.carries)).value < 0.7
    after = probe(classifier(), erased(), "head", train, shown)
    assert after.value < 0.8 < before.value


def test_balanced_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    carries, called = rng.random(300) < 0.2, rng.random(300) < 0.5
    found = balanced(called == carries, carries)
    assert found.value == pytest.approx(balanced_accuracy_score(carries, called))
    assert found.low < 0.5 < found.high


def test_relevance_on_the_mask_is_the_literal_share():
    net = classifier()
    images = [image for image, m in zip(sample(30).images, sample(30).member, strict=True) if not m][:8]
    shares = []
    for image in images:
        x = place().paste(image, np.random.default_rng(0))[None].requires_grad_()
        y = net.module(x)
        (y[0, TARGET] - y[0].mean()).backward()
        R = (x * x.grad).abs().sum(1)[0]
        shares.append(float(R[:2, :2].sum() / R.sum()))
    found = on_mask(net, images, place(), TARGET, None)
    assert found.value == pytest.approx(np.mean(shares), rel=1e-5)
    assert on_mask(net, images, place(), TARGET, erased()).value < found.value


def test_the_second_audit_finds_the_members_before_and_not_after():
    s = sample(300, seed=1)
    before, after = (second_audit(classifier(), s, TARGET, c) for c in (None, erased()))
    assert before.found > 0.95
    assert before.suspect
    assert before.z == pytest.approx(before.members, rel=0.2)
    assert not after.suspect
    assert second_audit(classifier(), sample(12), TARGET, None) is None


def test_images_of_other_classes_are_pasted_and_members_carry():
    s = sample(200)
    found = Carrying.of(s, place(), TARGET, 0)
    marked = torch.stack(list(found.images))[:, 3, :2, :2].amin((1, 2)) > 3.9
    np.testing.assert_array_equal(marked.numpy(), found.carries)
    assert not found.carries[(s.labels == TARGET) & ~s.member].any()
