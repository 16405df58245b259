"""Autograd functions whose backward pass is a relevance rule: each computes the values of a torch function, while its
backward pass carries relevance instead of gradients and records the balance of relevance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from klarsicht.audit.explanation.relevance.conservation import LayerBalance, inner_product, sum_per_image
from klarsicht.audit.explanation.relevance.rules import Layer, away_from_zero, relevance_of_zeros


@dataclass
class Recorder:
    """Record of one backward pass of a batch of images: balances of the functions, in backward order. The first axis of
    every tensor is the number of images or a multiple of it (windows)."""

    images: int
    entries: list[LayerBalance] = field(default_factory=list)

    def add(self, name: str, R: Tensor, outgoing: Tensor, *absorbed: Tensor | None) -> LayerBalance:
        """Record the balance of a function that received relevance R, see `LayerBalance.of`."""
        self.entries.append(entry := LayerBalance.of(name, self.images, R, outgoing, *absorbed))
        return entry


class LayerFunction(torch.autograd.Function):
    """Layer with weights and a relevance rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, recorder: Recorder) -> Tensor:
        z, ctx.graph = layer.run(x)
        ctx.save_for_backward(x)
        ctx.layer, ctx.recorder, ctx.entry = layer, recorder, None
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None, None]:
        (x,), graph = ctx.saved_tensors, ctx.graph
        ctx.graph = None
        relevance, ctx.entry = ctx.layer.propagate(x, R, ctx.recorder.images, graph)
        ctx.recorder.entries.append(ctx.entry)
        return relevance, None, None


class EpsilonFunction(torch.autograd.Function):
    """Function y = f(x_1, ..., x_n) + b, linear in each x_k, by the epsilon rule: R_k = x_k (df/dx_k)^T R / (n y)."""

    @staticmethod
    def forward(
        ctx: Any, name: str, recorder: Recorder, f: Callable[..., Tensor], bias: Tensor | None, *xs: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in xs]
            z = f(*leaves)
        ctx.inside, ctx.bias = (leaves, z), bias
        ctx.name, ctx.recorder, ctx.entry = name, recorder, None
        return z.detach().clone() if bias is None else z.detach() + bias  # which the network may write over

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Any, ...]:
        (leaves, z), images = ctx.inside, ctx.recorder.images
        ctx.inside = None
        y = z.detach() if ctx.bias is None else z.detach() + ctx.bias
        s = R / away_from_zero(y)
        gradients = torch.autograd.grad(z, leaves, s)
        parts = [x.detach() if len(leaves) == 1 else 1 / len(leaves) * x.detach() for x in leaves]
        relevance = [part * g for part, g in zip(parts, gradients, strict=True)]
        bias = None if ctx.bias is None else inner_product(s, ctx.bias.expand_as(s), images)
        stabiliser, dead = _absorbed_by_stabiliser(s, y, R, images)
        outgoing = sum((sum_per_image(r, images) for r in relevance), torch.zeros_like(stabiliser))
        ctx.entry = ctx.recorder.add(ctx.name, R, outgoing, bias, stabiliser, dead)
        return None, None, None, None, *relevance


class SumFunction(torch.autograd.Function):
    """Sum y = a + b by the epsilon rule: R_a = a R / y; operands without relevance count as a bias."""

    @staticmethod
    def forward(ctx: Any, name: str, recorder: Recorder, a: Tensor, b: Tensor) -> Tensor:
        # what a view shows may be written over, as relative positions are written into attention
        ctx.save_for_backward(*(x.clone() if x._is_view() else x for x in (a, b)))
        ctx.name, ctx.recorder, ctx.entry = name, recorder, None
        return a + b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        (a, b), images = ctx.saved_tensors, ctx.recorder.images
        y = a + b
        s = R / away_from_zero(y)
        stabiliser, dead = _absorbed_by_stabiliser(s, y, R, images)
        outgoing, bias = torch.zeros_like(stabiliser), torch.zeros_like(stabiliser)
        relevance: list[Tensor | None] = []
        for x, carries in zip((a, b), ctx.needs_input_grad[2:], strict=True):
            r = x * s
            relevance.append(r.sum_to_size(x.shape) if carries else None)
            (outgoing if carries else bias).add_(sum_per_image(r, images))
        ctx.entry = ctx.recorder.add(ctx.name, R, outgoing, bias, stabiliser, dead)
        return None, None, relevance[0], relevance[1]


def _absorbed_by_stabiliser(s: Tensor, y: Tensor, R: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Compute what the epsilon of the denominators absorbs, and the relevance of outputs that are zero, (B,) each."""
    dead = relevance_of_zeros(R, y, images)
    return inner_product(s, away_from_zero(y) - y, images) - dead, dead


class SoftmaxFunction(torch.autograd.Function):
    """Softmax y of x + mask: R_i = x_i (R_i - y_i sum_j R_j), input times the Jacobian of y over y.

    The first-order expansion of y_j at x leaves y_j (1 - x_j + sum_i y_i x_i), which counts as a bias.
    Source: Achtibat et al., ICML 2024.
    """

    @staticmethod
    def forward(ctx: Any, name: str, recorder: Recorder, x: Tensor, mask: Tensor | None) -> Tensor:
        y = (x if mask is None else x + mask).softmax(-1)
        ctx.save_for_backward(x, y)
        ctx.name, ctx.recorder, ctx.entry = name, recorder, None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[None, None, Tensor, None]:
        (x, y), images = ctx.saved_tensors, ctx.recorder.images
        received, weighed, handed = R.sum(-1, keepdim=True), y * x, R * x
        left = inner_product(received, 1 + weighed.sum(-1, keepdim=True), images) - sum_per_image(handed, images)
        relevance = handed.addcmul_(weighed, received, value=-1)
        ctx.entry = ctx.recorder.add(ctx.name, R, sum_per_image(relevance, images), left)
        return None, None, relevance, None


class _PassThroughFunction(torch.autograd.Function):
    """Elementwise function of x with everything else held fixed; relevance passes to x unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.passes, ctx.shape = True, x.shape
        y = function(x)
        return y.view_as(y) if y is x else y

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None]:
        return R.sum_to_size(ctx.shape), None


class ConstantFunction(torch.autograd.Function):
    """Constant beside tensors that carry relevance, such as a class token; its relevance counts as a bias."""

    @staticmethod
    def forward(ctx: Any, name: str, recorder: Recorder, value: Tensor, beside: Tensor) -> Tensor:
        ctx.name, ctx.recorder, ctx.entry = name, recorder, None
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[None, None, None, None]:
        bias = sum_per_image(R, ctx.recorder.images)
        ctx.entry = ctx.recorder.add(ctx.name, R, torch.zeros_like(bias), bias)
        return None, None, None, None


class PaddingFunction(torch.autograd.Function):
    """Constant padding; relevance of the border belongs to no pixel and counts as a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, margins: list[int], value: float, name: str, recorder: Recorder) -> Tensor:
        ctx.margins, ctx.name, ctx.recorder, ctx.entry = margins, name, recorder, None
        return pad(x, margins, value=value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, None, None, None, None]:
        images = ctx.recorder.images
        relevance = pad(R, [-m for m in ctx.margins])
        border = pad(torch.zeros_like(relevance), ctx.margins, value=1.0)
        outgoing = sum_per_image(relevance, images)
        ctx.entry = ctx.recorder.add(ctx.name, R, outgoing, inner_product(R, border, images))
        return relevance, None, None, None, None


def pass_through(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute an elementwise function of x; relevance passes unchanged."""
    return compute(_PassThroughFunction, x, function)


def compute(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    """Apply an autograd function of this module."""
    result: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result
