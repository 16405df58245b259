"""Relevance rules: how a layer hands the relevance of its outputs down to its inputs.

Every rule is one formula with different letters. A layer's outputs j are read as sums of affine terms t over
parts x^t of its input (its positive part, its negative part, all of it); a share p of the relevance R_j is
handed down in proportion to the terms it names:

    R_i = sum_p c_p sum_t sigma_t x^t_i sum_j W^t_ji R_j g_pj / D_pj,  D_pj = sum_t sigma_t (W^t x^t + b^t)_j

with a coefficient c_p, a sign sigma_t, and a gate g_pj that lets a share serve only outputs of one sign. D is
kept from zero by adding EPSILON with its own sign. From the same formula follows what is *not* handed down:

    bias        sum_p c_p sum_j R_j g_pj (sum_t sigma_t b^t)_j / D_pj
    stabiliser  sum_p c_p sum_j R_j g_pj EPSILON / |D_pj|
    dead        relevance of outputs whose denominator is exactly zero, or that no share serves

Sources: epsilon and alpha-beta, Bach et al., PLoS ONE 2015; z-plus and z-box, Montavon et al., Pattern
Recognition 2017; gamma, Montavon et al. 2019, generalised to inputs of both signs by Andeol et al. 2021;
flat, Lapuschkin et al., Nature Communications 2019. Values agree with the rules of zennit, which carry no
books.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Final, NamedTuple

import torch
from torch import Tensor

from klarsicht.audit.relevance.conservation import LayerBooks, gross, inner, per_image

EPSILON: Final = 1e-6

Part = Callable[[Tensor], Tensor]
"""Which part of a layer's input a term reads."""


def whole(x: Tensor) -> Tensor:
    return x


def positive(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def negative(x: Tensor) -> Tensor:
    return x.clamp(max=0)


def constant(channels: tuple[float, ...]) -> Part:
    """The same value everywhere, one for each channel of x (B, C, ...)."""

    def part(x: Tensor) -> Tensor:
        return x.new_tensor(channels).reshape(1, -1, *[1] * (x.ndim - 2)).expand_as(x)

    return part


@dataclass(frozen=True)
class Term:
    """sign * (weight @ part(x) + bias); weight None for layers without parameters."""

    part: Part
    weight: Tensor | None
    bias: Tensor | None = None
    sign: float = 1.0


@dataclass(frozen=True)
class Share:
    """A coefficient's worth of relevance, distributed over the terms; gate +-1 serves only outputs of that
    sign."""

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    gate: int = 0


Rule = Callable[[Tensor | None, Tensor | None], tuple[Share, ...]]
"""From the weight and bias of a layer to its shares."""


def _plus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(min=0)


def _minus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(max=0)


def epsilon(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """R_i = x_i sum_j W_ji R_j / z_j; without parameters it is the rule for sums and average pooling."""
    return (Share((Term(whole, W, b),)),)


def flat(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Every input in reach of an output gets the same."""
    return (Share((Term(torch.ones_like, None if W is None else torch.ones_like(W)),)),)


def zplus(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Positive contributions only, of inputs of either sign."""
    return (Share((Term(positive, _plus(W), _plus(b)), Term(negative, _minus(W)))),)


def alpha2_beta1(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Twice the positive contributions less once the negative ones."""
    return (
        Share((Term(positive, _plus(W), _plus(b)), Term(negative, _minus(W))), 2.0),
        Share((Term(positive, _minus(W), _minus(b)), Term(negative, _plus(W))), -1.0),
    )


def gamma(g: float) -> Rule:
    """Positive (negative) contributions weigh 1 + g where the output is positive (negative)."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        W_up, W_down = _add(W, g, _plus(W)), _add(W, g, _minus(W))
        return (
            Share((Term(positive, W_up, _add(b, g, _plus(b))), Term(negative, W_down)), gate=1),
            Share((Term(positive, W_down, _add(b, g, _minus(b))), Term(negative, W_up)), gate=-1),
        )

    return rule


def _add(p: Tensor | None, g: float, q: Tensor | None) -> Tensor | None:
    return None if p is None or q is None else p + g * q


def zbox(low: tuple[float, ...], high: tuple[float, ...]) -> Rule:
    """For pixels between low and high (one number each a channel, in the model's own units)."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        below = Term(constant(low), _plus(W), _plus(b), -1.0)
        above = Term(constant(high), _minus(W), _minus(b), -1.0)
        return (Share((Term(whole, W, b), below, above)),)

    return rule


@dataclass(frozen=True)
class Layer:
    """A layer bound to its rule.

    `affine(x, W, b)` computes the layer with any parameters; `weight`, `bias` are its own; `channel` is the
    axis of the output along which the bias runs.
    """

    name: str
    affine: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    rule: Rule
    weight: Tensor | None = None
    bias: Tensor | None = None
    channel: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return self.affine(x, self.weight, self.bias)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """The parameters are split once, not at every call."""
        return self.rule(self.weight, self.bias)

    @cached_property
    def shares_of_nonnegative(self) -> tuple[Share, ...]:
        """After a ReLU there is no negative part: half of the terms vanish."""
        return tuple(replace(share, terms=_without_negative(share.terms)) for share in self.shares)

    @property
    def gated(self) -> bool:
        return any(share.gate for share in self.shares)

    def hand_down(self, x: Tensor, R: Tensor, sign: Tensor | None) -> tuple[Tensor, LayerBooks]:
        """Relevance of the input x given R of the output (and the output's sign if the rule is gated)."""
        shares = self.shares_of_nonnegative if x.numel() and x.min() >= 0 else self.shares
        handed = [h for share in shares if (h := self._share(share, x, R, sign)) is not None]
        relevance = reduce(torch.add, (h.relevance for h in handed)) if handed else torch.zeros_like(x)
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        unserved = zero if sign is None else per_image(R * (sign == 0))
        entry = LayerBooks(
            self.name,
            incoming=per_image(R),
            outgoing=per_image(relevance),
            bias=sum((h.bias for h in handed), zero),
            stabiliser=sum((h.stabiliser for h in handed), zero),
            dead=sum((h.dead for h in handed), unserved),
            gross=gross(R),
        )
        return relevance, entry

    def _share(self, share: Share, x: Tensor, R: Tensor, sign: Tensor | None) -> _Handed | None:
        """One share of the formula; None where its gate lets nothing through."""
        if share.gate and sign is not None:
            R = R * (sign == share.gate)
            if not R.any():
                return None
        c_R = R if share.coefficient == 1 else share.coefficient * R
        with torch.enable_grad():
            parts = [t.part(x).detach().requires_grad_() for t in share.terms]
            z = [self._signed(t, p) for t, p in zip(share.terms, parts, strict=True)]
        D = reduce(torch.add, (t.detach() for t in z))
        toward = torch.copysign(D.new_tensor(EPSILON), D)
        s = c_R / (D + toward)
        gradients = torch.autograd.grad(z, parts, [s] * len(z))
        relevance = reduce(torch.add, (p.detach() * g for p, g in zip(parts, gradients, strict=True)))
        dead = inner(c_R, (D == 0).to(R))
        return _Handed(relevance, self._bias(share, s), inner(s, toward) - dead, dead)

    def _signed(self, term: Term, part: Tensor) -> Tensor:
        z = self.affine(part, term.weight, term.bias)
        return z if term.sign == 1 else term.sign * z

    def _bias(self, share: Share, s: Tensor) -> Tensor:
        """sum_j s_j (sum_t sigma_t b^t)_j, the bias running along one axis of s."""
        biases = [t.sign * t.bias for t in share.terms if t.bias is not None]
        if not biases:
            return torch.zeros(len(s), dtype=torch.float64, device=s.device)
        elsewhere = [axis for axis in range(1, s.ndim) if axis != self.channel % s.ndim]
        return (s.sum(elsewhere) if elsewhere else s).double() @ reduce(torch.add, biases).double()


class _Handed(NamedTuple):
    relevance: Tensor
    bias: Tensor
    stabiliser: Tensor
    dead: Tensor


def _without_negative(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(replace(t, part=whole) if t.part is positive else t for t in terms if t.part is not negative)
