"""Where relevance goes: what every layer receives, hands down and keeps, and whether the books balance.

Relevance propagation promises that what enters at the logit arrives at the pixels, but for what biases,
stabilisers and dead denominators keep (Bach et al., PLoS ONE 2015; Montavon et al., 2019). Each of these is
computed by its own formula while the relevance flows, never as a remainder, so that two separate questions
have an answer:

- the *residual*, seed minus arrivals minus everything kept: is the propagation **right**? A functional
  addition, a
  layer without a rule or a wrong gradient shows here, and nothing else does.
- the *absorbed share*, what was kept over the seed: is the map **useful**? Folded biases may swallow nearly
  all of it
  although every formula holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from klarsicht.ground.errors import NotConserving

RESIDUAL_BOUND: Final = 1e-3
"""Largest residual over gross relevance. In float32 right propagation stays below 1e-6 and wrong ones lie
above 1e-2."""

ABSORBED_BOUND: Final = 0.9
"""Largest share of the seed that may be kept before a map is called not conserving."""

REMEDY: Final = (
    "Write functional additions as zennit.layer.Sum over torch.stack, activations and pooling as modules; "
    "or use a gradient method, or head relevance"
)

_TRANSPARENT: Final = (
    "View",
    "Reshape",
    "Squeeze",
    "Clone",
    "Relu",
    "Permute",
    "Transpose",
    "AccumulateGrad",
    "Slice",
)
"""Autograd operations that hand relevance through by themselves; not worth naming as suspects."""


def per_image(R: Tensor) -> Tensor:
    """Sum over all but the first axis: (B, ...) -> (B,) float64."""
    return R.flatten(1).sum(1).double()


def gross(R: Tensor) -> Tensor:
    """Sum of |R| over all but the first axis: (B, ...) -> (B,) float64."""
    total: Tensor = torch.linalg.vector_norm(R.flatten(1), ord=1, dim=1)
    return total.double()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a b over all but the first axis: (B, ...), (B, ...) -> (B,) float64."""
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product.double()


@dataclass(frozen=True)
class LayerBooks:
    """The books of one layer, per image (B,): incoming = outgoing + bias + stabiliser + dead."""

    name: str
    incoming: Tensor
    outgoing: Tensor
    bias: Tensor
    stabiliser: Tensor
    dead: Tensor
    gross: Tensor
    """Sum of |R| that came in: the scale against which a mismatch is judged."""

    @property
    def absorbed(self) -> Tensor:
        return self.bias + self.stabiliser + self.dead

    @property
    def residual(self) -> Tensor:
        return self.incoming - self.outgoing - self.absorbed


@dataclass(frozen=True)
class Ledger:
    """The books of one backward pass: the seed at the logit (B,), arrivals at the pixels (B,), and the layers
    between."""

    seed: Tensor
    total: Tensor
    entries: tuple[LayerBooks, ...]

    @property
    def absorbed(self) -> Tensor:
        return sum((e.absorbed for e in self.entries), torch.zeros_like(self.seed))

    @property
    def absorbed_share(self) -> Tensor:
        return self.absorbed / self.seed

    @cached_property
    def gross(self) -> Tensor:
        """The largest sum of |R| at any layer, at least the seed: rounding errors are in proportion to it."""
        return torch.stack([self.seed.abs(), *(e.gross for e in self.entries)]).amax(0)

    @property
    def residual(self) -> Tensor:
        """Seed - arrivals - all that was kept, over the gross relevance (B,)."""
        return (self.seed - self.total - self.absorbed) / self.gross


def conserves(absorbed_share: Tensor, bound: float = ABSORBED_BOUND) -> bool:
    """Whether, in the median image, less than `bound` of the seed is kept (or made: biases may be
    negative)."""
    return bool(absorbed_share.abs().median() <= bound)


def check(ledger: Ledger, root: Any, bound: float = RESIDUAL_BOUND) -> None:
    """Refuse a propagation that loses or makes relevance beyond any formula.

    `root` is the autograd node of the logits (`logits.grad_fn`); the graph below it tells between which
    layers the books do not balance. One ill-conditioned image must not end an audit, so the median over the
    batch decides.

    Raises NotConserving naming the place.
    """
    worst = sorted(_faults(ledger, root, bound), key=lambda fault: -fault.mismatch)
    overall = _Fault("all in all", _median(ledger.residual, torch.ones_like(ledger.residual)))
    if not worst and overall.mismatch <= bound:
        return
    faults = worst or [overall]
    raise NotConserving(
        f"relevance is not conserved {'; '.join(fault.place for fault in faults[:3])}",
        got=f"{faults[0].mismatch:.2g} of what flows there unaccounted for",
        rule=f"at most {bound:g}",
        remedy=REMEDY,
    )


class _Fault(NamedTuple):
    place: str
    mismatch: float


def _faults(ledger: Ledger, root: Any, bound: float) -> Iterator[_Fault]:
    """Layers, and joints between layers, whose books do not balance."""
    for entry in ledger.entries:
        if (mismatch := _median(entry.residual, entry.gross)) > bound:
            yield _Fault(f"within {entry.name}", mismatch)
    for joint in _joints(root, ledger):
        if (mismatch := _median(joint.outgoing - joint.incoming, joint.gross)) > bound:
            yield _Fault(joint.describe(), mismatch)


def _median(mismatch: Tensor, gross: Tensor) -> float:
    """Median over images of |mismatch| / gross; a relevance that is no number counts as infinitely wrong."""
    share = mismatch.abs() / gross.clamp(min=torch.finfo(gross.dtype).tiny)
    return float(share.nan_to_num(nan=torch.inf).median())


@dataclass
class _Joint:
    """What lies between layers: relevance that the layers above hand down must reach the layers below."""

    outgoing: Tensor
    incoming: Tensor
    gross: Tensor
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    operations: set[str] = field(default_factory=set)

    def hand_down(self, name: str, outgoing: Tensor, gross: Tensor) -> None:
        self.above.append(name)
        self.outgoing = self.outgoing + outgoing
        self.gross = torch.maximum(self.gross, gross)

    def take_up(self, name: str, incoming: Tensor, gross: Tensor) -> None:
        self.below.append(name)
        self.incoming = self.incoming + incoming
        self.gross = torch.maximum(self.gross, gross)

    def describe(self) -> str:
        by = f", by the functional {', '.join(sorted(self.operations))}" if self.operations else ""
        return f"between {', '.join(self.below[:3])} and {', '.join(self.above[:3])}{by}"


def _joints(root: Any, ledger: Ledger) -> list[_Joint]:
    """The connected pieces of the autograd graph once it is cut at every layer that keeps books."""
    pieces = _Pieces()
    nodes = list(_walk(root))
    for node in nodes:
        for child, _ in node.next_functions:
            if child is not None:
                pieces.join(_lower(node), _upper(child))
    zero = torch.zeros_like(ledger.seed)
    joints: dict[Any, _Joint] = {}

    def at(side: Any) -> _Joint:
        return joints.setdefault(pieces.find(side), _Joint(zero, zero, zero))

    at(_upper(root)).hand_down("the logits", ledger.seed, ledger.seed.abs())
    for node in nodes:
        entry = getattr(node, "entry", None)
        if entry is not None:
            at(_upper(node)).take_up(entry.name, entry.incoming, entry.gross)
            at(_lower(node)).hand_down(entry.name, entry.outgoing, entry.outgoing.abs())
        elif not node.next_functions:
            at(_upper(node)).take_up("the image", ledger.total, ledger.total.abs())
        else:
            at(_upper(node)).operations.update(_suspect(node))
    return list(joints.values())


def _walk(root: Any) -> Iterator[Any]:
    """Every node of the autograd graph below `root`, once."""
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        yield node
        fresh = {child for child, _ in node.next_functions if child is not None} - seen
        seen |= fresh
        stack += fresh


def _upper(node: Any) -> tuple[Any, str]:
    return (node, "above" if hasattr(node, "entry") else "")


def _lower(node: Any) -> tuple[Any, str]:
    return (node, "below" if hasattr(node, "entry") else "")


def _suspect(node: Any) -> list[str]:
    name = re.sub(r"Backward\d*$", "", node.name())
    return [] if hasattr(node, "passes") or name.startswith(_TRANSPARENT) else [name]


class _Pieces:
    """Union-find over the sides of nodes."""

    def __init__(self) -> None:
        self._parent: dict[Any, Any] = {}

    def find(self, a: Any) -> Any:
        while (b := self._parent.get(a, a)) != a:
            a = b
        return a

    def join(self, a: Any, b: Any) -> None:
        self._parent[self.find(a)] = self.find(b)
