"""Planes of a network's input against torch's own pixel_unshuffle and rounding."""

import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from klarsicht.numerics.pixel_kernels.unshuffle import InputPlanes, join_planes


def planes(channels, height=12, width=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator) * 3


def by_torch(parts, dtype):
    return torch.cat([pixel_unshuffle(part.values, part.side) for part in parts], 1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planes_are_joined_as_torch_unshuffles_and_rounds_them(dtype):
    parts = [InputPlanes(planes(3), 2), InputPlanes(planes(1, seed=1), 2), InputPlanes(planes(5, 6, 10, seed=2), 1)]
    joined = join_planes(iter(parts), 3 * 4 + 4 + 5, dtype)
    assert joined.dtype == dtype and joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(joined, by_torch(parts, dtype))


def test_halfway_between_two_bfloat16_the_even_one_is_taken():
    """Between 1 and 1 + 2^-7 lies 1 + 2^-8, and 1 + 3 2^-8 between the next two."""
    values = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0.0]).reshape(1, 1, 2, 2)
    joined = join_planes([InputPlanes(values, 1)], 1, torch.bfloat16)
    assert joined.float().flatten().tolist() == [1.0, 1 + 2.0**-6, -1.0, 0.0]


def test_planes_with_gradients_keep_them():
    values = planes(2).requires_grad_()
    join_planes([InputPlanes(values, 2)], 8, torch.float32).square().sum().backward()
    assert torch.allclose(values.grad, 2 * values.detach())
