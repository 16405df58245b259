"""Erasure inside a network: it does what numerics.erasure says at every position, and the model is given back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_b0, resnet18

from klarsicht.audit.cleaning.corrections import clarc
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate, WhenPredicted
from klarsicht.audit.explanation.models.correction_tensors import correction_layer, correction_layers
from klarsicht.ground.errors import InputError, ModelError, UsageError
from klarsicht.numerics.erasure import oblique_eraser, orthogonal_eraser


def erasure(channels=5, layer="2", k=2, seed=0, kind="oblique", **more):
    rng = np.random.default_rng(seed)
    V, z, A = rng.standard_normal((channels, k)), rng.standard_normal(channels), rng.standard_normal((9, channels))
    eraser = orthogonal_eraser(V, z) if kind == "orthogonal" else oblique_eraser(V, A.T @ A, z)
    return Erasure(layer, eraser, **more)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    ).eval()


def bits(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("kind", ["orthogonal", "oblique"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 7, 5), (3, 5, 4, 6)])
def test_every_position_is_erased_as_the_numerics_say(kind, shape):
    e, a = erasure(kind=kind), torch.randn(shape, dtype=torch.float64)
    rows = (a.movedim(1, -1) if a.ndim == 4 else a).reshape(-1, 5)
    out = e(a)
    found = (out.movedim(1, -1) if a.ndim == 4 else out).reshape(-1, 5)
    assert out.shape == a.shape
    np.testing.assert_allclose(found, e.eraser(rows.numpy()), atol=1e-10)


def test_tokens_before_the_positions_have_erasers_of_their_own():
    own = tuple(erasure(seed=seed, k=k).eraser for seed, k in ((1, 2), (2, 1)))
    e, a = erasure(leading=own), torch.randn(3, 2 + 9, 5, dtype=torch.float64)
    out = e(a)
    for i, eraser in enumerate(own):
        np.testing.assert_allclose(out[:, i], eraser(a[:, i].numpy()), atol=1e-10)
    rows = a[:, 2:].reshape(-1, 5).numpy()
    np.testing.assert_allclose(out[:, 2:].reshape(-1, 5), e.eraser(rows), atol=1e-10)
    mean = erasure(leading=own, pooled=True)(a)  # the mean of the positions alone
    taken = (a - mean)[:, 2:]
    np.testing.assert_allclose(
        taken.mean(1), a[:, 2:].mean(1) - torch.from_numpy(e.eraser(a[:, 2:].mean(1).numpy())), atol=1e-10
    )
    torch.testing.assert_close(mean[:, :2], out[:, :2])


@pytest.mark.parametrize("shape", [(3, 2, 5), (3, 5), (3, 5, 4, 4)])
def test_an_input_without_the_tokens_is_refused(shape):
    own = tuple(erasure(seed=seed).eraser for seed in (1, 2))
    with pytest.raises(InputError, match="after 2 tokens"):
        erasure(leading=own)(torch.zeros(shape))


@pytest.mark.parametrize("channels", [1, -1])
def test_where_height_and_channels_agree_the_axis_is_given(channels):
    a = torch.randn(2, 5, 4, 5, dtype=torch.float64)
    rows = a.movedim(channels, -1)
    found = replace(erasure(), channels=channels)(a).movedim(channels, -1)
    np.testing.assert_allclose(found.reshape(-1, 5), erasure().eraser(rows.reshape(-1, 5).numpy()), atol=1e-10)


def test_projection_leaves_v_a_at_v_z_and_the_clean_mean_where_it_was():
    e, a = erasure(k=1, kind="orthogonal"), torch.randn(4, 5, 3, 3, dtype=torch.float64)
    v, z = torch.from_numpy(e.eraser.left[:, 0]), torch.from_numpy(e.eraser.reference)
    along = torch.einsum("c,bchw->bhw", v, e(a))
    torch.testing.assert_close(along, torch.full_like(along, float(v @ z)))
    clean = z + torch.randn(1000, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    clean = clean - clean.mean(0) + z
    assert float(v @ e(clean).mean(0)) == pytest.approx(float(v @ clean.mean(0)))


def test_pooled_takes_the_same_from_every_position():
    e, a = erasure(pooled=True), torch.randn(4, 5, 3, 3, dtype=torch.float64)
    taken = (a - e(a)).flatten(2)
    torch.testing.assert_close(taken, taken[..., :1].expand_as(taken))
    np.testing.assert_allclose(e(a).mean((2, 3)), e.eraser(a.mean((2, 3)).numpy()), atol=1e-10)


def test_no_strength_no_change_and_half_goes_half_way():
    e, a = erasure(), torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(replace(e, strength=0)(a), a)
    torch.testing.assert_close(replace(e, strength=0.5)(a), (a + e(a)) / 2)


def test_a_gate_erases_only_where_it_is_open():
    a = (
        torch.randn(6, 5, 3, 3) + 3 * torch.tensor([1.0, -1] * 3)[:, None, None, None]
    )  # the gate is open, shut, open, ...
    weight = np.array([1000, 0, 0, 0, 0], np.float32)
    open_ = a[:, 0].mean((1, 2)) > 0
    gated, whole = erasure(gate=Gate(weight, 0.0))(a), erasure()(a)
    assert 0 < open_.sum() < 6
    torch.testing.assert_close(gated[open_], whole[open_])
    torch.testing.assert_close(gated[~open_], a[~open_])


@pytest.mark.parametrize("correction", [erasure(), WhenPredicted(erasure(), 1), erasure(pooled=True)])
def test_inside_the_context_the_model_is_corrected_and_outside_it_is_bit_equal(correction):
    net, x = network(), torch.randn(8, 3, 4, 4)
    before, plain = bits(net), net(x)
    with correction.applied(net):
        assert not torch.equal(net(x), plain)
    torch.testing.assert_close(net(x), plain, atol=0, rtol=0)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_the_layer_sees_corrected_inputs():
    net, e, x = network(), erasure(), torch.randn(2, 3, 4, 4)
    with e.applied(net):
        torch.testing.assert_close(net(x), net[3:](net[2].forward(e(net[:2](x)))))


def test_the_hook_is_gone_after_an_error():
    net = network()
    with pytest.raises(RuntimeError), erasure().applied(net):
        net(torch.randn(2, 7, 4, 4))
    assert not net[2]._forward_pre_hooks


def test_only_images_taken_for_the_class_are_looked_at_again():
    net, e, x = network(), erasure(), torch.randn(20, 3, 4, 4)
    plain = net(x)
    taken = plain.argmax(1) == 1
    with e.applied(net):
        erased = net(x)
    with WhenPredicted(e, 1).applied(net):
        found = net(x)
    assert 0 < taken.sum() < 20
    torch.testing.assert_close(found[taken], erased[taken])
    torch.testing.assert_close(found[~taken], plain[~taken], atol=0, rtol=0)


class Answering(nn.Module):
    """A network whose answer is what a function makes of its logits."""

    def __init__(self, answer):
        super().__init__()
        self.net, self.answer = network(), answer

    def forward(self, x):
        return self.answer(self.net(x))


def test_an_answer_that_holds_logits_is_one_of_them_too():
    net, x = Answering(lambda logits: SimpleNamespace(logits=logits)), torch.randn(20, 3, 4, 4)
    with WhenPredicted(erasure(), 1).applied(net.net):
        expected = net.net(x)
    with WhenPredicted(erasure(layer="net.2"), 1).applied(net):
        torch.testing.assert_close(net(x).logits, expected)
    assert not torch.equal(net(x).logits, expected)


def test_an_answer_without_logits_is_refused():
    net = Answering(str)
    with pytest.raises(ModelError, match="logits"), WhenPredicted(erasure(layer="net.2"), 0).applied(net):
        net(torch.randn(1, 3, 4, 4))


def test_activations_of_other_channels_are_refused():
    with pytest.raises(InputError, match="5 channels"):
        erasure()(torch.randn(2, 4, 3, 3))


def test_layers_worth_a_try_are_the_last_blocks_and_the_head():
    blocks = ("layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0", "layer4.1")
    assert correction_layers(resnet18(), "fc") == (*blocks, "fc")
    assert correction_layers(efficientnet_b0(), "classifier.1")[-1] == "classifier.1"
    assert correction_layers(network(), "5") == ("2", "5")
    assert correction_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1") == ("1",)
    with pytest.raises(UsageError, match="no layer"):
        correction_layers(nn.Linear(2, 2))


def test_the_default_layer_is_the_last_block():
    assert correction_layer(resnet18()) == "layer4.1"
    assert correction_layer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))) == "2"


def test_an_unknown_layer_lists_near_ones():
    with pytest.raises(UsageError, match="layer4"):
        clarc.find_layer(resnet18(), "layer44")
