"""Erase an artifact from the input of a layer, or from a sum of two branches, without training (class artifact
compensation, ClArC; Anders et al. 2022, Information Fusion 77).

    a' = a - s g (L R (a - z) + o)        numerics.erasure; g = 1, or a gate

The amount R (a - z) is that of each position, or of the mean over positions (`pooled`). Tokens before the grid of
positions (class token, registers) hold other things than patches do: each has an eraser of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from klarsicht.audit.explanation.networks.hooks import replace_first_tensor
from klarsicht.audit.explanation.networks.outputs import as_logits
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, change_sum
from klarsicht.ground.errors import InputError, unknown_name
from klarsicht.numerics.erasure import Eraser

ERASER: Final = ("left", "right", "reference", "offset")  # names of its arrays
LEAST_AXIS_VARIANCE: Final = 1e-9  # of an axis over the positions of an image, by which correlations are divided


@dataclass(frozen=True)
class Gate:
    """Probability that an image carries the artifact: sigmoid(w . mean a + b); with axes, 1 where w . f(a) + b is above
    0, else 0, of the features f of `channel_features`. weight: w, float32 (C,); with axes (D,). bias: b. axes: float32
    (C, q), or None."""

    weight: NDArray[np.float32]
    bias: float
    axes: NDArray[np.float32] | None = None

    @property
    def parts(self) -> dict[str, Any]:
        """The arrays by their names: weight, bias, and axes where there are any."""
        return {"weight": self.weight, "bias": np.array(self.bias)} | ({} if self.axes is None else {"axes": self.axes})


@dataclass(frozen=True)
class Erasure:
    """Removable correction at the input of one layer, or at a sum. layer: name of the module whose input is corrected,
    or of a sum, see models.residual_sums. strength: s; 1 erases completely. pooled: whether the amount is measured on
    the mean over positions and subtracted equally at every position. gate: probability by which the erasure is
    multiplied, or None. channels: axis of the channels of an input of four axes, 1 or -1; None: that which has their
    number, 1 where both have it. leading: erasers of the tokens before the positions, in their order."""

    layer: str
    eraser: Eraser
    strength: float = 1.0
    pooled: bool = False
    gate: Gate | None = None
    channels: int | None = None
    leading: tuple[Eraser, ...] = ()

    @cached_property
    def parts(self) -> dict[str, Any]:
        """The arrays by the names of `erase`; erasers of p tokens are stacked, padded by zeros to as many directions:
        (p, C, k), (p, k, C), (p, C), and (p, C) where one has an offset."""
        e, leading = self.eraser, self.leading
        found = {"left": e.left, "right": e.right, "reference": e.reference}
        found |= {} if e.offset is None else {"offset": e.offset}
        found |= {name: np.array(getattr(self, name)) for name in ("layer", "strength", "pooled")}
        found |= {} if self.channels is None else {"channels": np.array(self.channels)}
        if leading:
            k = max(one.left.shape[1] for one in leading)
            if any(one.offset is not None for one in leading):
                offsets = [np.zeros_like(one.reference) if one.offset is None else one.offset for one in leading]
                found["leading_offset"] = np.stack(offsets)
            gaps = [(0, k - one.left.shape[1]) for one in leading]
            lefts = [np.pad(one.left, ((0, 0), gap)) for one, gap in zip(leading, gaps, strict=True)]
            rights = [np.pad(one.right, (gap, (0, 0))) for one, gap in zip(leading, gaps, strict=True)]
            found |= {"leading_left": np.stack(lefts), "leading_right": np.stack(rights)}
            found["leading_reference"] = np.stack([one.reference for one in leading])
        return found | (self.gate.parts if self.gate else {})

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any]) -> Erasure:
        """Make an erasure of its arrays."""
        gate = Gate(parts["weight"], float(parts["bias"]), parts.get("axes")) if "weight" in parts else None
        eraser = Eraser(parts["left"], parts["right"], parts["reference"], parts.get("offset"))
        channels = int(parts["channels"]) if "channels" in parts else None
        names = ("leading_left", "leading_right", "leading_reference", "leading_offset")
        leading = tuple(map(Eraser, *(parts[name] for name in names if name in parts))) if names[0] in parts else ()
        pooled, strength = bool(parts["pooled"]), float(parts["strength"])
        return cls(str(parts["layer"]), eraser, strength, pooled, gate, channels, leading)

    def __call__(self, a: Tensor) -> Tensor:
        """Erase the artifact from activations (B, C), (B, C, H, W), (B, H, W, C) or tokens (B, T, C). Raises
        InputError: the activations do not have the channels of the eraser."""
        channels, before = len(self.eraser.reference), len(self.leading)
        axis = 1 if has_channels_first(a, channels, self.channels) else -1
        if a.shape[axis] != channels or (before and (a.ndim != 3 or a.shape[1] <= before)):
            tokens = f", after {before} tokens before the positions" if before else ""
            raise InputError(
                "activations that do not fit the correction", got=f"{tuple(a.shape)}",
                rule=f"{channels} channels{tokens}",
            )  # fmt: skip
        return erase(a, self.parts)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only; its weights do not change."""
        with change_activations(module, self.layer, self):
            yield module


def erase(a: Tensor, parts: Mapping[str, Any]) -> Tensor:
    """Compute a - s g (L R (a - z) + o) of activations, see `Erasure.parts`."""

    def take(rows: Tensor, left: Tensor, right: Tensor, reference: Tensor, offset: Tensor | None = None) -> Tensor:
        part = (rows - reference) @ right.T @ left.T
        return part if offset is None else part + offset

    names = [name for name in parts if name not in ("layer", "pooled", "strength", "channels", "target")]
    held = {name: torch.as_tensor(np.asarray(parts[name]), dtype=a.dtype, device=a.device) for name in names}
    first = has_channels_first(a, len(parts["reference"]), int(parts["channels"]) if "channels" in parts else None)
    last = a.movedim(1, -1) if first else a
    flat = last[:, None] if last.ndim == 2 else last.flatten(1, -2)
    before = len(held.get("leading_reference", ()))
    positions = flat[:, before:] if before else flat
    of_tokens, own = ({n: held[f"{kind}{n}"] for n in ERASER if f"{kind}{n}" in held} for kind in ("leading_", ""))
    sides = [(flat[:, i : i + 1], {name: value[i] for name, value in of_tokens.items()}) for i in range(before)]
    sides.append((positions, own))
    weight: Any = float(parts["strength"])
    if "weight" in held:
        weight = weight * open_gate(positions, held)[:, None, None]
    measured = [rows.mean(1, keepdim=True) if parts["pooled"] else rows for rows, _ in sides]
    erased = [rows - weight * take(x, **of) for (rows, of), x in zip(sides, measured, strict=True)]
    shaped = (torch.cat(erased, 1) if before else erased[0]).reshape(last.shape)
    return shaped.movedim(-1, 1) if first else shaped


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
class WhenPredicted:
    """Erasure only for images predicted as the class `target`: a batch that holds one runs through the model a second
    time, in which only their rows are erased, so that whoever looks at a layer sees every image."""

    erasure: Erasure
    target: int

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only. Raises ModelError if the model does not answer with logits."""
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
    """Change the input of a layer, or a sum, inside the context only. Raises UsageError if there is no such layer."""
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
    """Test whether activations with that many channels are (B, C, H, W), and not (B, H, W, C), tokens or vectors: by
    the axis of the channels of a with four axes, 1 or -1, or by their number."""
    return a.ndim > 3 and (a.shape[1] == channels if axis is None else axis == 1)


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Return a submodule by its name; of a sum, the module in which it is computed. Raises UsageError if there is no
    such layer."""
    layers, total = dict(module.named_modules()), ResidualSum.parse(name)
    if total is not None and total.module in layers:
        return module.get_submodule(total.module)
    if name not in layers or not name:
        raise unknown_name("layer", name, filter(None, layers))
    found: nn.Module = layers[name]
    return found
