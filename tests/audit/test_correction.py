"""Correcting a model whose shortcut is known in closed form."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from klarsicht.audit import correction, models
from klarsicht.audit.activations import activations, logits
from klarsicht.audit.correction import log_softmax, wilson
from klarsicht.audit.samples import Sample
from klarsicht.ground.errors import InputError


class Shortcut(nn.Module):
    """Class 0 by channel 0 (the object) and, wrongly, by channel 1 (the mark); class 1 is a constant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for layer in (self.body, self.last):
                layer.weight.copy_(torch.eye(3)[:, :, None, None])
                layer.bias.zero_()
            self.head.weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.last(self.body(x)).mean((2, 3)))


def sample(n=80, seed=0):
    rng = np.random.default_rng(seed)
    member = np.arange(n) < n // 4
    x = rng.random((n, 3, 4, 4)).astype(np.float32)
    x[member, 1] += 2
    return Sample([torch.from_numpy(image) for image in x], member, np.arange(n), np.full(n, -1))


@pytest.fixture
def classifier():
    return models.load((Shortcut().eval(), lambda image: image))


def test_the_projection_takes_the_mark_away_and_the_controls_do_not(classifier):
    fit, show = sample(seed=0), sample(seed=1)
    a = activations(classifier, fit.images, "last").pooled
    tried = {"nothing": None, "project": correction.project(a, fit, "last")}
    tried |= correction.controls(a, fit, "last", np.random.default_rng(0))
    by_name = {o.correction: o for o in correction.compare(classifier, show, 0, tried)}
    assert by_name["nothing"].shift == pytest.approx(1.0, abs=0.1)  # half of 2: the centred logit of two classes
    assert abs(by_name["project"].shift) < 0.05
    assert by_name["project"].ratio == pytest.approx(1, abs=0.1)
    assert by_name["random direction"].shift > 0.5
    assert by_name["nothing"].agreement == 1


def test_the_model_is_bit_equal_afterwards(classifier):
    before = {k: v.clone() for k, v in classifier.module.state_dict().items()}
    a = activations(classifier, sample().images, "last").pooled
    correction.compare(classifier, sample(), 0, {"project": correction.project(a, sample(), "last")})
    assert all(torch.equal(before[k], v) for k, v in classifier.module.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in classifier.module.modules())


def test_pooled_inputs_are_the_means_of_what_the_layer_receives(classifier):
    some = sample(10)
    a = activations(classifier, some.images, "last").pooled
    np.testing.assert_allclose(a, torch.stack(list(some.images)).mean((2, 3)), atol=1e-6)


def test_images_of_different_sizes_are_batched_in_order(classifier):
    images = [torch.full((3, 2 + i % 3, 4), float(i)) for i in range(20)]
    found = logits(classifier, images)
    np.testing.assert_allclose(found[:, 0], 2 * np.arange(20), atol=1e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (180, 200)])
def test_the_interval_is_that_of_scipy(hits, n):
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(hits, n), (interval.low, interval.high), atol=1e-7)


def test_log_softmax_equals_torch():
    y = np.random.default_rng(0).standard_normal((5, 7)) * 30
    np.testing.assert_allclose(log_softmax(y), torch.from_numpy(y).log_softmax(1), atol=1e-12)


def test_a_file_that_is_no_projection_is_refused(tmp_path):
    (tmp_path / "x.npz").write_text("no")
    with pytest.raises(InputError, match="no projection"):
        correction.load(tmp_path / "x.npz")
