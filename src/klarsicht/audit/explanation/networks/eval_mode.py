"""Evaluation mode and memory format of a user's network, restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from klarsicht.ground.errors import ModelError


def set_evaluation_mode(module: nn.Module) -> nn.Module:
    """Set the network to evaluation mode and return it; raises ModelError where it has no modes, as programs of
    torch.export."""
    try:
        return module.eval()
    except NotImplementedError as error:  # raised by modules of torch.export; reported as one line
        raise ModelError(
            "a network without an evaluation mode", got=f"{type(module).__name__}: {str(error).rstrip('.')}",
            rule="a module with layers; torch.export makes none", remedy="Load the network that was exported.",
        ) from error  # fmt: skip


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[nn.Module]:
    """Set evaluation mode, freeze parameters, disable in-place operations, and make cuDNN exact and deterministic; all
    flags are restored afterwards. TF32 rounds to 11 bits, which breaks every conservation check; the benchmark mode
    selects algorithms by timing. Raises as `set_evaluation_mode`."""
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


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Hold the weights of convolutions with channels last in memory, which makes forward passes faster but not
    relevance propagation; the same tensors are put back afterwards. Logits differ by float32 rounding."""
    weights = [(weight, weight.data) for weight in module.parameters() if weight.ndim == 4]
    try:
        for weight, values in weights:
            weight.data = values.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for weight, values in weights:
            weight.data = values


def as_channels_last(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with channels last in memory."""
    return images.contiguous(memory_format=torch.channels_last)
