"""Class Artifact Compensation without training: erase an artifact from what goes into a layer.

    a' = a - s g L R (a - z)        numerics.erasure; g = 1, or a gate

at every position (Anders et al. 2022, Information Fusion 77), or with the amount R (mean a - z) of the whole image at
every position (`pooled`). A gate erases only where it says that the artifact is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import InputError, ModelError, UsageError, unknown_name
from klarsicht.numerics.erasure import Eraser

TRIED: Final = 6  # blocks or convolutions worth a try


@dataclass(frozen=True)
class Gate:
    """How likely the artifact is in an image: sigmoid(w . mean a + b).

    Attributes:
        weight: float32 (C,). bias: b.
    """

    weight: NDArray[np.float32]
    bias: float

    def __call__(self, a: Tensor) -> Tensor:
        """(B, P, C) -> (B, 1, 1), in [0, 1]."""
        p: Tensor = torch.sigmoid(a.mean(1) @ _as(self.weight, a) + self.bias)
        return p[:, None, None]


@dataclass(frozen=True)
class Erasure:
    """A removable correction at the input of one layer.

    Attributes:
        layer: name of the module whose input is corrected.
        eraser: L, R and z.
        strength: s, 1 erases whole.
        pooled: measure the amount on the mean over positions, and take the same from every position.
        gate: erase only where it is open.
    """

    layer: str
    eraser: Eraser
    strength: float = 1.0
    pooled: bool = False
    gate: Gate | None = None

    def __call__(self, a: Tensor) -> Tensor:
        """Activations (B, C), (B, C, H, W) or tokens (B, T, C), erased."""
        channels = len(self.eraser.reference)
        last = a if a.ndim < 4 else a.movedim(1, -1)
        if last.shape[-1] != channels:
            raise InputError(
                "activations that do not fit the correction", got=f"{tuple(a.shape)}", rule=f"{channels} channels"
            )
        flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
        measured = flat.mean(1, keepdim=True) if self.pooled else flat
        amounts = (measured - _as(self.eraser.reference, a)) @ _as(self.eraser.right, a).T
        taken = self.strength * amounts @ _as(self.eraser.left, a).T
        erased = flat - (taken if self.gate is None else self.gate(flat) * taken)
        shaped = erased.reshape(last.shape)
        return shaped if a.ndim < 4 else shaped.movedim(-1, 1)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the correction, inside the context only; weights are never touched."""
        handle = layer_named(module, self.layer).register_forward_pre_hook(
            lambda _, inputs: (self(inputs[0]), *inputs[1:])
        )
        try:
            yield module
        finally:
            handle.remove()

    def with_strength(self, strength: float) -> Erasure:
        return replace(self, strength=strength)


@dataclass(frozen=True)
class WhenPredicted:
    """An erasure for the images that the model takes for one class only: those are looked at a second time.

    Attributes:
        target: the class's output.
    """

    erasure: Erasure
    target: int

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the correction, inside the context only."""
        looking = False

        def again(root: nn.Module, inputs: tuple[Any, ...], answer: Tensor) -> Tensor:
            nonlocal looking
            if not isinstance(answer, Tensor):
                raise ModelError("the model does not answer with a tensor", got=type(answer).__name__)
            taken = answer.argmax(1) == self.target
            if looking or not taken.any():
                return answer
            looking = True
            try:
                with self.erasure.applied(root):
                    second = root(inputs[0][taken], *inputs[1:])
            finally:
                looking = False
            return answer.index_put((taken.nonzero()[:, 0],), second)

        handle = module.register_forward_hook(again)
        try:
            yield module
        finally:
            handle.remove()


def layer_named(module: nn.Module, name: str) -> nn.Module:
    """A submodule by name.

    Raises:
        UsageError: no such layer; near matches are listed.
    """
    layers = dict(module.named_modules())
    if name not in layers or not name:
        raise unknown_name("layer", name, filter(None, layers))
    found: nn.Module = layers[name]
    return found


def correction_layers(module: nn.Module, head: str = "") -> tuple[str, ...]:
    """Where a correction is worth a try, by what its input is: the last six blocks, else the last six convolutions but
    the first of all, and the head.

    A block is a child of a ModuleList or Sequential whose children hold layers of their own. Later layers already mix
    artifact and class; earlier ones do not know the artifact yet.

    Raises:
        UsageError: the module holds neither convolution nor head.
    """
    blocks = [name for name, m in module.named_modules() if _is_block(name, m, module)]
    convolutions = [name for name, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    found = (blocks or convolutions[1:] or convolutions)[-TRIED:]
    if head and not any(head.startswith(f"{name}.") for name in found):
        found = [*(name for name in found if name != head), head]
    if not found:
        raise UsageError("no layer to correct", rule="the model needs a convolution", remedy="Name a --layer.")
    return tuple(found)


def correction_layer(module: nn.Module) -> str:
    """Where to correct when nothing is measured: the input of the last block, else of the last convolution."""
    return correction_layers(module)[-1]


def _is_block(name: str, module: nn.Module, root: nn.Module) -> bool:
    parent = root.get_submodule(name.rpartition(".")[0]) if name else None
    inside = isinstance(parent, nn.ModuleList | nn.Sequential)
    deep = not isinstance(module, nn.ModuleList | nn.Sequential) and any(True for _ in module.children())
    return inside and deep and any(isinstance(m, nn.Conv2d) for m in module.modules())


def _as(values: Floats, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device)
