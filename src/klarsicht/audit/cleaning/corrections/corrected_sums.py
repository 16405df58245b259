"""Build an erasure at a sum of two branches into a network: hooks of the module that adds, and buffers of it.

No layer is added: whoever lists the layers of the network finds its own. Names of all its weights stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from klarsicht.audit.cleaning.corrections.clarc import Erasure, find_layer, has_channels_first, open_gate
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, SumHooks
from klarsicht.numerics.erasure import Eraser

CHILD_NAME: Final = "erased_sum"


class SumErasure(nn.Module):
    """Affine map of a sum, a -> W a + b at every position; with a gate, mixed with its input.

    Args:
        correction: the erasure, not pooled.
        like: a weight of the network: its device and type are those of the buffers.
    """

    weight: Tensor
    bias: Tensor
    leading_weight: Tensor
    leading_bias: Tensor

    def __init__(self, correction: Erasure, like: Tensor) -> None:
        super().__init__()
        self.channels, self.before = correction.channels, len(correction.leading)
        (weight, bias), *of_tokens = (affine_map(correction, one) for one in (correction.eraser, *correction.leading))
        buffers = {"weight": weight, "bias": bias}
        if of_tokens:
            buffers["leading_weight"] = torch.stack([W for W, _ in of_tokens])
            buffers["leading_bias"] = torch.stack([b for _, b in of_tokens])
        parts = correction.gate.parts if correction.gate else {}
        self.gate_parts = tuple(parts)
        buffers |= {f"gate_{name}": torch.as_tensor(value) for name, value in parts.items()}
        for name, value in buffers.items():
            self.register_buffer(name, value.to(like.device, like.dtype))

    def erase(self, a: Tensor) -> Tensor:
        """Erase the artifact from a sum (B, C, H, W), (B, H, W, C) or tokens (B, T, C)."""
        first = has_channels_first(a, len(self.weight), self.channels)
        last = a.movedim(1, -1) if first else a
        tokens = [linear(last[:, i : i + 1], self.leading_weight[i], self.leading_bias[i]) for i in range(self.before)]
        found = linear(last[:, self.before :], self.weight, self.bias)
        found = torch.cat([*tokens, found], 1) if tokens else found
        if self.gate_parts:
            parts = {name: getattr(self, f"gate_{name}") for name in self.gate_parts}
            g = open_gate(last.flatten(1, -2)[:, self.before :], parts).detach().reshape(-1, *[1] * (a.ndim - 1))
            found = torch.addcmul((1 - g) * last, g, found)  # no addition, which would be counted, see SumMode
        return found.movedim(-1, 1) if first else found


def affine_map(correction: Erasure, e: Eraser) -> tuple[Tensor, Tensor]:
    """Return the map a -> W a + b of an eraser at the strength of an erasure: W (C, C) and b (C,), float64."""
    part = correction.strength * torch.as_tensor(e.left, dtype=torch.float64) @ torch.as_tensor(e.right).double()
    bias = part @ torch.as_tensor(e.reference, dtype=part.dtype)
    if e.offset is not None:
        bias = bias - correction.strength * torch.as_tensor(e.offset, dtype=part.dtype)
    return torch.eye(len(part), dtype=part.dtype) - part, bias


def build_in_sum(module: nn.Module, correction: Erasure, total: ResidualSum) -> None:
    """Change the module permanently by an erasure at the sum `total`."""
    home = find_layer(module, correction.layer)
    erasure = SumErasure(correction, next(module.parameters(), torch.zeros(1)))
    attach_to_sum(home, total, erasure.eval(), erasure.erase)


def attach_to_sum(home: nn.Module, total: ResidualSum, child: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Add a child that holds a correction of the sum `total` to the module that adds, and change the sum by hooks."""
    same = sum(name.startswith(f"{CHILD_NAME}{total.number}_") for name, _ in home.named_children())
    home.add_module(f"{CHILD_NAME}{total.number}_{same}", child)
    SumHooks(total.number, change).attach(home)
