"""P-ClArC: the component along v becomes that of clean images, everything else stays, the model is given back."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from klarsicht.audit import clarc
from klarsicht.ground.errors import InputError, UsageError


def projection(channels=5, layer="1", seed=0):
    rng = np.random.default_rng(seed)
    v = clarc.random_direction(channels, rng).astype(np.float32)
    return clarc.Projection(layer, v, rng.standard_normal(channels).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 4, 6)])
def test_the_component_along_v_is_that_of_the_reference_and_nothing_else_moves(shape):
    p, a = projection(), torch.randn(shape, dtype=torch.float64)
    out = p(a)
    v, z = torch.tensor(p.direction).double(), torch.tensor(p.reference).double()
    along = torch.tensordot(out.movedim(1, -1), v, 1)
    torch.testing.assert_close(along, torch.full_like(along, float(v @ z)), atol=1e-6, rtol=0)
    difference = (out - a).movedim(1, -1)
    across = difference - torch.tensordot(difference, v, 1)[..., None] * v
    assert across.abs().max() < 1e-6


def test_projecting_twice_is_projecting_once():
    p, a = projection(), torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(p(p(a)), p(a))


def test_the_projection_equals_its_literal_formula():
    p, a = projection(), torch.randn(2, 5, 3, 3)
    v, z = torch.from_numpy(p.direction), torch.from_numpy(p.reference)
    literal = a.clone()
    for b in range(2):
        for y in range(3):
            for x in range(3):
                literal[b, :, y, x] = a[b, :, y, x] + v * (v @ z - v @ a[b, :, y, x])
    torch.testing.assert_close(p(a), literal)


def test_inside_the_context_the_layer_sees_corrected_inputs_and_outside_the_model_is_untouched():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x, p = torch.randn(2, 3, 4, 4), projection(layer="2")
    plain = net(x)
    with p.applied(net):
        torch.testing.assert_close(net(x), net[2](p(net[1](net[0](x)))))
    torch.testing.assert_close(net(x), plain, atol=0, rtol=0)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not net[2]._forward_pre_hooks


def test_the_hook_is_gone_after_an_error():
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    with pytest.raises(RuntimeError), projection().applied(net):
        net(torch.randn(2, 7))
    assert not net[1]._forward_pre_hooks


def test_the_pattern_is_the_difference_of_means_for_a_two_valued_membership():
    """cov(a, y) = p (1 - p) (mean of members - mean of others)."""
    rng = np.random.default_rng(0)
    a, member = rng.standard_normal((60, 4)), rng.random(60) < 0.3
    v = clarc.pattern_direction(a, member, np.arange(60))
    difference = a[member].mean(0) - a[~member].mean(0)
    np.testing.assert_allclose(v, difference / np.linalg.norm(difference), atol=1e-12)


def test_sources_that_differ_among_themselves_do_not_turn_the_pattern():
    rng = np.random.default_rng(0)
    sources, truth = np.repeat(np.arange(20), 15), np.array([0.0, 0.0, 1.0, 0.0])
    scene = 10 * rng.standard_normal((20, 4))[sources]
    member = rng.random(300) < np.where(sources < 5, 0.5, 0.1)  # members come from few scenes
    a = scene + member[:, None] * truth + 0.05 * rng.standard_normal((300, 4))
    assert clarc.pattern_direction(a, member, sources) @ truth > 0.97
    assert clarc.pattern_direction(a, member, np.arange(300)) @ truth < 0.9


@pytest.mark.parametrize("members", [0, 8])
def test_all_or_none_is_no_split(members):
    with pytest.raises(UsageError, match="no two groups"):
        clarc.pattern_direction(np.eye(8), np.arange(8) < members, np.arange(8))


def test_members_that_do_not_differ_have_no_direction():
    with pytest.raises(InputError, match="do not differ"):
        clarc.pattern_direction(np.ones((8, 3)), np.arange(8) < 4, np.arange(8))


def test_the_default_layer_is_the_last_block():
    assert clarc.correction_layer(resnet18()) == "layer4.1"
    assert clarc.correction_layer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))) == "2"
    with pytest.raises(UsageError, match="no layer"):
        clarc.correction_layer(nn.Linear(2, 2))


def test_an_unknown_layer_lists_near_ones():
    with pytest.raises(UsageError, match="layer4"):
        clarc.layer_named(resnet18(), "layer44")


def test_direction_and_reference_must_match():
    with pytest.raises(InputError, match="do not match"):
        clarc.Projection("1", np.zeros(3, np.float32), np.zeros(4, np.float32))
