"""Calls of torch functions while a network runs: the module that makes them, and what their rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from klarsicht.audit.explanation.relevance.batch_norms import BatchNorm
from klarsicht.audit.explanation.relevance.composites import Composite
from klarsicht.audit.explanation.relevance.propagation import (
    Recorder,
    absorb_constant,
    propagate_layer,
    propagate_linear,
    propagate_sum,
)
from klarsicht.audit.explanation.relevance.rules import Layer, Rule

Function = Callable[..., Any]


@dataclass
class ModulePath:
    """Names of the modules that run at the moment, innermost last, kept by hooks; `layers` are those of torch.nn."""

    names: list[str] = field(default_factory=list)
    layers: set[str] = field(default_factory=set)

    @property
    def innermost(self) -> str:
        return self.names[-1] if self.names else ""


@contextmanager
def follow_modules(network: nn.Module) -> Iterator[ModulePath]:
    """Follow which module of a network runs, until the context ends."""
    layers = {name for name, m in network.named_modules() if type(m).__module__.startswith("torch.nn.")}
    path = ModulePath(layers=layers)

    def enter(name: str) -> Callable[..., None]:
        return lambda module, inputs: path.names.append(name)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        path.names.pop()

    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class RulePlan:
    """Rules of a network's functions, for the forward passes of many batches.

    Attributes:
        composite: rules of the layers with weights.
        path: the modules that run at the moment.
        norms: batch norm by the number of the layer call whose output it receives; see `find_norms_to_merge`.
        layers: weight and layer with its rule by number of call, kept from one batch to the next.
        without_rule: functions without a rule that relevance came through, named with their module, by count.
    """

    composite: Composite
    path: ModulePath
    norms: dict[int, BatchNorm] = field(default_factory=dict)
    layers: dict[int, tuple[Tensor, Layer]] = field(default_factory=dict)
    without_rule: Counter[str] = field(default_factory=Counter)


@dataclass
class PassState:
    """State of one forward pass.

    Attributes:
        plan: rules of the network.
        recorder: receives the balances of the backward pass.
        first: rule of the first layer, until that has run.
        merged_outputs: outputs of layers in which a batch norm was merged, by id.
        gates: outputs of functions whose values lie between two bounds, by id.
    """

    plan: RulePlan
    recorder: Recorder
    first: Rule | None
    merged_outputs: dict[int, Tensor] = field(default_factory=dict)
    gates: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionCall:
    """One call of a torch function while rules are in force.

    Attributes:
        number: how many layers with weights were called before.
    """

    state: PassState
    function: Function
    number: int

    @property
    def name(self) -> str:
        """Name of the module that runs, followed by that of the function unless it is a layer of torch.nn."""
        path = self.state.plan.path
        module = path.innermost
        if module in path.layers:
            return module
        name: str = getattr(self.function, "__name__", "function")
        return f"{module}.{name.strip('_')}".lstrip(".")

    def linear(self, f: Callable[..., Tensor], *xs: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute f(*xs) + bias, linear in each x, by the epsilon rule."""
        return propagate_linear(self.state.recorder, self.name, f, *xs, bias=bias)

    def sum(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute a + b by the epsilon rule."""
        return propagate_sum(self.state.recorder, self.name, a, b)

    def constant(self, value: Tensor, beside: Tensor) -> Tensor:
        """Let the relevance of a constant count as a bias."""
        return absorb_constant(self.state.recorder, self.name, value, beside)

    def layer(
        self, affine: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, channel: int, rule: Rule
    ) -> Tensor:
        """Compute a layer with weights by a rule, with the batch norm that follows it merged."""
        plan = self.state.plan
        norm = plan.norms.get(self.number)
        source, layer = plan.layers.get(self.number, (None, None))
        if layer is None or source is not weight:
            W, b = weight.detach(), None if bias is None else bias.detach()
            W, b = (W, b) if norm is None else norm.merge(W, b)
            layer = Layer(self.name, affine, rule, W, b, channel)
            plan.layers[self.number] = weight, layer
        z = propagate_layer(self.state.recorder, layer, x)
        if norm is not None:
            self.state.merged_outputs[id(z)] = z
        return z


def changes_in_place(function: Function) -> bool:
    """Test whether a function changes its first argument: its name ends in one underscore, or is `__i...__`."""
    name: str = getattr(function, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in IN_PLACE_OPERATORS


def carries_relevance(a: Any) -> bool:
    """Test whether a is a tensor of the part of the network that depends on the image."""
    return isinstance(a, Tensor) and a.requires_grad and a.is_floating_point()


IN_PLACE_OPERATORS = frozenset({"__iadd__", "__isub__", "__imul__", "__itruediv__"})
