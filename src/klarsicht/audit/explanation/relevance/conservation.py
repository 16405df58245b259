"""Conservation check of relevance propagation: the relevance that each layer receives, passes on and absorbs.

Relevance of the logit arrives at the pixels, except for the part that biases, stabilisers and zero denominators absorb
(Bach et al., PLoS ONE 2015; Montavon et al., 2019). Each absorbed part is computed by its own formula during the
backward pass, never as a remainder, so that two questions are answered separately:

- the *residual*, seed minus relevance at the pixels minus everything absorbed, tests whether the propagation is
**correct**: a functional addition, a layer without a rule or a wrong gradient appears here;

- the *absorbed share*, absorbed relevance over the seed, tests whether the map is **useful**.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import torch
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

from klarsicht.ground.errors import NotConserving
from klarsicht.ground.machine.devices import widest_float

RESIDUAL_BOUND: Final = 1e-3
"""Largest admissible residual over gross relevance. In float32 correct propagations stay below 1e-6 and wrong ones lie
above 1e-2."""

ABSORBED_BOUND: Final = 0.9
"""Largest share of the seed that may be absorbed before a map is called not conserving."""

REMEDY: Final = "Use a gradient method (GradientTimesInput, IntegratedGradients, SmoothGrad) or head relevance"

_TRANSPARENT: Final = (
    "View", "Reshape", "Squeeze", "Clone", "Relu", "Permute", "Transpose", "AccumulateGrad", "Slice",
)  # fmt: skip
"""Autograd operations that preserve relevance and are therefore never reported as a cause."""


def sum_per_image(R: Tensor, images: int | None = None) -> Tensor:
    """Sum over all axes but that of B images, (B, ...) or of windows of images (B . n, ...): -> (B,) float64."""
    return _per_image(R, images).sum(1).to(widest_float(R.device))


def absolute_sum(R: Tensor, images: int | None = None) -> Tensor:
    """Sum absolute values over all axes but that of images: (B, ...) -> (B,) float64."""
    return _per_image(R, images).abs().sum(1).to(widest_float(R.device))


def inner_product(a: Tensor, b: Tensor, images: int | None = None) -> Tensor:
    """Compute inner products over all axes but that of images: (B, ...), (B, ...) -> (B,) float64."""
    product: Tensor = torch.linalg.vecdot(_per_image(a, images), _per_image(b, images))
    return product.to(widest_float(a.device))


def _per_image(R: Tensor, images: int | None) -> Tensor:
    if images is not None and len(R) % images:
        got, rule = f"shape {tuple(R.shape)} for {images} images", "images, or windows of images, come first"
        raise NotConserving("the first axis of a tensor does not count images", got=got, rule=rule, remedy=REMEDY)
    return R.flatten(1) if images is None or images == len(R) else R.reshape(images, -1)


@dataclass(frozen=True)
class LayerBalance:
    """Relevance balance of one layer, per image (B,) float64: incoming = outgoing + bias + stabiliser + dead. Absorbed
    are the relevance of biases, of the epsilon of denominators, and of outputs whose denominator is zero; `gross` is
    the sum of the absolute incoming relevance, the scale of the residual."""

    name: str
    incoming: Tensor
    outgoing: Tensor
    bias: Tensor
    stabiliser: Tensor
    dead: Tensor
    gross: Tensor

    @classmethod
    def of(
        cls, name: str, images: int, R: Tensor, outgoing: Tensor, bias: Tensor | None = None,
        stabiliser: Tensor | None = None, dead: Tensor | None = None,
    ) -> LayerBalance:  # fmt: skip
        """Balance a layer that received relevance R; the other terms are float64 (B,)."""
        incoming = sum_per_image(R, images)
        zero = torch.zeros_like(incoming)
        bias, stabiliser, dead = (zero if term is None else term for term in (bias, stabiliser, dead))
        return cls(name, incoming, outgoing, bias, stabiliser, dead, absolute_sum(R, images))

    @property
    def absorbed(self) -> Tensor:
        return self.bias + self.stabiliser + self.dead

    @property
    def residual(self) -> Tensor:
        return self.incoming - self.outgoing - self.absorbed


@dataclass(frozen=True)
class RelevanceBalance:
    """Relevance balance of one backward pass: relevance of the logit, sum of relevance over the pixels, (B,) each, and
    the balance of each layer in backward order."""

    seed: Tensor
    total: Tensor
    layers: tuple[LayerBalance, ...]

    @property
    def absorbed(self) -> Tensor:
        return sum((e.absorbed for e in self.layers), torch.zeros_like(self.seed))

    @property
    def absorbed_share(self) -> Tensor:
        return self.absorbed / self.seed

    @cached_property
    def gross(self) -> Tensor:
        """Gross relevance (B,): the largest sum of |R| at any layer or the seed; rounding errors scale with it."""
        return torch.stack([self.seed.abs(), *(e.gross for e in self.layers)]).amax(0)

    @property
    def noise(self) -> Tensor:
        """Noise (B,): gross relevance over the seed, 1 where relevance never changes its sign."""
        return self.gross / self.seed.abs()

    @property
    def residual(self) -> Tensor:
        """Residual (B,): (seed - total - absorbed) / gross."""
        return (self.seed - self.total - self.absorbed) / self.gross


def conserves(absorbed_share: Tensor, bound: float = ABSORBED_BOUND) -> bool:
    """Test whether the median over images of |absorbed share| is at most `bound`; biases can also add relevance."""
    return bool(absorbed_share.abs().median() <= bound)


def check_conservation(balance: RelevanceBalance, root: Any, bound: float = RESIDUAL_BOUND) -> None:
    """Check that a propagation neither loses nor creates relevance beyond the formulas, in the median over the batch,
    so that one ill-conditioned image does not end an audit. The graph below `root`, the autograd node of the logits,
    locates an imbalance between layers. Raises NotConserving, which names the place, where the residual exceeds the
    bound."""
    worst = sorted(_imbalances(balance, root, bound), key=lambda imbalance: -imbalance.mismatch)
    overall = _Imbalance("all in all", _median_share(balance.residual, torch.ones_like(balance.residual)))
    if not worst and overall.mismatch <= bound:
        return
    imbalances = worst or [overall]
    what = f"relevance is not conserved {'; '.join(imbalance.place for imbalance in imbalances[:3])}"
    got = f"{imbalances[0].mismatch:.2g} of what flows there unaccounted for"
    raise NotConserving(what, got=got, rule=f"at most {bound:g}", remedy=REMEDY)


class _Imbalance(NamedTuple):
    place: str
    mismatch: float


def _imbalances(balance: RelevanceBalance, root: Any, bound: float) -> Iterator[_Imbalance]:
    """Find layers, and junctions between layers, whose residual exceeds the bound."""
    for entry in balance.layers:
        if (mismatch := _median_share(entry.residual, entry.gross)) > bound:
            yield _Imbalance(f"within {entry.name}", mismatch)
    for junction in _junctions(root, balance):
        if (mismatch := _median_share(junction.outgoing - junction.incoming, junction.gross)) > bound:
            yield _Imbalance(junction.describe(), mismatch)


def _median_share(mismatch: Tensor, gross: Tensor) -> float:
    """Compute the median over images of |mismatch| / gross; NaN counts as infinite."""
    share = mismatch.abs() / gross.clamp(min=torch.finfo(gross.dtype).tiny)
    return float(share.nan_to_num(nan=torch.inf).median())


@dataclass
class _Junction:
    """Part of the autograd graph between layers: relevance from the layers above must all reach the layers below."""

    outgoing: Tensor
    incoming: Tensor
    gross: Tensor
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    operations: set[str] = field(default_factory=set)

    def add_outgoing(self, name: str, outgoing: Tensor, gross: Tensor) -> None:
        self.above.append(name)
        self.outgoing = self.outgoing + outgoing
        self.gross = torch.maximum(self.gross, gross)

    def add_incoming(self, name: str, incoming: Tensor, gross: Tensor) -> None:
        self.below.append(name)
        self.incoming = self.incoming + incoming
        self.gross = torch.maximum(self.gross, gross)

    def describe(self) -> str:
        by = f", by the functional {', '.join(sorted(self.operations))}" if self.operations else ""
        return f"between {', '.join(self.below[:3])} and {', '.join(self.above[:3])}{by}"


def _junctions(root: Any, balance: RelevanceBalance) -> list[_Junction]:
    """Find the connected components of the autograd graph after removing every layer that has a balance."""
    nodes = list(_iterate_nodes(root))
    pieces = DisjointSet(side for node in nodes for side in (_upper(node), _lower(node)))
    for node in nodes:
        for child, _ in node.next_functions:
            if child is not None:
                pieces.merge(_lower(node), _upper(child))
    zero = torch.zeros_like(balance.seed)
    junctions: dict[Any, _Junction] = {}

    def at(side: Any) -> _Junction:
        return junctions.setdefault(pieces[side], _Junction(zero, zero, zero))

    at(_upper(root)).add_outgoing("the logits", balance.seed, balance.seed.abs())
    for node in nodes:
        entry = getattr(node, "entry", None)
        if entry is not None:
            at(_upper(node)).add_incoming(entry.name, entry.incoming, entry.gross)
            at(_lower(node)).add_outgoing(entry.name, entry.outgoing, entry.outgoing.abs())
        elif not node.next_functions:
            at(_upper(node)).add_incoming("the image", balance.total, balance.total.abs())
        else:
            name = re.sub(r"Backward\d*$", "", node.name())
            if not (hasattr(node, "passes") or name.startswith(_TRANSPARENT)):
                at(_upper(node)).operations.add(name)
    return list(junctions.values())


def _iterate_nodes(root: Any) -> Iterator[Any]:
    """Iterate over all nodes of the autograd graph below `root`, each once."""
    visited_nodes, stack = {root}, [root]
    while stack:
        node = stack.pop()
        yield node
        fresh = {child for child, _ in node.next_functions if child is not None} - visited_nodes
        visited_nodes |= fresh
        stack += fresh


def _upper(node: Any) -> tuple[Any, str]:
    return (node, "above" if hasattr(node, "entry") else "")


def _lower(node: Any) -> tuple[Any, str]:
    return (node, "below" if hasattr(node, "entry") else "")
