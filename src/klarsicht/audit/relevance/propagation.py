"""Autograd functions whose backward pass is a relevance rule.

The modules of a network temporarily get a `forward` that computes the same values, while the backward pass carries
relevance instead of gradients and records the balance of every layer. The rule is the *only* backward pass of its
layer: hooks that replace a gradient afterwards compute both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from klarsicht.audit.relevance.conservation import LayerBalance, absolute_sum, inner_product, sum_per_image
from klarsicht.audit.relevance.rules import Layer

Step = Callable[["Recorder", Tensor], Tensor]
"""Replacement forward of a module while relevance is propagated; its balance goes to the recorder."""


@dataclass
class Recorder:
    """Record of a backward pass.

    Attributes:
        entries: balances of the layers, in backward order.
        active: whether the rules apply; otherwise the network computes ordinary gradients.
    """

    entries: list[LayerBalance] = field(default_factory=list)
    active: bool = True

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Disable the rules within the context: the network computes ordinary values and gradients."""
        self.active = False
        try:
            yield
        finally:
            self.active = True


class _RuleFunction(torch.autograd.Function):
    """Autograd function of a layer with a relevance rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, recorder: Recorder) -> Tensor:
        z = layer(x)
        ctx.save_for_backward(x, z.sign().to(torch.int8) if layer.gated else None)
        ctx.layer, ctx.recorder, ctx.entry = layer, recorder, None
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None, None]:
        x, sign = ctx.saved_tensors
        relevance, ctx.entry = ctx.layer.propagate(x, R, sign)
        ctx.recorder.entries.append(ctx.entry)
        return relevance, None, None


class _PassThroughFunction(torch.autograd.Function):
    """Autograd function of an elementwise layer, which passes relevance on unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.passes = True
        y = function(x)
        return y.view_as(y) if y is x else y

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None]:
        return R, None


class _PaddingFunction(torch.autograd.Function):
    """Autograd function of constant padding; relevance of the border belongs to no pixel and counts as a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Any, name: str, recorder: Recorder) -> Tensor:
        ctx.margins, ctx.name, ctx.recorder, ctx.entry = _margins(module), name, recorder, None
        return pad(x, ctx.margins, value=getattr(module, "value", 0.0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None, None, None]:
        relevance = pad(R, [-m for m in ctx.margins])
        border = pad(torch.zeros_like(relevance), ctx.margins, value=1.0)
        zero = torch.zeros(len(R), dtype=torch.float64, device=R.device)
        ctx.entry = LayerBalance(
            ctx.name,
            incoming=sum_per_image(R),
            outgoing=sum_per_image(relevance),
            bias=inner_product(R, border),
            stabiliser=zero,
            dead=zero,
            gross=absolute_sum(R),
        )
        ctx.recorder.entries.append(ctx.entry)
        return relevance, None, None, None


def _margins(module: Any) -> list[int]:
    """Return the padding in the order of torch.nn.functional.pad: pairs, from the last axis on."""
    return [int(m) for m in module.padding]


def rule_step(layer: Layer) -> Step:
    """Make the step of a layer with a rule."""
    return lambda recorder, x: _apply(_RuleFunction, x, layer, recorder)


def pass_through_step(module: nn.Module) -> Step:
    """Make the step of an elementwise layer, which passes relevance on unchanged."""
    return lambda recorder, x: _apply(_PassThroughFunction, x, lambda x: type(module).forward(module, x))


def identity_step(module: nn.Module) -> Step:
    """Make the step of a batch norm that was merged into the preceding layer."""
    return lambda recorder, x: x


def padding_step(module: nn.Module, name: str) -> Step:
    """Make the step of a constant padding layer."""
    return lambda recorder, x: _apply(_PaddingFunction, x, module, name, recorder)


def _apply(function: Any, *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)
    return result


@contextmanager
def replace_forwards(steps: dict[nn.Module, Step]) -> Iterator[Recorder]:
    """Replace the `forward` of modules by these steps until the context ends."""
    recorder = Recorder()
    try:
        for module, step in steps.items():
            module.__dict__["forward"] = _switchable_forward(module, step, recorder)
        yield recorder
    finally:
        for module in steps:
            module.__dict__.pop("forward", None)


def _switchable_forward(module: nn.Module, step: Step, recorder: Recorder) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return step(recorder, x) if recorder.active else type(module).forward(module, x)

    return forward
