"""Calls of torch functions while a network runs: the module that makes them, and what their rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from klarsicht.audit.explanation.networks.hooks import temporary_hooks
from klarsicht.audit.explanation.relevance.batch_norms import BatchNorm
from klarsicht.audit.explanation.relevance.composites import Composite
from klarsicht.audit.explanation.relevance.propagation import (
    ConstantFunction,
    EpsilonFunction,
    LayerFunction,
    Recorder,
    SoftmaxFunction,
    SumFunction,
    compute,
)
from klarsicht.audit.explanation.relevance.rules import Layer, Rule

Function = Callable[..., Any]


@dataclass
class ModulePath:
    """Names of the modules that run at the moment, innermost last, kept by hooks; `layers` are those of torch.nn, and
    `types` the classes of all."""

    names: list[str] = field(default_factory=list)
    layers: set[str] = field(default_factory=set)
    types: dict[str, type[nn.Module]] = field(default_factory=dict)

    @property
    def innermost(self) -> str:
        return self.names[-1] if self.names else ""


@contextmanager
def follow_modules(network: nn.Module) -> Iterator[ModulePath]:
    """Follow which module of a network runs, until the context ends."""
    types = {name: type(module) for name, module in network.named_modules()}
    path = ModulePath(layers={name for name, t in types.items() if t.__module__.startswith("torch.nn.")}, types=types)

    def enter(name: str) -> Callable[..., None]:
        return lambda module, inputs: path.names.append(name)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        path.names.pop()

    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    with temporary_hooks(handles):
        yield path


@dataclass
class RulePlan:
    """Rules of a network's functions, for the forward passes of many batches: of layers with weights by the composite,
    with the batch norm of each layer call (see `find_norms_to_merge`), kept with its layer by number of call; which of
    the composite's exceptions were used; and by count the functions without a rule that relevance came through."""

    composite: Composite
    path: ModulePath
    norms: dict[int, BatchNorm] = field(default_factory=dict)
    layers: dict[int, tuple[Tensor, Layer]] = field(default_factory=dict)
    active: set[str | type[nn.Module]] = field(default_factory=set)
    without_rule: Counter[str] = field(default_factory=Counter)


@dataclass
class PassState:
    """State of one forward pass: the plan, the recorder of the backward pass, the rule of the first layer until that
    has run, and by id the outputs in which a batch norm was merged and those of functions whose values lie between two
    bounds."""

    plan: RulePlan
    recorder: Recorder
    first: Rule | None
    merged_outputs: dict[int, Tensor] = field(default_factory=dict)
    gates: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionCall:
    """One call of a torch function while rules are in force, after `number` calls of layers with weights."""

    state: PassState
    function: Function
    number: int

    @property
    def recorder(self) -> Recorder:
        return self.state.recorder

    def name(self, part: str = "") -> str:
        """Name the module that runs, followed by the function unless it is a layer of torch.nn, and a part of it."""
        path = self.state.plan.path
        module = path.innermost
        function: str = getattr(self.function, "__name__", "function").strip("_")
        return ".".join(filter(None, (module, "" if module in path.layers else function, part)))

    def exception(self) -> Rule | None:
        """Find the rule that the composite gives to this layer by itself: that of the innermost module that runs and
        has one, by its name before its type; None where it has none."""
        plan = self.state.plan
        for module in reversed(plan.path.names):
            for key, rule in plan.composite.layers:
                if key == module:
                    plan.active.add(key)
                    return rule
            for key, rule in plan.composite.layers:
                if isinstance(key, type) and issubclass(plan.path.types[module], key):
                    plan.active.add(key)
                    return rule
        return None

    def linear(self, f: Callable[..., Tensor], *xs: Tensor, bias: Tensor | None = None, part: str = "") -> Tensor:
        """Compute f(*xs) + bias, linear in each x, by the epsilon rule, with an equal share for each."""
        return compute(EpsilonFunction, self.name(part), self.recorder, f, bias, *xs)

    def sum(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute a + b by the epsilon rule."""
        return compute(SumFunction, self.name(), self.recorder, a, b)

    def softmax(self, x: Tensor, mask: Tensor | None = None, part: str = "") -> Tensor:
        """Compute softmax(x + mask) over the last axis, by its own rule."""
        return compute(SoftmaxFunction, self.name(part), self.recorder, x, mask)

    def constant(self, value: Tensor, beside: Tensor) -> Tensor:
        """Return a constant whose relevance counts as a bias; `beside` is any tensor that carries relevance."""
        return compute(ConstantFunction, self.name(), self.recorder, value, beside)

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
            layer = Layer(self.name(), affine, rule, W, b, channel)
            plan.layers[self.number] = weight, layer
        z = compute(LayerFunction, x, layer, self.recorder)
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
