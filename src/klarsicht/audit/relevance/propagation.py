"""Relevance in place of the gradient: autograd functions whose backward pass is a relevance rule.

The modules of a network borrow a new `forward` that computes the same values; the backward pass then carries
relevance instead of gradients, and every layer writes its books as it goes. The rule is the *only* backward
pass of its layer: hooks that replace a gradient after the fact pay for both.
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

from klarsicht.audit.relevance.conservation import LayerBooks, gross, inner, per_image
from klarsicht.audit.relevance.rules import Layer

Step = Callable[["Recorder", Tensor], Tensor]
"""What a module computes while relevance is propagated; its books go to the recorder."""


@dataclass
class Recorder:
    """The entries of the backward pass that runs, and whether rules are in force at all."""

    entries: list[LayerBooks] = field(default_factory=list)
    active: bool = True

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The plain network for a while: ordinary values, ordinary gradients."""
        self.active = False
        try:
            yield
        finally:
            self.active = True


class _Ruled(torch.autograd.Function):
    """A layer with a rule."""

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
        relevance, ctx.entry = ctx.layer.hand_down(x, R, sign)
        ctx.recorder.entries.append(ctx.entry)
        return relevance, None, None


class _Passed(torch.autograd.Function):
    """An elementwise layer: relevance goes through unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.passes = True
        y = function(x)
        return y.view_as(y) if y is x else y

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None]:
        return R, None


class _Padded(torch.autograd.Function):
    """Constant padding: relevance of the border belongs to no pixel and counts as a bias."""

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
        ctx.entry = LayerBooks(
            ctx.name,
            incoming=per_image(R),
            outgoing=per_image(relevance),
            bias=inner(R, border),
            stabiliser=zero,
            dead=zero,
            gross=gross(R),
        )
        ctx.recorder.entries.append(ctx.entry)
        return relevance, None, None, None


def _margins(module: Any) -> list[int]:
    """Padding as torch.nn.functional.pad wants it: pairs from the last axis on."""
    return [int(m) for m in module.padding]


def ruled(layer: Layer) -> Step:
    return lambda recorder, x: _apply(_Ruled, x, layer, recorder)


def passed(module: nn.Module) -> Step:
    return lambda recorder, x: _apply(_Passed, x, lambda x: type(module).forward(module, x))


def removed(module: nn.Module) -> Step:
    """For a batch norm that was merged into the layer before it."""
    return lambda recorder, x: x


def padded(module: nn.Module, name: str) -> Step:
    return lambda recorder, x: _apply(_Padded, x, module, name, recorder)


def _apply(function: Any, *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)
    return result


@contextmanager
def steps_in_place(steps: dict[nn.Module, Step]) -> Iterator[Recorder]:
    """The modules compute by these steps until the context ends."""
    recorder = Recorder()
    try:
        for module, step in steps.items():
            module.__dict__["forward"] = _switch(module, step, recorder)
        yield recorder
    finally:
        for module in steps:
            module.__dict__.pop("forward", None)


def _switch(module: nn.Module, step: Step, recorder: Recorder) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return step(recorder, x) if recorder.active else type(module).forward(module, x)

    return forward
