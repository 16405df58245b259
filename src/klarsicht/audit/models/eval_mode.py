"""Borrow a user's network and give it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from klarsicht.ground.errors import ModelError


def evaluating(module: nn.Module) -> nn.Module:
    """The network itself, in evaluation mode. Raises ModelError for one that has no modes, as exported programs."""
    try:
        return module.eval()
    except NotImplementedError as error:  # what torch.export gives instead of a mode; told in one line, not passed over
        raise ModelError(
            "a network that cannot be brought into evaluation mode",
            got=f"{type(module).__name__}: {str(error).rstrip('.')}",
            rule="a module with layers that can be looked into; torch.export makes none",
            remedy="Load the network that was exported.",
        ) from error


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode, parameters frozen, nothing computed in place, arithmetic exact and
    repeatable.

    Every flag is restored afterwards, as are those of cuDNN: TF32 would round to 11 bits, which no
    conservation check survives, and the benchmark mode picks algorithms by the clock.
    """
    training = [(m, m.training) for m in module.modules()]
    in_place = [m for m in module.modules() if m.__dict__.get("inplace") is True]
    learning = [(p, p.requires_grad) for p in module.parameters()]
    try:
        evaluating(module).requires_grad_(False)
        for part in in_place:
            part.__dict__["inplace"] = False
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield module
    finally:
        for part, flag in training:
            part.training = flag
        for part in in_place:
            part.__dict__["inplace"] = True
        for parameter, flag in learning:
            parameter.requires_grad_(flag)
