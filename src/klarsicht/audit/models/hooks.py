"""Listening at a named layer of a network while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from klarsicht.ground.errors import ModelError, unknown_name


def late_layer(network: nn.Module, head: str) -> str:
    """The default layer of concepts: the last stage with weights before the head; its input is a full cut of
    the net.

    A stage is a child of the first module that has several children with weights (not counting what holds the
    head).
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
    """The default layer of appearance: halfway, in octaves, from the side of the picture to that of the last maps.

    Of the convolutions of one resolution it is the last to run, whose input is all that was made of it; of two
    resolutions equally near the smaller.

    Args:
        look: runs the network on one picture.

    Returns:
        Its name; empty for a network without convolutions.
    """
    ran: list[tuple[str, float]] = []

    def told(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, inputs, __: ran.append((name, math.log2(math.prod(inputs[0].shape[2:])) / 2))

    handles = [m.register_forward_hook(told(name)) for name, m in network.named_modules() if _convolves(m)]
    try:
        look()
    finally:
        for handle in handles:
            handle.remove()
    half = (ran[0][1] + ran[-1][1]) / 2 if ran else 0
    return min(reversed(ran), key=lambda layer: (abs(layer[1] - half), layer[1]), default=("", 0))[0]


def _convolves(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 4


class Tap:
    """Keeps what went into a named layer, and what came out, at its last call."""

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
        self.forget()

    def forget(self) -> None:
        self._input = self.output = None


def over_space(a: Tensor) -> Tensor:
    """Summed over positions: (B, C, H, W) and tokens (B, T, C) -> (B, C); (B, C) as it is."""
    return a.sum(1) if a.ndim == 3 else a.flatten(2).sum(2) if a.ndim > 3 else a
