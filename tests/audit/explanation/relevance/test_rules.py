"""Rules against hand arithmetic, a loop-by-loop rewrite of the formulas, and zennit."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from zennit import rules as zennit
from zennit.core import Composite

from klarsicht.audit.explanation.relevance import rules
from klarsicht.audit.explanation.relevance.rules import EPSILON, Layer

LOW, HIGH = (-1.0, -2.0, -1.5), (2.0, 1.0, 1.5)


def test_epsilon_by_hand():
    W = torch.tensor([[1.0, -1.0], [2.0, 3.0]], dtype=torch.float64)
    layer = Layer("fc", linear, rules.epsilon, W, torch.tensor([3.0, -1.0], dtype=torch.float64), channel=-1)
    x, R = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    relevance, entry = layer.propagate(x, R)  # z = (2, 7)
    assert relevance[0].tolist() == pytest.approx([1 / 2 + 2 / 7, -2 / 2 + 6 / 7], rel=1e-5)
    assert float(entry.bias) == pytest.approx(3 / 2 - 1 / 7, rel=1e-5)
    assert float(entry.stabiliser) == pytest.approx(EPSILON / 2 + EPSILON / 7, rel=1e-5)
    assert float(entry.dead) == 0


def test_zplus_by_hand_with_an_input_of_both_signs_and_a_dead_output():
    W = torch.tensor([[2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    layer = Layer("fc", linear, rules.zplus, W, torch.tensor([4.0, -5.0], dtype=torch.float64), channel=-1)
    x, R = torch.tensor([[1.0, -2.0]], dtype=torch.float64), torch.tensor([[8.0, 3.0]], dtype=torch.float64)
    # positive contributions: 2*1 + (-1)(-2) + bias 4 = 8 to the first, none to the second
    relevance, entry = layer.propagate(x, R)
    assert relevance[0].tolist() == pytest.approx([2.0, 2.0], rel=1e-6)
    assert float(entry.bias) == pytest.approx(4.0, rel=1e-6)
    assert float(entry.dead) == 3.0


def test_without_the_bias_an_output_that_no_input_raises_is_shared_equally():
    W = torch.tensor([[2.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    layer = Layer("fc", linear, rules.zplus_ignore_bias, W, torch.tensor([4.0, 5.0], dtype=torch.float64), channel=-1)
    x, R = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([[8.0, 3.0]], dtype=torch.float64)
    # all of the first output to the first input, half of the second to each
    relevance, entry = layer.propagate(x, R)
    assert relevance[0].tolist() == pytest.approx([9.5, 1.5], rel=5e-3)
    assert float(entry.bias) == float(entry.dead) == 0
    assert float(relevance.sum() + entry.stabiliser) == pytest.approx(11.0, rel=1e-12)


def plus(v):
    return max(v, 0.0)


def minus(v):
    return min(v, 0.0)


def contributions(rule, x, w, b, z, i, low, high):
    """Literal (share, coefficient, what input i gives, what the bias gives) of the papers, for one output."""
    match rule:
        case "epsilon":
            return [(1, x * w, b)]
        case "zplus":
            return [(1, plus(x) * plus(w) + minus(x) * minus(w), plus(b))]
        case "alpha2_beta1":
            return [
                (2, plus(x) * plus(w) + minus(x) * minus(w), plus(b)),
                (-1, plus(x) * minus(w) + minus(x) * plus(w), minus(b)),
            ]
        case "gamma":
            if z > 0:
                return [(1, x * w + 0.25 * (plus(x) * plus(w) + minus(x) * minus(w)), b + 0.25 * plus(b))]
            return [(1, x * w + 0.25 * (plus(x) * minus(w) + minus(x) * plus(w)), b + 0.25 * minus(b))]
        case "zbox":
            return [(1, x * w - low[i] * plus(w) - high[i] * minus(w), 0.0)]
        case "flat":
            return [(1, 1.0, 0.0)]
        case _:
            raise AssertionError(rule)


def by_loops(rule, x, W, b, R):
    """Relevance and what biases keep, output by output, input by input."""
    relevance, kept = [0.0] * len(x), 0.0
    for j in range(len(b)):
        z = sum(x[i] * W[j][i] for i in range(len(x))) + b[j]
        shares = [contributions(rule, x[i], W[j][i], b[j], z, i, LOW, HIGH) for i in range(len(x))]
        for p in range(len(shares[0])):
            c, bias = shares[0][p][0], shares[0][p][2]
            D = sum(s[p][1] for s in shares) + bias
            D += EPSILON if D >= 0 else -EPSILON
            for i in range(len(x)):
                relevance[i] += c * R[j] * shares[i][p][1] / D
            kept += c * R[j] * bias / D
    return relevance, kept


RULES = {
    "epsilon": rules.epsilon,
    "zplus": rules.zplus,
    "alpha2_beta1": rules.alpha_beta(2, 1),
    "gamma": rules.gamma(0.25),
    "zbox": rules.zbox(LOW, HIGH),
    "flat": rules.flat,
}


@pytest.mark.parametrize("sign", ["both", "nonnegative"])
@pytest.mark.parametrize("name", RULES)
def test_rules_equal_their_formulas_written_as_loops(name, sign):
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(3, generator=draw, dtype=torch.float64)
    x = x if sign == "both" else x.abs()
    W = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    b = torch.randn(4, generator=draw, dtype=torch.float64)
    R = torch.randn(4, generator=draw, dtype=torch.float64)
    layer = Layer("fc", linear, RULES[name], W, b, channel=-1)
    got, entry = layer.propagate(x[None], R[None])
    want, kept = by_loops(name, x.tolist(), W.tolist(), b.tolist(), R.tolist())
    assert got[0].tolist() == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert float(entry.bias) == pytest.approx(kept, rel=1e-9, abs=1e-12)
    assert abs(float(entry.residual)) < 1e-9 * float(entry.gross)


ZENNIT = {
    "epsilon": zennit.Epsilon(),
    "zplus": zennit.ZPlus(),
    "alpha2_beta1": zennit.AlphaBeta(2, 1),
    "gamma": zennit.Gamma(0.25),
    "zbox": zennit.ZBox(torch.tensor(LOW).view(1, 3, 1, 1), torch.tensor(HIGH).view(1, 3, 1, 1)),
    "flat": zennit.Flat(),
}


@pytest.mark.parametrize("sign", ["both", "nonnegative"])
@pytest.mark.parametrize("name", RULES)
def test_convolutions_agree_with_zennit_and_their_books_balance(name, sign):
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
    x, R = torch.randn(2, 3, 9, 8), torch.randn(2, 6, 5, 4)
    x = (x if sign == "both" else x.relu()).requires_grad_()
    hook = Composite(lambda ctx, path, module: ZENNIT[name])
    with hook.context(conv):
        (want,) = torch.autograd.grad(conv(x), x, R)
    layer = Layer("conv", conv._conv_forward, RULES[name], conv.weight.detach(), conv.bias.detach())
    got, entry = layer.propagate(x.detach(), R)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    assert (entry.residual.abs() < 1e-5 * entry.outgoing.abs().clamp(min=1) + 1e-6 * entry.gross).all()


@pytest.mark.parametrize("sign", ["both", "nonnegative"])
def test_a_larger_epsilon_agrees_with_zennit_and_is_said_to_absorb_the_rest(sign):
    torch.manual_seed(4)
    conv = nn.Conv2d(3, 6, 3, bias=False)
    x, R = torch.randn(2, 3, 9, 8), torch.randn(2, 6, 7, 6)
    x = (x if sign == "both" else x.relu()).requires_grad_()
    with Composite(lambda ctx, path, module: zennit.Epsilon(0.3)).context(conv):
        (want,) = torch.autograd.grad(conv(x), x, R)
    layer = Layer("conv", conv._conv_forward, rules.epsilon_of(0.3), conv.weight.detach())
    got, entry = layer.propagate(x.detach(), R)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    assert entry.stabiliser.tolist() == pytest.approx((R.sum((1, 2, 3)) - want.sum((1, 2, 3))).tolist(), abs=1e-3)


def test_a_rule_of_ones_own_is_a_function_of_weight_and_bias():
    """The w-square rule of Montavon et al. (2017): R_i = sum_j w_ij^2 / sum_k w_kj^2 R_j."""

    def w_square(W, b):
        return (rules.Share((rules.Term(torch.ones_like, W**2),)),)

    W = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    layer = Layer("fc", linear, w_square, W, None, channel=-1)
    relevance, _ = layer.propagate(
        torch.randn(1, 2, dtype=torch.float64), torch.tensor([[5.0, 20.0]], dtype=torch.float64)
    )
    assert relevance[0].tolist() == pytest.approx([5 / 5 + 9 / 10 * 20, 4 / 5 * 5 + 1 / 10 * 20], rel=1e-5)


def test_outputs_of_value_zero_are_dead_under_a_signed_rule():
    layer = Layer("fc", linear, rules.gamma(0.25), torch.tensor([[1.0, -1.0], [1.0, 1.0]]), None, channel=-1)
    x, R = torch.tensor([[1.0, 1.0]]), torch.tensor([[5.0, 2.0]])
    _, entry = layer.propagate(x, R)
    assert float(entry.dead) == 5.0
    assert float(entry.outgoing) == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(("x", "passes"), [([1.0, 2.0], 1), ([1.0, -2.0], 2)])
def test_an_input_without_negative_part_is_passed_once(x, passes):
    calls = []

    def counted(part, W, b):
        calls.append(part)
        return linear(part, W, b)

    layer = Layer("fc", counted, rules.zplus, torch.ones(3, 2), torch.ones(3), channel=-1)
    layer.propagate(torch.tensor([x]), torch.ones(1, 3))
    assert len(calls) == passes
