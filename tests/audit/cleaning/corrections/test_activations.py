"""Inputs of a layer, on a network whose layers pass their input on."""

import numpy as np
import pytest
import torch
from tests.audit.shortcut import classifier, sample
from torch import nn

from klarsicht.audit.cleaning.corrections import activations
from klarsicht.audit.cleaning.corrections.activations import (
    POSITIONS,
    compute_activations,
    compute_activations_at,
    compute_logits,
    compute_logits_jointly,
)
from klarsicht.audit.cleaning.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import Tap
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, change_sum
from klarsicht.ground.errors import ModelError
from klarsicht.numerics.erasure import orthogonal_eraser


def test_pooled_inputs_are_the_means_of_what_the_layer_receives():
    some = sample(10)
    found = compute_activations(classifier(), some.images, "last")
    x = torch.stack(list(some.images))
    np.testing.assert_allclose(found.pooled, x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.spread, x.amax((2, 3)) - x.mean((2, 3)), atol=1e-6)


def test_images_of_different_sizes_are_answered_in_order():
    images = [torch.full((4, 2 + i % 3, 4), float(i)) for i in range(20)]
    np.testing.assert_allclose(compute_logits(classifier(), images)[:, 1], 4 * np.arange(20), atol=1e-4)


@pytest.mark.parametrize("layer", ["body", "last", "head"])
def test_each_image_is_measured_in_the_run_that_gave_its_answer(layer):
    """Of a correction of one class, only the images that the plain model takes for it are measured corrected."""
    some, model = sample(30), classifier()
    erasure = Erasure("last", orthogonal_eraser(np.eye(4)[:, 3:], np.zeros(4)))
    taken = compute_logits(model, some.images).argmax(1) == 0
    plain, erased = (compute_activations(model, some.images, layer, c).pooled for c in (None, erasure))
    found = compute_activations(model, some.images, layer, WhenPredicted(erasure, 0)).pooled
    assert 0 < taken.sum() < 30
    np.testing.assert_allclose(found, np.where(taken[:, None], erased, plain), atol=1e-6)


def test_erasures_at_a_layer_that_runs_twice_are_those_one_after_another():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 4)

        def forward(self, x):
            return self.head(self.inner(self.inner(x)).mean((2, 3)))

    torch.manual_seed(0)
    net, rng = load_model(Twice().eval()), np.random.default_rng(0)
    erasures = [Erasure("inner", orthogonal_eraser(rng.standard_normal((3, 1)), np.ones(3))) for _ in range(2)]
    images = list(torch.rand(5, 3, 4, 4))
    for found, erasure in zip(compute_logits_jointly(net, images, erasures), erasures, strict=True):
        np.testing.assert_allclose(found, compute_logits(net, images, erasure), atol=1e-6)


class Residual(nn.Module):
    """Two blocks with batch norm, whose skip connections are added in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) for _ in range(2))
        self.head, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x):
        for block in (self.one, self.two):
            y = torch.relu(block(x))
            y += x
            x = y
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """A class token before 36 patches, and two blocks of a transformer."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 8, 1), nn.Parameter(torch.rand(1, 1, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def one_after_another(model, images, layer, correction):
    """What InputReader reads, from the whole input of one layer at a time: pooled, spread, positions, leading."""
    total, noise, seen = ResidualSum.parse(layer), torch.Generator().manual_seed(0), [None]

    def keep(a):
        seen[0] = a
        return a

    parts = []
    with (
        evaluation_mode(model.module) as net,
        correction.applied(net),
        torch.no_grad(),
        Tap(net, layer) if total is None else change_sum(net, total, keep) as tap,
    ):
        for batch in torch.stack(images).split(64):
            net(batch)
            a = tap.input if total is None else seen[0]
            a = a[:, None] if a.ndim == 2 else a
            a = a.flatten(2).transpose(1, 2) if a.ndim == 4 else a
            leading, a = (a[:, :1], a[:, 1:]) if a.shape[1] == 37 else (a[:, :0], a)
            drawn = a
            if a.shape[1] > POSITIONS:
                at = torch.rand(a.shape[:2], generator=noise).argsort(1)[:, :POSITIONS]
                drawn = torch.stack([rows[some] for rows, some in zip(a, at, strict=True)])
            parts.append((a.mean(1), a.amax(1) - a.mean(1), drawn.flatten(0, 1), leading))
    return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]


@pytest.fixture(params=[True, False])
def fused(request):
    """Whether torch may take its fused attention, which it does not where a sum is looked at."""
    kept = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(request.param)
    yield request.param
    torch.backends.mha.set_fastpath_enabled(kept)


@pytest.mark.parametrize(
    ("network", "layers", "erased"),
    [
        (Residual, ("one", ":sum1", "two", ":sum2", "head"), "two"),
        (Residual, ("two", ":sum2"), ":sum2"),
        (Tokens, ("embed", "blocks.0", "blocks.0:sum2", "blocks.1", "head"), "head"),
    ],
)
def test_layers_of_one_pass_are_to_the_bit_those_of_a_pass_for_each(network, layers, erased, fused):
    torch.manual_seed(0)
    model, images = load_model(network().eval()), list(torch.rand(70, 3, 6, 6))
    channels = 3 if network is Residual else 8
    some = Erasure(erased, orthogonal_eraser(np.eye(channels)[:, :1], np.ones(channels)))
    together = compute_activations_at(model, images, layers, some)
    for layer in layers:
        literal = one_after_another(model, images, layer, some)
        for one in (together[layer], compute_activations(model, images, layer, some)):
            found = one.pooled, one.spread, one.positions, one.leading
            for a, b in zip(found, literal, strict=True):
                if network is Tokens and fused:  # another kernel: other roundings
                    np.testing.assert_allclose(a, b, atol=1e-5)
                else:
                    np.testing.assert_array_equal(a, b)


def test_an_input_that_is_changed_in_place_later_is_read_as_the_layer_got_it():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)), nn.Linear(3, 4)

        def forward(self, x):
            return self.head(self.inner(x - 0.5).mean((2, 3)))

    images = list(torch.rand(5, 3, 4, 4))
    found = compute_activations(load_model(Changed().eval()), images, "inner")
    np.testing.assert_allclose(found.pooled, torch.stack(images).mean((2, 3)) - 0.5, atol=1e-6)


def test_one_pass_runs_the_network_once_and_refuses_a_layer_that_takes_no_part():
    model, images, seen = load_model(Residual().eval()), list(torch.rand(70, 3, 6, 6)), []
    model.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    compute_activations_at(model, images, ("one", "two", "head", ":sum1", ":sum2"))
    assert sum(seen) == len(images)
    with pytest.raises(ModelError, match="takes no part"):
        compute_activations_at(model, images, ("one", "unused"))
    assert not any(m._forward_hooks for m in model.module.modules())


def test_batches_are_counted_in_the_step_that_is_shown(monkeypatch):
    """130 images of one shape and 2 of another: 64, 64, 2 and 2."""
    counted = []
    monkeypatch.setattr(activations, "track_inside", lambda items, total, label: counted.append(total) or items)
    images = [torch.zeros(3, 4, 4)] * 130 + [torch.zeros(3, 5, 4)] * 2
    assert [len(batch) for batch in activations.split_batches(images)] == [64, 64, 2, 2]
    assert counted == [4] and list(activations.split_batches([])) == []
