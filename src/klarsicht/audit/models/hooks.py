"""Forward hooks on named layers, and the default layers for concepts and appearance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from klarsicht.ground.errors import ModelError, unknown_name


def late_layer(network: nn.Module, head: str) -> str:
    """Choose the default concept layer: the last stage with weights before the head.

    All information flows through the input of a stage. A stage is a child of the first module that has several
    children with weights, not counting the child that contains the head.
    """
    name = ""
    while stages := _stages(network.get_submodule(name), name, head):
        name = stages[-1]
        if len(stages) > 1:
            break
    return name or head


def _stages(module: nn.Module, name: str, head: str) -> list[str]:
    inside = [
        f"{name}.{child}".lstrip(".")
        for child, m in module.named_children()
        if any(p.ndim >= 2 for p in m.parameters())
    ]
    return [s for s in inside if s != head and not head.startswith(f"{s}.")] or [s for s in inside if s != head]


def middle_layer(network: nn.Module, look: Callable[[], object]) -> str:
    """Choose the default appearance layer: the convolution whose input resolution is halfway, in octaves, between
    that of the first and of the last convolution.

    Among convolutions of one resolution the last to run is chosen, since its input contains all earlier features of
    that resolution; of two equally near resolutions the smaller.

    Args:
        look: runs the network on one image.

    Returns:
        The name of the layer; empty for a network without convolutions.
    """
    ran: list[tuple[str, float]] = []

    def record_resolution(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, inputs, __: ran.append((name, math.log2(math.prod(inputs[0].shape[2:])) / 2))

    handles = [
        m.register_forward_hook(record_resolution(name)) for name, m in network.named_modules() if _is_convolution(m)
    ]
    try:
        look()
    finally:
        for handle in handles:
            handle.remove()
    half = (ran[0][1] + ran[-1][1]) / 2 if ran else 0
    return min(reversed(ran), key=lambda layer: (abs(layer[1] - half), layer[1]), default=("", 0))[0]


def _is_convolution(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 4


class Tap:
    """Context manager that stores input and output of a named layer at its last call.

    Raises:
        UsageError: unknown layer; the message lists near matches.
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        try:
            self._layer = module.get_submodule(layer)
        except AttributeError as error:
            raise unknown_name("layer", layer, [name for name, _ in module.named_modules() if name]) from error
        self._name = layer
        self._input: Tensor | None = None
        self.output: Any = None

    @property
    def input(self) -> Tensor:
        """Input at the last call. Raises ModelError if the layer was not called."""
        if self._input is None:
            raise ModelError(
                "the layer takes no part in the computation",
                got=repr(self._name),
                remedy="Name another by layer",
            )
        return self._input

    def __enter__(self) -> Self:
        self._handle = self._layer.register_forward_hook(self._keep)
        return self

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._input, self.output = inputs[0], output

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()
        self.clear()

    def clear(self) -> None:
        """Drop the stored tensors."""
        self._input = self.output = None


def sum_over_positions(a: Tensor) -> Tensor:
    """Sum over positions: (B, C, H, W) or tokens (B, T, C) -> (B, C); (B, C) is returned unchanged."""
    return a.sum(1) if a.ndim == 3 else a.flatten(2).sum(2) if a.ndim > 3 else a
