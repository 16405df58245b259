"""Corrections that train: gradients against finite differences, baselines as they are defined, models given back."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.shortcut import TARGET, classifier, place, sample
from torch import nn

from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.retraining import (
    RETRAINED,
    CorrectionTask,
    FrozenNorms,
    RetrainedWeights,
    label_loss,
    penalty,
)
from klarsicht.ground.errors import UsageError


def bench(**more):
    return FittingData(classifier(), TARGET, sample(300), place(), **{"steps": 80, "batch": 32, "rate": 0.05} | more)


def effect(correction):
    return CorrectionTest(classifier(), sample(300, seed=1), TARGET, place()).evaluate(correction)


@pytest.mark.parametrize("method", ["augment", "augment-latent", "penalise"])
def test_training_takes_the_mark_away(method):
    found = effect(RETRAINED[method].make(bench(), CorrectionParameters("last")))
    assert effect(None).flips.value > 0.5
    assert found.flips.value < 0.1
    assert found.accuracy.value > 0.95


def test_fine_tuning_alone_leaves_it():
    assert effect(RETRAINED["fine-tune"].make(bench(rate=1e-3), CorrectionParameters())).flips.value > 0.5


@pytest.mark.parametrize("method", RETRAINED)
def test_the_model_is_bit_equal_outside_its_context(method):
    b = bench(steps=3)
    net, x = b.classifier.module, torch.rand(5, 4, 4, 4)
    before, plain = copy.deepcopy(net.state_dict()), net(x)
    correction = RETRAINED[method].make(b, CorrectionParameters("last"))
    with correction.applied(net):
        assert not torch.equal(net(x), plain)
    assert torch.equal(net(x), plain)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_between_two_networks_every_number_lies_on_the_straight_line():
    torch.manual_seed(0)
    old, new = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    for count, net in enumerate((old, new)):
        for _ in range(1 + count):
            net(torch.rand(8, 3))  # its means and variances follow
    change, held = RetrainedWeights.between(old, new), old.state_dict()
    for share in (0.0, 0.3, 1.0):
        for name, value in change.interpolate(old, share).state.items():
            whole = name.endswith("num_batches_tracked")
            between = held[name] if whole else (1 - share) * held[name] + share * new.state_dict()[name]
            torch.testing.assert_close(value, between)
    assert {"0.weight", "1.running_var", "1.num_batches_tracked"} <= change.state.keys()
    assert all(torch.equal(held[name], value) for name, value in change.interpolate(old, 0).state.items())


def test_weights_come_back_after_an_error():
    net = classifier().module
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError), RetrainedWeights({"head.bias": torch.ones(3)}).applied(net):
        raise ValueError
    assert torch.equal(net.state_dict()["head.bias"], before["head.bias"])


@pytest.mark.parametrize("layer", ["2", "5"])
def test_the_penalty_is_the_squared_slope_along_v_by_finite_differences(layer):
    """d logit / d t for a shift of every position along v."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    ).double()
    x, v = torch.randn(6, 2, 5, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    _, found = penalty(net, net, (x,), layer, [v], 1)
    k, h = int(layer), 1e-5

    def shifted(t):
        a = net[:k](x)
        return net[k:](a + t * (v[:, None, None] if a.ndim == 4 else v))[:, 1]

    slope = (shifted(h) - shifted(-h)) / (2 * h)
    assert found.item() == pytest.approx((slope**2).mean().item(), rel=1e-6)


def test_the_gradient_of_the_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, v, w = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64), net[0].weight

    def cost():
        return penalty(net, net, (x,), "0", [v], 0)[1]

    x.requires_grad_()
    (found,) = torch.autograd.grad(cost(), w)
    for i, j in ((0, 0), (2, 1), (3, 2)):
        values = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                w[i, j] += h
            values.append(cost().item())
            with torch.no_grad():
                w[i, j] -= h
        assert found[i, j].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_dfr_weighs_groups_alike():
    """A head fitted on groups of equal weight does not prefer the group that happens to be large."""
    correction = RETRAINED["dfr"].make(bench(), CorrectionParameters())
    assert set(correction.state) == {"head.weight", "head.bias"}
    assert effect(correction).accuracy.value > 0.9


def test_dfr_needs_a_linear_head_and_augment_a_place():
    with pytest.raises(UsageError, match="place"):
        RETRAINED["augment"].make(replace(bench(), insertion=None), CorrectionParameters())


def test_batches_paste_on_all_classes_and_name_their_groups():
    b = bench(batch=200)
    images, truth, groups = CorrectionTask(b, label_loss, 0.5).batch(0, 0)
    on = groups % 2 == 1
    assert 0.4 < on.float().mean() < 0.75
    assert set(truth[on].tolist()) == {0, 1, 2}
    assert torch.equal(groups // 2, truth)
    marked = images[:, 3, :2, :2].amin((1, 2)) > 3.9
    assert torch.equal(marked, on)
    again = CorrectionTask(b, label_loss, 0.5).batch(0, 0)
    assert torch.equal(again[0], images)


def test_batches_are_drawn_by_weight():
    """Images of weight 3 come three times as often as those of weight 1."""
    first = np.arange(300) < 150
    b = bench(batch=4000)
    b = replace(b, fit=replace(b.fit, weight=np.where(first, 3.0, 1.0)))
    images, *_ = CorrectionTask(b, label_loss).batch(0, 0)
    heavy = {image.numpy().tobytes() for image in b.fit.images[:150]}
    share = np.mean([image.numpy().tobytes() in heavy for image in images])
    assert share == pytest.approx(0.75, abs=0.03)


def test_a_steady_network_stays_in_evaluation():
    net = FrozenNorms(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())).train()
    assert not any(m.training for m in net.modules())
    np.testing.assert_allclose(net.body[0].running_mean, 0)
