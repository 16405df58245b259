"""Erasures at sums of two branches: as their formula in the network written out, and built in, exported, saved and
without klarsicht alike."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.shortcut import FACTS
from torch import nn

from klarsicht.audit.cleaning.corrections import corrected_model, packages
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, WhenPredicted
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layers, correction_tensors
from klarsicht.audit.explanation.networks.hooks import late_layer
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.erasure import oblique_eraser


class Residual(nn.Module):
    """Images (B, 3, h, h): two branches written out, no module holds their sum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.f, self.g = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.f(x)
        y += x
        y = torch.relu(y)
        y = y + torch.relu(self.g(y))
        return self.head(y.mean((2, 3)))


class Tokens(nn.Module):
    """A class token and four patches, with a sum of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.f, self.head = nn.Conv2d(3, 5, 2, 2), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([x[:, :1] * 0.5, x], 1)
        return self.head((x + torch.tanh(self.f(x).roll(1, 1)))[:, 0])


def classifier(net):
    return load_model((net.eval(), lambda image: torch.zeros(3, 4, 4)))


def eraser(seed):
    rng = np.random.default_rng(seed)
    V, z, A = rng.standard_normal((5, 2)), rng.standard_normal(5), rng.standard_normal((9, 5))
    return oblique_eraser(V, A.T @ A, z)


def gate():
    return Gate(np.random.default_rng(9).standard_normal(5).astype(np.float32), 0.3)


def taken(a, part):
    """a - s g L R (a - z) of the last axis, in double precision."""
    rows = a.double()
    amount = (rows - torch.as_tensor(part.eraser.reference)) @ torch.as_tensor(part.eraser.left @ part.eraser.right).T
    if part.gate is not None:
        seen = rows.flatten(1, -2).mean(1) @ torch.as_tensor(part.gate.weight).double() + part.gate.bias
        amount = amount * torch.sigmoid(seen).reshape(-1, *[1] * (rows.ndim - 1))
    return (rows - part.strength * amount).to(a.dtype)


def by_formula(net, x, first, second):
    """The residual network with erasures at its two sums; the channels are put last."""

    def branch(layer, a):
        return a @ layer.weight.flatten(1).T + layer.bias

    x = x.movedim(1, -1) @ net.stem.weight.flatten(1).T + net.stem.bias
    y = torch.relu(taken(branch(net.f, x) + x, first))
    y = taken(y + torch.relu(branch(net.g, y)), second)
    return net.head(y.mean((1, 2)))


FIRST = Erasure(":sum1", eraser(0), 0.8, gate=gate(), channels=1)
SECOND = Erasure(":sum2", eraser(1), channels=1)
BOTH = JointCorrection((FIRST, SECOND))


def every_way(folder, network, correction, x):
    """Logits by the correction itself, loaded, built in, built in and pickled, exported, and without klarsicht."""

    def under(found):
        with found.applied(network()) as module:
            return module(x)

    plain = classifier(network())
    record = packages.save_correction(folder, correction, FACTS, plain, x[0])
    assert record["exported"]
    built = corrected_model.build_in(network(), correction)
    space = {"__file__": str(folder / "corrected.py"), "__name__": "corrected"}
    exec(compile((folder / "corrected.py").read_text(), "corrected.py", "exec"), space)
    return {
        "itself": under(correction), "loaded": under(packages.load_correction(folder)[0]), "built": built(x),
        "copied": copy.deepcopy(built)(x), "pickled": pickle.loads(pickle.dumps(built))(x),
        "exported": torch.export.load(folder / "model.pt2").module()(x), "alone": space["corrected"](network())(x),
    }  # fmt: skip


def test_an_erasure_at_sums_is_its_formula_in_every_way(tmp_path):
    x = torch.rand(6, 3, 4, 4)
    with torch.no_grad():
        expected = by_formula(Residual(), x, FIRST, SECOND)
        assert (expected - Residual()(x)).abs().max() > 0.05
        for way, found in every_way(tmp_path, Residual, BOTH, x).items():
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=way)


def test_a_class_token_in_a_sum_has_an_eraser_of_its_own(tmp_path):
    own = Erasure(":sum1", eraser(0), channels=-1, leading=(eraser(3),))
    x, net = torch.rand(6, 3, 4, 4), Tokens()
    with torch.no_grad():
        t = net.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([t[:, :1] * 0.5, t], 1)
        expected = net.head(taken((t + torch.tanh(net.f(t).roll(1, 1)))[:, :1], Erasure("", eraser(3)))[:, 0])
        for way, found in every_way(tmp_path, Tokens, own, x).items():
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=way)


def test_a_restored_sum_is_its_formula_in_every_way(tmp_path):
    """Half of the images are recognised, by features that are written out here; the others keep their answers."""
    rng = np.random.default_rng(5)
    axes, w = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal(9).astype(np.float32)
    e = replace(eraser(1), offset=rng.standard_normal(5))
    x, net = torch.rand(8, 3, 4, 4), Residual()
    with torch.no_grad():
        y = net.stem(x)
        y = torch.relu(net.f(y) + y)
        y = (y + torch.relu(net.g(y))).movedim(1, -1)
        along = (y.flatten(1, 2) @ torch.from_numpy(axes)).numpy()
        r = np.stack([np.corrcoef(one.T)[np.triu_indices(3, 1)] for one in along])
        scores = np.concatenate([along.mean(1), along.max(1) - along.mean(1), r], 1) @ w
        gate = Gate(w, -float(np.median(scores)), axes)
        erased = taken(y, Erasure("", e)) - torch.from_numpy(e.offset).float()
        y = torch.where(torch.from_numpy(scores > np.median(scores))[:, None, None, None], erased, y)
        expected = net.head(y.mean((1, 2)))
        assert ((expected - net(x)).abs().amax(1) > 0.01).sum() == 4
        for way, found in every_way(tmp_path, Residual, Erasure(":sum2", e, gate=gate, channels=1), x).items():
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=way)


def test_a_sum_is_corrected_for_the_predicted_class_alone(tmp_path):
    x, net = torch.rand(40, 3, 4, 4), Residual()
    with torch.no_grad():
        net.head.bias -= net(x).mean(0)
        plain, erased = net(x), by_formula(net, x, Erasure("", eraser(1), 0.0), SECOND)
        is_taken = plain.argmax(1) == (target := int(plain.argmax(1).mode().values))
        assert is_taken.any() and not is_taken.all()
        expected = torch.where(is_taken[:, None], erased, plain)
        correction = WhenPredicted(SECOND, target)
        packages.save_correction(tmp_path, correction, FACTS)
        space = {"__file__": str(tmp_path / "corrected.py"), "__name__": "corrected"}
        exec(compile((tmp_path / "corrected.py").read_text(), "corrected.py", "exec"), space)
        alone = space["corrected"](copy.deepcopy(net))(x)
        with correction.applied(net):
            torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rules", ["EpsilonPlusFlat", "GradientTimesInput"])
def test_relevance_passes_a_gate_at_a_sum_as_it_passes_the_gates_share_of_the_erasure(rules):
    """Held fixed, a gate of .3 is an erasure of three tenths of the strength."""
    fixed = Gate(np.zeros(5, np.float32), float(np.log(0.3 / 0.7)))
    both = (replace(FIRST, gate=fixed), replace(FIRST, gate=None, strength=0.3 * FIRST.strength))
    x, targets = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    maps = [
        explain(classifier(corrected_model.build_in(Residual(), one)), x, targets, method=rules).maps for one in both
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * np.abs(maps[1]).max())
    plain = explain(classifier(Residual()), x, targets, method=rules).maps
    assert np.abs(maps[0] - plain).max() > 1e-3


def test_a_network_with_an_erased_sum_has_its_layers_and_another_identity():
    net, built = Residual(), corrected_model.build_in(Residual(), BOTH)
    assert late_layer(built, "head") == late_layer(net, "head")
    assert correction_layers(built, "head") == correction_layers(net, "head")
    assert dict(built.named_parameters()).keys() == dict(net.named_parameters()).keys()
    assert classifier(built).identity != classifier(net).identity


def test_sums_are_offered_and_an_unknown_one_is_refused():
    assert correction_tensors(classifier(Residual()), torch.rand(3, 4, 4)) == ("f", "g", "head", ":sum1", ":sum2")
    net = Residual()
    with pytest.raises(UsageError, match="stem"), Erasure("sten:sum1", eraser(0)).applied(net):
        net(torch.rand(2, 3, 4, 4))
