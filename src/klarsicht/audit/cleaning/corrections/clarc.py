"""Erase an artifact from the input of a layer, or from a sum of two branches, without training (class artifact
compensation, ClArC).

    a' = a - s g (L R (a - z) + o)        numerics.erasure; g = 1, or a gate

This holds at every position (Anders et al. 2022, Information Fusion 77), or with the amount R (mean a - z) of the whole
image at every position (`pooled`). A gate erases only where it predicts that the artifact is present. Tokens before
the grid of positions (class token, registers) hold other things than patches do, and the artifact in another
direction: each has an eraser of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from klarsicht.audit.explanation.networks.hooks import replace_first_tensor
from klarsicht.audit.explanation.networks.outputs import as_logits
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, change_sum
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import InputError, unknown_name
from klarsicht.numerics.erasure import Eraser

LEAST_AXIS_VARIANCE: Final = 1e-9  # of an axis over the positions of an image, by which correlations are divided


@dataclass(frozen=True)
class Gate:
    """Probability that an image carries the artifact: sigmoid(w . mean a + b); with axes, 1 where w . f(a) + b is above
    0, else 0, of the features f of `channel_features`.

    Attributes:
        weight: w, float32 (C,); with axes (D,).
        bias: b.
        axes: float32 (C, q), or None.
    """

    weight: NDArray[np.float32]
    bias: float
    axes: NDArray[np.float32] | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """The arrays by their names: weight, bias, and axes where there are any."""
        return {"weight": self.weight, "bias": np.array(self.bias)} | ({} if self.axes is None else {"axes": self.axes})

    def __call__(self, a: Tensor) -> Tensor:
        """Compute the probability from activations of positions: (B, P, C) -> (B, 1, 1), in [0, 1]."""
        return open_gate(a, {name: _as(value, a) for name, value in self.parts.items()})[:, None, None]


def open_gate(a: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """Compute the probability of a gate from activations of positions, (B, P, C) -> (B,), by its parts."""
    if "axes" not in parts:
        return torch.sigmoid(a.mean(1) @ parts["weight"] + parts["bias"])
    return (channel_features(a, parts["axes"]) @ parts["weight"] + parts["bias"] > 0).to(a.dtype)


def channel_features(a: Tensor, axes: Tensor) -> Tensor:
    """Compute features of activations of positions (B, P, C) along axes (C, q): mean, maximum less the mean, and the
    correlation over positions of each two axes, (B, 2 q + q (q - 1) / 2)."""
    along = a @ axes
    mean = along.mean(1)
    centred = along - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / a.shape[1]
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp_min(LEAST_AXIS_VARIANCE).sqrt()
    correlation = covariance / (deviation[:, :, None] * deviation[:, None])
    rows, columns = torch.triu_indices(axes.shape[1], axes.shape[1], 1, device=a.device)
    return torch.cat([mean, along.amax(1) - mean, correlation[:, rows, columns]], 1)


@dataclass(frozen=True)
class Erasure:
    """Removable correction at the input of one layer, or at a sum.

    Attributes:
        layer: name of the module whose input is corrected, or of a sum, see models.residual_sums.
        eraser: L, R, z and o.
        strength: s; 1 erases completely.
        pooled: whether the amount is measured on the mean over positions and subtracted equally at every position.
        gate: probability by which the erasure is multiplied, or None.
        channels: axis of the channels of an input of four axes, 1 or -1; None: that which has their number, 1 where
            both have it.
        leading: erasers of the tokens before the positions, in their order.
    """

    layer: str
    eraser: Eraser
    strength: float = 1.0
    pooled: bool = False
    gate: Gate | None = None
    channels: int | None = None
    leading: tuple[Eraser, ...] = ()

    def __call__(self, a: Tensor) -> Tensor:
        """Erase the artifact from activations (B, C), (B, C, H, W), (B, H, W, C) or tokens (B, T, C).

        Raises:
            InputError: the activations do not have the channels of the eraser.
        """
        channels = len(self.eraser.reference)
        first = has_channels_first(a, channels, self.channels)
        last = a.movedim(1, -1) if first else a
        before = len(self.leading)
        if last.shape[-1] != channels or (before and (a.ndim != 3 or a.shape[1] <= before)):
            tokens = f", after {before} tokens before the positions" if before else ""
            raise InputError(
                "activations that do not fit the correction",
                got=f"{tuple(a.shape)}",
                rule=f"{channels} channels{tokens}",
            )
        flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
        positions = flat[:, before:] if before else flat
        measured = positions.mean(1, keepdim=True) if self.pooled else positions
        parts = [
            (flat[:, i : i + 1], _artifact_part(eraser, flat[:, i : i + 1])) for i, eraser in enumerate(self.leading)
        ]
        parts.append((positions, _artifact_part(self.eraser, measured)))
        weight = self.strength if self.gate is None else self.strength * self.gate(positions)
        erased = [part - weight * taken for part, taken in parts]
        shaped = (torch.cat(erased, 1) if before else erased[0]).reshape(last.shape)
        return shaped.movedim(-1, 1) if first else shaped

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only; its weights do not change."""
        with change_activations(module, self.layer, self):
            yield module


@dataclass(frozen=True)
class WhenPredicted:
    """Erasure only for images predicted as one class: a batch that holds one runs through the model a second time.

    The whole batch does, and only the rows of these images are erased: whoever looks at a layer sees every image, in
    the run that gave its answer.

    Attributes:
        erasure: the erasure of the second run.
        target: output of the class.
    """

    erasure: Erasure
    target: int

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only.

        Raises:
            ModelError: the model does not answer with logits.
        """
        predicted: list[Tensor] = []  # of the second run, while it lasts: which images are erased

        def erase_predicted(a: Tensor) -> Tensor:
            if not predicted:
                return a
            rows = predicted[0].to(a.device).reshape(-1, *[1] * (a.ndim - 1))
            return torch.where(rows, self.erasure(a), a)

        def run_again(root: nn.Module, inputs: tuple[Any, ...], answer: Any) -> Any:
            if predicted:
                return answer
            taken = as_logits(answer).argmax(1) == self.target
            if not taken.any():
                return answer
            predicted.append(taken)
            try:
                return root(*inputs)
            finally:
                predicted.clear()

        with ExitStack() as stack:
            stack.enter_context(change_activations(module, self.erasure.layer, erase_predicted))
            stack.callback(module.register_forward_hook(run_again).remove)
            yield module


@contextmanager
def change_activations(module: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the input of a layer, or a sum, inside the context only.

    Args:
        layer: name of a module or of a sum, see models.residual_sums.
        change: function from the activations to those in their place.

    Raises:
        UsageError: no such layer.
    """
    if (total := ResidualSum.parse(layer)) is not None:
        find_layer(module, layer)
        with change_sum(module, total, change):
            yield
        return
    handle = find_layer(module, layer).register_forward_pre_hook(
        lambda _, inputs, named: replace_first_tensor(inputs, named, change), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


def has_channels_first(a: Tensor, channels: int, axis: int | None = None) -> bool:
    """Test whether activations with that many channels are (B, C, H, W), and not (B, H, W, C), tokens or vectors.

    Args:
        axis: axis of the channels of a with four axes, 1 or -1; None: by their number.
    """
    return a.ndim > 3 and (a.shape[1] == channels if axis is None else axis == 1)


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Return a submodule by its name; of a sum, the module in which it is computed.

    Raises:
        UsageError: no such layer; the message lists near matches.
    """
    layers, total = dict(module.named_modules()), ResidualSum.parse(name)
    if total is not None and total.module in layers:
        return module.get_submodule(total.module)
    if name not in layers or not name:
        raise unknown_name("layer", name, filter(None, layers))
    found: nn.Module = layers[name]
    return found


def _artifact_part(eraser: Eraser, a: Tensor) -> Tensor:
    """Compute L R (a - z) + o of activations (B, P, C)."""
    part = (a - _as(eraser.reference, a)) @ _as(eraser.right, a).T @ _as(eraser.left, a).T
    return part if eraser.offset is None else part + _as(eraser.offset, a)


def _as(values: Floats, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device)
