"""Relevance rules: the distribution of the relevance of a layer's outputs to its inputs.

Every rule is one formula with different terms. The outputs j of a layer are sums of affine terms t over parts x^t of
its input (its positive part, its negative part, the whole input). A share p distributes relevance R_j in proportion to
its terms, with a coefficient c_p and a factor f_tj = f_t, or f_t times the sign of output j. D is kept from zero by
adding a small epsilon with its own sign; what is *absorbed* by biases and epsilon, or where D is zero (dead), follows:

    R_i        = sum_p c_p sum_t x^t_i sum_j W^t_ji R_j f_tj / D_pj,  D_pj = sum_t f_tj (W^t x^t + b^t)_j
    bias       = sum_p c_p sum_j R_j (sum_t f_tj b^t_j) / D_pj
    stabiliser = sum_p c_p sum_j R_j epsilon_p / |D_pj|

Epsilon and alpha-beta: Bach et al., PLoS ONE 2015; z-plus and z-box: Montavon et al., Pattern Recognition 2017; gamma:
Montavon et al. 2019, for inputs of both signs Andeol et al. 2021; flat: Lapuschkin et al., Nature Communications 2019;
without the bias: Alber et al., JMLR 2019.
Of contributions c_ij = x_i W_ji the positive ones are (c + |c|) / 2, and |c| = |x| |W|; so gamma is one share of z and
of |W| |x| with the sign of z, in two forward and two backward passes instead of four and four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Final

import torch
from torch import Tensor

from klarsicht.audit.explanation.relevance.conservation import LayerBalance, inner_product, sum_per_image
from klarsicht.ground.machine.devices import widest_float

EPSILON: Final = 1e-6
FLAT_WEIGHT: Final = 1e-4  # of equal parts beside a layer's mean weight, where the bias is ignored

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


def magnitude(x: Tensor) -> Tensor:
    """Return |x|."""
    return x.abs()


def constant_input(channels: tuple[float, ...]) -> InputPart:
    """Make an input part that is constant in each channel of x (B, C, ...)."""

    def part(x: Tensor) -> Tensor:
        values = torch.tensor(channels, dtype=x.dtype).to(x.device)
        return values.reshape(1, -1, *[1] * (x.ndim - 2)).expand_as(x)

    return part


@dataclass(frozen=True)
class Term:
    """Affine term factor * (weight @ part(x) + bias), `signed` where it is multiplied by the sign of the first term of
    its share; weight is None for layers without parameters."""

    part: InputPart
    weight: Tensor | None
    bias: Tensor | None = None
    factor: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class Share:
    """Share of relevance, distributed in proportion to its terms and multiplied by a coefficient; `epsilon`, by default
    EPSILON, keeps the denominators from zero."""

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    epsilon: float | None = None

    @property
    def signed(self) -> bool:
        """Whether a term has the sign of the first; D then has that sign, too, and is 0 where the first is."""
        return any(t.signed for t in self.terms)


Rule = Callable[[Tensor | None, Tensor | None], tuple[Share, ...]]
"""Function from the weight and bias of a layer to its shares."""


def _plus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(min=0)


def _minus(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.clamp(max=0)


def epsilon(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Epsilon rule: R_i = x_i sum_j W_ji R_j / z_j; without parameters it is the rule of sums and average pooling."""
    return (Share((Term(whole_input, W, b),)),)


def epsilon_of(size: float) -> Rule:
    """Epsilon rule with a larger epsilon, which absorbs the relevance of outputs near zero."""
    return lambda W, b: tuple(replace(share, epsilon=size) for share in epsilon(W, b))


def flat(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """Flat rule: all inputs in the receptive field of an output get equal relevance."""
    return (Share((Term(torch.ones_like, None if W is None else torch.ones_like(W)),)),)


def zplus(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """z-plus rule: only positive contributions, of inputs of either sign."""
    return (Share((Term(positive_part, _plus(W), _plus(b)), Term(negative_part, _minus(W)))),)


def zplus_ignore_bias(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
    """z-plus rule without the bias, so that it absorbs nothing; an output that no input raises, because its bias alone
    does, hands its relevance to its receptive field in equal parts, as the flat rule does."""
    (share,) = zplus(W, None)
    if W is None:
        return (share,)
    flat_term = Term(torch.ones_like, torch.full_like(W, FLAT_WEIGHT * float(W.abs().mean())))
    return (replace(share, terms=(*share.terms, flat_term)),)


def alpha_beta(alpha: float, beta: float) -> Rule:
    """Alpha-beta rule: alpha times the positive contributions minus beta times the negative ones; relevance is
    conserved where alpha - beta is 1."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        return (
            Share((Term(positive_part, _plus(W), _plus(b)), Term(negative_part, _minus(W))), alpha),
            Share((Term(positive_part, _minus(W), _minus(b)), Term(negative_part, _plus(W))), -beta),
        )

    return rule


def gamma(g: float) -> Rule:
    """Gamma rule: positive (negative) contributions are weighted by 1 + g where the output is positive (negative)."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        W_size, b_size = (None if p is None else p.abs() * (g / 2) for p in (W, b))
        return (Share((Term(whole_input, W, b, 1 + g / 2), Term(magnitude, W_size, b_size, signed=True))),)

    return rule


def zbox(low: tuple[float, ...], high: tuple[float, ...]) -> Rule:
    """z-box rule for pixels between low and high, one number per channel in units of the model input."""

    def rule(W: Tensor | None, b: Tensor | None) -> tuple[Share, ...]:
        below = Term(constant_input(low), _plus(W), _plus(b), -1.0)
        above = Term(constant_input(high), _minus(W), _minus(b), -1.0)
        return (Share((Term(whole_input, W, b), below, above)),)

    return rule


@dataclass(frozen=True)
class Layer:
    """A layer with its relevance rule: `affine` (x, W, b) computes it with given parameters, None where it has none;
    the bias runs along the axis `channel` of the output."""

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

    def run(self, x: Tensor) -> tuple[Tensor, Graph | None]:
        """Compute the output; with it the autograd graph, where the rule uses it."""
        if not self.uses_output:
            return self(x), None
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            z = self(leaf)
        return z.detach(), (leaf, z)

    @cached_property
    def uses_output(self) -> bool:
        """Whether a term of the rule is the layer itself, so that its forward pass need not be repeated."""
        return any(t.part is whole_input and t.weight is self.weight for share in self.shares for t in share.terms)

    def propagate(
        self, x: Tensor, R: Tensor, images: int | None = None, graph: Graph | None = None
    ) -> tuple[Tensor, LayerBalance]:
        """Propagate relevance R of the output to the input x (B, ...); return it with the balance of the layer. The
        first axis of x may be a multiple of the number of images; `graph` are input and output in the autograd graph of
        the forward pass, if kept."""
        images = len(x) if images is None else images
        shares = self.shares_of_nonnegative if x.numel() and x.min() >= 0 else self.shares
        bias, stabiliser, dead = torch.zeros(3, images, dtype=widest_float(x.device), device=x.device)
        graphs: dict[tuple[InputPart, int], Graph] = {}
        flows: dict[tuple[InputPart, int], Tensor] = {}
        for share in shares:
            z = [self._graph(t, x, graphs, graph)[1].detach() for t in share.terms]
            sign = z[0].sign() if share.signed else None
            D = _denominator(share.terms, z, sign)
            s, signed, by_epsilon, nothing = _over(
                R, D, sign, images, EPSILON if share.epsilon is None else share.epsilon
            )
            if share.coefficient != 1:
                s *= share.coefficient
            stabiliser += share.coefficient * by_epsilon
            dead += share.coefficient * nothing
            for t in share.terms:
                flow = _scale(t.factor, signed if t.signed else s)
                bias += self._absorption(t.bias, flow, images)
                key = _key(t)
                flows[key] = flows[key] + flow if key in flows else flow
        relevance = _handed_down(graphs, flows, x)
        outgoing = sum_per_image(relevance, images)
        return relevance, LayerBalance.of(self.name, images, R, outgoing, bias, stabiliser, dead)

    def _graph(self, term: Term, x: Tensor, graphs: dict[tuple[InputPart, int], Graph], forward: Graph | None) -> Graph:
        """Compute a term's part and affine output in an autograd graph, each once."""
        key = _key(term)
        if key not in graphs:
            if forward is not None and term.part is whole_input and term.weight is self.weight:
                graphs[key] = forward
            else:
                with torch.enable_grad():
                    part = term.part(x).detach().requires_grad_()
                    graphs[key] = part, self.affine(part, term.weight, term.bias)
        return graphs[key]

    def _absorption(self, bias: Tensor | None, s: Tensor, images: int) -> Tensor:
        """Compute the relevance absorbed by a bias, sum_j s_j b_j, float64 (B,)."""
        if bias is None:
            return torch.zeros(images, dtype=widest_float(s.device), device=s.device)
        elsewhere = [axis for axis in range(1, s.ndim) if axis != self.channel % s.ndim]
        wide = widest_float(s.device)
        absorbed = (s.sum(elsewhere) if elsewhere else s).to(wide) @ bias.to(wide)
        return absorbed.reshape(images, -1).sum(1)


Graph = tuple[Tensor, Tensor]
"""Input and output of an affine function, connected in an autograd graph."""


def away_from_zero(y: Tensor) -> Tensor:
    """Add EPSILON with the sign of y to y."""
    return torch.copysign(torch.full((), EPSILON, dtype=y.dtype, device=y.device), y).add_(y)


def _denominator(terms: tuple[Term, ...], z: list[Tensor], sign: Tensor | None) -> Tensor:
    """Compute D = sum_t f_t z_t of affine outputs z, those of signed terms times the sign of the layer's output."""
    assert not terms[0].signed
    D = _scale(terms[0].factor, z[0])
    for t, value in zip(terms[1:], z[1:], strict=True):
        fresh = D is not z[0]
        if t.signed and sign is not None:
            D = torch.addcmul(D, value, sign, value=t.factor, out=D if fresh else None)
        else:
            D = torch.add(D, value, alpha=t.factor, out=D if fresh else None)
    return D


def _over(
    R: Tensor, D: Tensor, sign: Tensor | None, images: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute s = R / (D + epsilon sign(D)), s times a given sign, what epsilon absorbs, and the relevance of outputs
    with D = 0, (B,) each. `sign` is that of D, with 0 where D is, and s is 0 there; None where it is not known."""
    if sign is None:
        added = torch.copysign(torch.full((), epsilon, dtype=D.dtype, device=D.device), D)
        s = R / (D + added)
        dead = relevance_of_zeros(R, D, images)
        return s, s, inner_product(s, added, images) - dead, dead
    size = D.abs()
    dead = relevance_of_zeros(R, size, images, nonnegative=True)
    s = (R * sign).div_(size.add_(epsilon))
    signed = s * sign
    return s, signed, epsilon * sum_per_image(signed, images), dead


def relevance_of_zeros(R: Tensor, D: Tensor, images: int, nonnegative: bool = False) -> Tensor:
    """Sum relevance R where D is zero: float64 (B,)."""
    if D.numel() and (D if nonnegative else D.abs()).amin() > 0:
        return torch.zeros(images, dtype=widest_float(R.device), device=R.device)
    return inner_product(R, (D == 0).to(R), images)


def _handed_down(
    graphs: dict[tuple[InputPart, int], Graph], flows: dict[tuple[InputPart, int], Tensor], x: Tensor
) -> Tensor:
    """Compute sum_t x^t . (W^t)^T s^t, in one product for the terms of one part of the input."""
    gradients: dict[InputPart, tuple[Tensor, Tensor]] = {}
    for key, s in flows.items():
        part, z = graphs[key]
        (gradient,) = torch.autograd.grad(z, part, s)
        found = gradients.get(key[0])
        gradients[key[0]] = part.detach(), gradient if found is None else found[1].add_(gradient)
    handed = [gradient.mul_(part) for part, gradient in gradients.values()]
    return reduce(torch.add, handed) if handed else torch.zeros_like(x)


def _scale(factor: float, a: Tensor) -> Tensor:
    return a if factor == 1 else factor * a


def _key(term: Term) -> tuple[InputPart, int]:
    return term.part, id(term.weight)


def _without_negative(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    return tuple(
        replace(t, part=whole_input) if t.part in (positive_part, magnitude) else t
        for t in terms
        if t.part is not negative_part
    )
