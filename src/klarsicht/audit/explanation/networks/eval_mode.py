"""Evaluation mode of a user's network, restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from klarsicht.ground.errors import ModelError


def set_evaluation_mode(module: nn.Module) -> nn.Module:
    """Set the network to evaluation mode and return it.

    Raises:
        ModelError: the network has no modes, as programs of torch.export.
    """
    try:
        return module.eval()
    except NotImplementedError as error:  # raised by modules of torch.export; reported as one line
        raise ModelError(
            "a network that cannot be brought into evaluation mode",
            got=f"{type(module).__name__}: {str(error).rstrip('.')}",
            rule="a module with layers that can be looked into; torch.export makes none",
            remedy="Load the network that was exported.",
        ) from error


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[nn.Module]:
    """Set evaluation mode, freeze parameters, disable in-place operations, and make cuDNN exact and deterministic.

    All flags of the network and of cuDNN are restored afterwards. TF32 is off because it rounds to 11 bits, which
    breaks every conservation check; the benchmark mode is off because it selects algorithms by timing.

    Raises:
        ModelError: see `set_evaluation_mode`.
    """
    training = [(m, m.training) for m in module.modules()]
    in_place = [m for m in module.modules() if m.__dict__.get("inplace") is True]
    gradient_flags = [(p, p.requires_grad) for p in module.parameters()]
    try:
        set_evaluation_mode(module).requires_grad_(False)
        for part in in_place:
            part.__dict__["inplace"] = False
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            yield module
    finally:
        for part, flag in training:
            part.training = flag
        for part in in_place:
            part.__dict__["inplace"] = True
        for parameter, flag in gradient_flags:
            parameter.requires_grad_(flag)
