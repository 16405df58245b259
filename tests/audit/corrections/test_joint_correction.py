"""Erasures together: in order, as their formulas one after another; built in, saved and without klarsicht alike."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from klarsicht.audit.corrections import corrected_model, packages
from klarsicht.audit.corrections.clarc import Erasure, Gate
from klarsicht.audit.corrections.joint_correction import JointCorrection
from klarsicht.numerics.erasure import oblique_eraser


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(5, 5, 1)

    def forward(self, x):
        return x + torch.relu(self.inner(x))


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 1), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    return body.eval()


def erasure(layer, seed, gated=False):
    rng = np.random.default_rng(seed)
    V, z, A = rng.standard_normal((5, 2)), rng.standard_normal(5), rng.standard_normal((9, 5))
    gate = Gate(rng.standard_normal(5).astype(np.float32), 0.3) if gated else None
    return Erasure(layer, oblique_eraser(V, A.T @ A, z), 0.8, gate=gate)


JOINT = JointCorrection((erasure("1", 0), erasure("1.inner", 1), erasure("1", 2, gated=True), erasure("4", 3)))


def by_formula(net, x, parts):
    """The network written out, with each erasure where its layer begins, in the order of the parts."""

    def take(a, layer):
        for part in (one for one in parts if one.layer == layer):
            e = part.eraser
            rows = a.movedim(1, -1).double() if a.ndim == 4 else a.double()
            amount = (rows - torch.as_tensor(e.reference)) @ torch.as_tensor(e.left @ e.right).T
            if part.gate is not None:
                seen = rows.flatten(1, -2).mean(1) @ torch.as_tensor(part.gate.weight).double() + part.gate.bias
                amount = amount * torch.sigmoid(seen).reshape(-1, *[1] * (rows.ndim - 1))
            rows = rows - part.strength * amount
            a = (rows.movedim(-1, 1) if a.ndim == 4 else rows).to(x.dtype)
        return a

    a = take(net[0](x), "1")
    a = a + torch.relu(net[1].inner(take(a, "1.inner")))
    return net[4](take(a.mean((2, 3)), "4"))


def logits(net, correction, x):
    with correction.applied(net), torch.no_grad():
        return net(x)


def test_erasures_together_are_their_formulas_in_order_and_the_network_is_given_back():
    net, x = network(), torch.rand(6, 3, 4, 4)
    plain = net(x)
    with torch.no_grad():
        expected = [by_formula(net, x, some.parts) for some in (JOINT, JOINT.reversed)]
    torch.testing.assert_close(logits(net, JOINT, x), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(net, JOINT.reversed, x), expected[1], atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the order matters
    assert JOINT.is_ordered and not JointCorrection(JOINT.parts[:2]).is_ordered
    torch.testing.assert_close(net(x), plain, atol=0, rtol=0)


@pytest.mark.parametrize("joint", [JOINT, JOINT.reversed], ids=["in order", "reversed"])
def test_built_in_loaded_exported_and_standalone_give_the_same_logits(tmp_path, joint):
    net, x = network(), torch.rand(6, 3, 4, 4)
    expected = logits(net, joint, x)
    packages.save_correction(tmp_path, joint, {"model": "object"})
    loaded, _ = packages.load_correction(tmp_path)
    built = corrected_model.build_in(copy.deepcopy(net), joint)
    space = {"__file__": str(tmp_path / "corrected.py"), "__name__": "corrected"}
    exec(compile((tmp_path / "corrected.py").read_text(), "corrected.py", "exec"), space)
    with torch.no_grad():
        found = {"loaded": logits(net, loaded, x), "built": built(x), "alone": space["corrected"](network())(x)}
    for name, values in found.items():
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5, msg=name)
