"""Relevance rules: how a layer distributes the relevance of its outputs to its inputs.

Every rule is one formula with different terms. The outputs j of a layer are sums of affine terms t over parts x^t of
its input (its positive part, its negative part, the whole input). A share p distributes relevance R_j in proportion to
its terms:

    R_i = sum_p c_p sum_t sigma_t x^t_i sum_j W^t_ji R_j g_pj / D_pj,  D_pj = sum_t sigma_t (W^t x^t + b^t)_j

with a coefficient c_p, a sign sigma_t, and a gate g_pj that restricts a share to outputs of one sign. D is kept from
zero by adding EPSILON with its own sign. The same formula gives the relevance that is *absorbed*:

    bias        sum_p c_p sum_j R_j g_pj (sum_t sigma_t b^t)_j / D_pj
    stabiliser  sum_p c_p sum_j R_j g_pj EPSILON / |D_pj|
    dead        relevance of outputs whose denominator is exactly zero, or to which no share applies

Sources: epsilon and alpha-beta, Bach et al., PLoS ONE 2015; z-plus and z-box, Montavon et al., Pattern
Recognition 2017; gamma, Montavon et al. 2019, generalised to inputs of both signs by Andeol et al. 2021;
flat, Lapuschkin et al., Nature Communications 2019. Values agree with the rules of zennit, which do not compute the
absorbed relevance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Final, NamedTuple

import torch
from torch import Tensor

from klarsicht.audit.relevance.conservation import LayerBalance, absolute_sum, inner_product, sum_per_image

EPSILON: Final = 1e-6

InputPart = Callable[[Tensor], Tensor]
"""Function that extracts the part of a layer's input that a term uses."""


def whole_input(x: Tensor) -> Tensor:
    """Return the whole input."""
    return x


def positive_part(x: Tensor) -> Tensor:
    """Return max(x, 0)."""
    return x.clamp(min=0)


def negative_part(x: Tensor) -> Tensor:
    """Return min(x, 0)."""
    return x.clamp(max=0)


def constant_input(channels: tuple[float, ...]) -> InputPart:
    """Make an input part that is constant in each channel of x (B, C, ...)."""

    def part(x: Tensor) -> Tensor:
        return x.new_tensor(channels).reshape(1, -1, *[1] * (x.ndim - 2)).expand_as(x)

    return part


@dataclass(frozen=True)
class Term:
    """Affine term sign * (weight @ part(x) + bias); weight is None for layers without parameters."""

    part: InputPart
    weight: Tensor | None
    bias: Tensor | None = None
    sign: float = 1.0


@dataclass(frozen=True)
class Share:
    """Share of relevance, distributed in proportion to its terms.

    Attributes:
        terms: the affine terms.
        coefficient: factor of the relevance.
        gate: +1 or -1 restricts the share to outputs of that sign; 0 does not.
    """

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    gate: int = 0


Rule = Callable[[Tensor | None, Tensor | None], tuple[Share, ...]]
"""Function from the weight and bias of a layer to its shares."""


def _plus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(min=0)


def _minus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(max=0)


def epsilon(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Epsilon rule: R_i = x_i sum_j W_ji R_j / z_j; without parameters it is the rule of sums and average pooling."""
    return (Share((Term(whole_input, W, b),)),)


def flat(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Flat rule: all inputs in the receptive field of an output get equal relevance."""
    return (Share((Term(torch.ones_like, None if W is None else torch.ones_like(W)),)),)


def zplus(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """z-plus rule: only positive contributions, of inputs of either sign."""
    return (Share((Term(positive_part, _plus(W), _plus(b)), Term(negative_part, _minus(W)))),)


def alpha2_beta1(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Alpha-beta rule with alpha = 2, beta = 1: twice the positive contributions minus once the negative ones."""
    return (
        Share((Term(positive_part, _plus(W), _plus(b)), Term(negative_part, _minus(W))), 2.0),
        Share((Term(positive_part, _minus(W), _minus(b)), Term(negative_part, _plus(W))), -1.0),
    )


def gamma(g: float) -> Rule:
    """Gamma rule: positive (negative) contributions are weighted by 1 + g where the output is positive (negative)."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        W_up, W_down = _add(W, g, _plus(W)), _add(W, g, _minus(W))
        return (
            Share((Term(positive_part, W_up, _add(b, g, _plus(b))), Term(negative_part, W_down)), gate=1),
            Share((Term(positive_part, W_down, _add(b, g, _minus(b))), Term(negative_part, W_up)), gate=-1),
        )

    return rule


def _add(p: Tensor | None, g: float, q: Tensor | None) -> Tensor | None:
    return None if p is None or q is None else p + g * q


def zbox(low: tuple[float, ...], high: tuple[float, ...]) -> Rule:
    """z-box rule for pixels between low and high, one number per channel in units of the model input."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        below = Term(constant_input(low), _plus(W), _plus(b), -1.0)
        above = Term(constant_input(high), _minus(W), _minus(b), -1.0)
        return (Share((Term(whole_input, W, b), below, above)),)

    return rule


@dataclass(frozen=True)
class Layer:
    """A layer with its relevance rule.

    Attributes:
        name: name of the layer in the network.
        affine: function (x, W, b) that computes the layer with given parameters.
        rule: relevance rule.
        weight, bias: parameters of the layer; None where it has none.
        channel: axis of the output along which the bias runs.
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
        """Shares of the rule, computed once and not at every call."""
        return self.rule(self.weight, self.bias)

    @cached_property
    def shares_of_nonnegative(self) -> tuple[Share, ...]:
        """Shares for inputs >= 0, such as after a ReLU: terms of the negative part are dropped."""
        return tuple(replace(share, terms=_without_negative(share.terms)) for share in self.shares)

    @property
    def gated(self) -> bool:
        """Whether any share is restricted to outputs of one sign."""
        return any(share.gate for share in self.shares)

    def propagate(self, x: Tensor, R: Tensor, sign: Tensor | None) -> tuple[Tensor, LayerBalance]:
        """Propagate relevance R of the output to the input x.

        Args:
            x: (B, ...), input.
            R: relevance of the output.
            sign: int8 sign of the output if the rule is gated, else None.

        Returns:
            Relevance of x, and the balance of the layer.
        """
        shares = self.shares_of_nonnegative if x.numel() and x.min() >= 0 else self.shares
        handed = [h for share in shares if (h := self._share(share, x, R, sign)) is not None]
        relevance = reduce(torch.add, (h.relevance for h in handed)) if handed else torch.zeros_like(x)
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        unserved = zero if sign is None else sum_per_image(R * (sign == 0))
        entry = LayerBalance(
            self.name,
            incoming=sum_per_image(R),
            outgoing=sum_per_image(relevance),
            bias=sum((h.bias for h in handed), zero),
            stabiliser=sum((h.stabiliser for h in handed), zero),
            dead=sum((h.dead for h in handed), unserved),
            gross=absolute_sum(R),
        )
        return relevance, entry

    def _share(self, share: Share, x: Tensor, R: Tensor, sign: Tensor | None) -> _ShareResult | None:
        """Compute one share of the formula; None where its gate excludes all relevance."""
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
        dead = inner_product(c_R, (D == 0).to(R))
        return _ShareResult(relevance, self._bias(share, s), inner_product(s, toward) - dead, dead)

    def _signed(self, term: Term, part: Tensor) -> Tensor:
        z = self.affine(part, term.weight, term.bias)
        return z if term.sign == 1 else term.sign * z

    def _bias(self, share: Share, s: Tensor) -> Tensor:
        """Compute the relevance absorbed by biases, sum_j s_j (sum_t sigma_t b^t)_j, float64 (B,)."""
        biases = [t.sign * t.bias for t in share.terms if t.bias is not None]
        if not biases:
            return torch.zeros(len(s), dtype=torch.float64, device=s.device)
        elsewhere = [axis for axis in range(1, s.ndim) if axis != self.channel % s.ndim]
        return (s.sum(elsewhere) if elsewhere else s).double() @ reduce(torch.add, biases).double()


class _ShareResult(NamedTuple):
    relevance: Tensor
    bias: Tensor
    stabiliser: Tensor
    dead: Tensor


def _without_negative(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(
        replace(t, part=whole_input) if t.part is positive_part else t for t in terms if t.part is not negative_part
    )
