"""Corrections together: in order, as their formulas one after another; built in, saved and without klarsicht alike."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from tests.audit.shortcut import FACTS
from torch import nn

from klarsicht.audit.cleaning.corrections import corrected_model, packages
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting
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


def inpainting(layer, channels, seed):
    """Fills about a tenth of the windows of two by two."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((channels, 2, 2)).astype(np.float32)
    return FeatureInpainting(layer, kernel, 1.0, rng.random(channels).astype(np.float32))


def fill_by_hand(a, part):
    """Located windows of (B, C, H, W), position by position: a filled one is the mean of its known neighbours."""
    B, _, H, W = a.shape
    K, z, out = torch.as_tensor(part.kernel), torch.as_tensor(part.reference), a.clone()
    for n in range(B):
        mask = torch.zeros(H, W, dtype=torch.bool)
        for i, j in product(range(-1, H), range(-1, W)):  # windows cut by the edge, too
            inside = [(i + p, j + q, p, q) for p, q in product((0, 1), (0, 1)) if 0 <= i + p < H and 0 <= j + q < W]
            if sum(((a[n, :, y, x] - z) * K[:, p, q]).sum() for y, x, p, q in inside) > part.threshold:
                for y, x, *_ in inside:
                    mask[y, x] = True
        known = ~mask
        for _ in range(2):
            values, reached = {}, known.clone()
            for y, x in product(range(H), range(W)):
                near = [
                    (v, u) for v, u in product(range(max(y - 1, 0), min(y + 2, H)), range(max(x - 1, 0), min(x + 2, W)))
                ]
                if not known[y, x] and (near := [at for at in near if known[at]]):
                    values[y, x] = torch.stack([out[n, :, v, u] for v, u in near]).mean(0)
                    reached[y, x] = True
            for (y, x), value in values.items():
                out[n, :, y, x] = value
            known = reached
        for y, x in product(range(H), range(W)):
            if not known[y, x]:
                out[n, :, y, x] = z
    return out


def reverse(joint):
    return JointCorrection(joint.parts[::-1])


JOINT = JointCorrection((erasure("1", 0), erasure("1.inner", 1), erasure("1", 2, gated=True), erasure("4", 3)))


def by_formula(net, x, parts):
    """The network written out, with each erasure where its layer begins, in the order of the parts."""

    def take(a, layer):
        for part in (one for one in parts if one.layer == layer):
            if isinstance(part, FeatureInpainting):
                a = fill_by_hand(a, part)
                continue
            e = part.eraser
            rows = a.movedim(1, -1).double() if a.ndim == 4 else a.double()
            amount = (rows - torch.as_tensor(e.reference)) @ torch.as_tensor(e.left @ e.right).T
            if part.gate is not None:
                seen = rows.flatten(1, -2).mean(1) @ torch.as_tensor(part.gate.weight).double() + part.gate.bias
                amount = amount * torch.sigmoid(seen).reshape(-1, *[1] * (rows.ndim - 1))
            rows = rows - part.strength * amount
            a = (rows.movedim(-1, 1) if a.ndim == 4 else rows).to(x.dtype)
        return a

    a = take(net[0](take(x, "0")), "1")
    a = a + torch.relu(net[1].inner(take(a, "1.inner")))
    return net[4](take(a.mean((2, 3)), "4"))


def logits(net, correction, x):
    with correction.applied(net), torch.no_grad():
        return net(x)


def test_erasures_together_are_their_formulas_in_order_and_the_network_is_given_back():
    net, x = network(), torch.rand(6, 3, 4, 4)
    plain = net(x)
    with torch.no_grad():
        expected = [by_formula(net, x, some.parts) for some in (JOINT, reverse(JOINT))]
    torch.testing.assert_close(logits(net, JOINT, x), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(net, reverse(JOINT), x), expected[1], atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the order matters
    assert JOINT.is_ordered and not JointCorrection(JOINT.parts[:2]).is_ordered
    torch.testing.assert_close(net(x), plain, atol=0, rtol=0)


FILLED = JointCorrection(
    (inpainting("0", 3, 4), erasure("1", 0), inpainting("1", 5, 5), inpainting("1.inner", 5, 6), erasure("4", 3))
)


def test_inpaintings_together_with_erasures_are_their_formulas_in_order():
    net, x = network(), torch.rand(4, 3, 4, 4)
    for joint in (FILLED, reverse(FILLED)):
        with torch.no_grad():
            expected = by_formula(net, x, joint.parts)
        torch.testing.assert_close(logits(net, joint, x), expected, atol=1e-5, rtol=1e-5)
    apart = (logits(net, FILLED, x) - logits(net, reverse(FILLED), x)).abs().max()
    assert apart > 1e-3 and FILLED.is_ordered  # what is erased before is not located


@pytest.mark.parametrize(
    "joint",
    [JOINT, reverse(JOINT), FILLED, reverse(FILLED)],
    ids=["in order", "reversed", "filled", "filled, reversed"],
)
def test_built_in_loaded_exported_and_standalone_give_the_same_logits(tmp_path, joint):
    net, x = network(), torch.rand(6, 3, 4, 4)
    expected = logits(net, joint, x)
    packages.save_correction(tmp_path, joint, FACTS)
    loaded, _ = packages.load_correction(tmp_path)
    built = corrected_model.build_in(copy.deepcopy(net), joint)
    space = {"__file__": str(tmp_path / "corrected.py"), "__name__": "corrected"}
    exec(compile((tmp_path / "corrected.py").read_text(), "corrected.py", "exec"), space)
    with torch.no_grad():
        found = {"loaded": logits(net, loaded, x), "built": built(x), "alone": space["corrected"](network())(x)}
    for name, values in found.items():
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5, msg=name)
