"""Corrections of a model whose shortcut is one channel: they take it away, the controls do not."""

import numpy as np
import pytest
import torch
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.cleaning.corrections import clarc, closed_form
from klarsicht.audit.cleaning.corrections.activations import compute_activations
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.ground.errors import InputError


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
    pooled = torch.from_numpy(compute_activations(b.classifier, s.images, "last").pooled)[:, None]
    p = clarc.open_gate(pooled, {name: torch.from_numpy(value).float() for name, value in gate.parts.items()})
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


def facts(known):
    return [known.positions.first, known.positions.effects, known.positions.covariance, known.members, known.clean]


@pytest.mark.parametrize("bytes_of_a_pass", [1, closed_form.PASS_BYTES])
def test_layers_that_are_fitted_together_are_to_the_bit_those_fitted_alone(monkeypatch, bytes_of_a_pass):
    """However many passes: the artifact is put on the same images, and the same rows are drawn."""
    monkeypatch.setattr(closed_form, "PASS_BYTES", bytes_of_a_pass)
    together, layers = bench(), ("body", "last", "head")
    together.fit_layers(layers)
    for layer in layers:
        for a, b in zip(*(facts(one.layer_statistics(layer)) for one in (together, bench())), strict=True):
            np.testing.assert_array_equal(a, b)


def test_all_layers_cost_as_many_images_as_one(monkeypatch):
    def images_seen(layers):
        data, seen = bench(), []
        data.classifier.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        data.fit_layers(layers)
        data.layer_statistics(layers[0])
        return sum(seen)

    clean = int((~sample(300).member).sum())
    assert images_seen(("last",)) == images_seen(("body", "last", "head")) == 1 + 300 + 2 * clean
    monkeypatch.setattr(closed_form, "PASS_BYTES", 1)
    assert images_seen(("body", "last", "head")) == 1 + 3 * (300 + 2 * clean)


def test_a_layer_where_members_do_not_differ_is_refused_each_time_and_looked_at_once():
    data, seen = FittingData(classifier(), TARGET, sample(300), None), []
    with torch.no_grad():
        data.classifier.module.body.weight.zero_()  # behind it all images are alike
    data.classifier.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    data.fit_layers(("body", "last"))
    looked = sum(seen)
    for _ in range(2):
        with pytest.raises(InputError, match="do not differ at this layer"):
            data.layer_statistics("last")
    assert data.layer_statistics("body").positions.first.any()
    assert sum(seen) == looked


def test_members_are_compared_with_their_class_or_where_it_has_too_few_clean_images_with_all():
    some = sample(300)
    own = ~some.member & (some.labels == TARGET)
    for fewest, others in ((own.sum(), own), (own.sum() + 1, ~some.member)):
        data = FittingData(classifier(), TARGET, some, place(), fewest_clean=int(fewest))
        np.testing.assert_array_equal(data.compared_rows, some.member | others)
