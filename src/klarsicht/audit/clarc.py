"""Class Artifact Compensation: relieve a model of an artifact without training it.

Activations a at the input of a layer, a unit direction v that separates images with the artifact from the others,
and z, the mean over clean images and positions. The projection sets the component along v to that of clean images,
at every position (Anders et al. 2022, Information Fusion 77, P-ClArC):

    a' = a + v (v.z - v.a)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.numerics.neighbours import centre_by_group

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Projection:
    """A removable correction at the input of one layer.

    Attributes:
        layer: name of the module whose input is corrected.
        direction: v, float32 (C,), of length one.
        reference: z, float32 (C,), the mean activation of clean images.
    """

    layer: str
    direction: NDArray[np.float32]
    reference: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.direction.shape != self.reference.shape or self.direction.ndim != 1:
            raise InputError(
                "direction and reference do not match",
                got=f"{self.direction.shape} and {self.reference.shape}",
                rule="both are (C,)",
            )

    def __call__(self, a: Tensor) -> Tensor:
        """a' = a + v (v.z - v.a) for activations (B, C) or (B, C, H, W), at every position."""
        v = torch.as_tensor(self.direction, dtype=a.dtype, device=a.device)
        z = torch.as_tensor(self.reference, dtype=a.dtype, device=a.device)
        v_a = torch.einsum("c,bc...->b...", v, a)
        return a + torch.einsum("c,b...->bc...", v, v @ z - v_a)

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


def layer_named(module: nn.Module, name: str) -> nn.Module:
    """A submodule by name.

    Raises:
        UsageError: no such layer; near matches are listed.
    """
    layers = dict(module.named_modules())
    if name not in layers:
        raise unknown_name("layer", name, layers)
    found: nn.Module = layers[name]
    return found


def pattern_direction(activations: Floats, members: NDArray[np.bool_], sources: NDArray[np.integer[Any]]) -> Floats:
    """The pattern v = cov(a, membership) over its length (Haufe et al. 2014; Pahde et al. 2022).

    Args:
        activations: (n, C), pooled over positions.
        members: (n,), true for images with the artifact.
        sources: (n,); where sources repeat, each activation counts by its difference from its source's median.

    Raises:
        UsageError: all or none of the images are members.
        InputError: members do not differ from the others.
    """
    if not 0 < members.sum() < len(members):
        raise UsageError(
            "no two groups to tell apart",
            got=f"{members.sum()} members of {len(members)} images",
            rule="some images must carry the artifact and some must not",
        )
    a: Floats = activations.astype(np.float64)
    if len(np.unique(sources)) < len(sources):
        a = centre_by_group(a, sources)
    v = (a - a.mean(0)).T @ (members - members.mean()) / len(members)
    length = np.linalg.norm(v)
    if length == 0:
        raise InputError("members do not differ from the others at this layer", remedy="Choose another --layer.")
    return np.asarray(v / length)


def random_direction(channels: int, rng: np.random.Generator) -> Floats:
    """A unit direction without meaning: the first control of every correction."""
    v = rng.standard_normal(channels)
    return np.asarray(v / np.linalg.norm(v))


def correction_layer(module: nn.Module) -> str:
    """Where to correct by default: the input of the last block, else of the last convolution.

    A block is a child of the last ModuleList or Sequential whose children hold layers of their own. Later layers
    already mix artifact and class; earlier ones do not know the artifact yet.

    Raises:
        UsageError: the module holds no convolution.
    """
    blocks: list[str] = [name for name, m in module.named_modules() if _is_block(name, m, module)]
    convolutions: list[str] = [name for name, m in module.named_modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        raise UsageError("no layer to correct", rule="the model needs a convolution", remedy="Name a --layer.")
    return blocks[-1] if blocks else convolutions[-1]


def _is_block(name: str, module: nn.Module, root: nn.Module) -> bool:
    parent = root.get_submodule(name.rpartition(".")[0]) if name else None
    inside = isinstance(parent, nn.ModuleList | nn.Sequential)
    deep = not isinstance(module, nn.ModuleList | nn.Sequential) and any(True for _ in module.children())
    return inside and deep and any(isinstance(m, nn.Conv2d) for m in module.modules())
