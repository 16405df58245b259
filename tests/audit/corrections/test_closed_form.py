"""Corrections of a model whose shortcut is one channel: they take it away, the controls do not."""

import numpy as np
import pytest
import torch
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.corrections.activations import compute_activations
from klarsicht.audit.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.corrections.outcomes import CorrectionTest


def bench(**more):
    return FittingData(classifier(), TARGET, sample(300), place(), **more)


def trial():
    return CorrectionTest(classifier(), sample(300, seed=1), TARGET, place())


@pytest.mark.parametrize("layer", ["last", "head"])
@pytest.mark.parametrize("method", ["oblique", "reactive", "reactive-class"])
def test_oblique_corrections_take_the_mark_away_and_cost_nothing(method, layer):
    found = trial().evaluate(CLOSED[method].make(bench(), CorrectionParameters(layer)))
    before = trial().evaluate(None)
    assert before.flips.value > 0.5
    assert found.flips.value < 0.05
    assert found.harm.value <= 0.02


def test_projection_takes_it_away_too():
    found = trial().evaluate(CLOSED["project"].make(bench(), CorrectionParameters("last")))
    assert found.flips.value < 0.05


@pytest.mark.parametrize("method", ["nothing", "random"])
def test_baselines_leave_it(method):
    assert trial().evaluate(CLOSED[method].make(bench(), CorrectionParameters("last"))).flips.value > 0.3


@pytest.mark.parametrize("kind", ["pattern", "svm", "logistic", "ridge"])
def test_every_kind_of_direction_holds_the_mark(kind):
    """Weights also hold what the mark hides; so only the pattern may be expected to take the mark away whole."""
    assert bench(kind=kind).layer_statistics("last").positions.first[3] > 0.2
    before, found = (
        trial().evaluate(None),
        trial().evaluate(CLOSED["project"].make(bench(kind=kind), CorrectionParameters("last"))),
    )
    assert found.rise.value < before.rise.value


def test_the_direction_is_the_channel_of_the_mark():
    known = bench().layer_statistics("last").positions
    assert known.first[3] > 0.9  # the rest is what the mark hides
    first = known.directions(2)[:, 0]
    np.testing.assert_allclose(first / np.linalg.norm(first), known.first, atol=1e-6)
    assert known.directions(9).shape[1] <= 4


def test_the_reference_is_the_mean_of_clean_positions_only():
    b = bench()
    clean = torch.stack([i for i, m in zip(b.fit.images, b.fit.member, strict=True) if not m])
    np.testing.assert_allclose(b.layer_statistics("last").positions.reference, clean.mean((0, 2, 3)), atol=1e-5)


def test_a_gate_is_open_for_marked_images_and_shut_for_clean_ones():
    b, s = bench(), sample(200, seed=2)
    gate = b.layer_statistics("last").gate
    p = gate(torch.from_numpy(compute_activations(b.classifier, s.images, "last").pooled)[:, None])[:, 0, 0]
    assert p[s.member].mean() > 0.9
    assert p[~s.member].mean() < 0.1


def test_the_model_is_bit_equal_after_fitting_and_trying():
    b = bench()
    before = {k: v.clone() for k, v in b.classifier.module.state_dict().items()}
    for remedy in CLOSED.values():
        CorrectionTest(b.classifier, sample(30, seed=3), TARGET, place()).evaluate(
            remedy.make(b, CorrectionParameters("last"))
        )
    assert all(torch.equal(before[k], v) for k, v in b.classifier.module.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in b.classifier.module.modules())


def test_without_a_place_members_say_what_the_artifact_adds():
    b = FittingData(classifier(), TARGET, sample(300), None)
    found = CorrectionTest(b.classifier, sample(300, seed=1), TARGET, place()).evaluate(
        CLOSED["oblique"].make(b, CorrectionParameters("last"))
    )
    assert found.flips.value < 0.05
