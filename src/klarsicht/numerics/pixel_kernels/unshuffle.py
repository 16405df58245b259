# mypy: disable-error-code="no-untyped-call,untyped-decorator"
"""Planes of a network's input, channels last, in the type in which it computes: on processors one compiled pass over
the planes, where torch takes four."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from klarsicht.numerics.compiled.jit import compile_inlined, compile_with
from klarsicht.numerics.pixel_kernels.load import BITS, SIGNED


class InputPlanes(NamedTuple):
    """Planes (B, c, H, W) whose squares of side x side pixels become channels: (B, c side^2, H / side, W / side)."""

    values: Tensor
    side: int


def join_planes(parts: Iterable[InputPlanes], channels: int, dtype: torch.dtype) -> Tensor:
    """Join planes to one tensor (B, channels, h, w), channels last. dtype: of the result. Parts are read one by one, so
    that only one is in memory where they are made as they are read."""
    parts = iter(parts)
    part = next(parts)
    if not _compiles(part.values, dtype):
        rest = [part, *parts]
        return torch.cat([_channels_last(unshuffle_pixels(p.values.to(dtype), p.side)) for p in rest], 1)
    B, _, H, W = part.values.shape
    block: Any = np.empty((B, H // part.side, W // part.side, channels), BITS[dtype])
    first = 0
    while part is not None:
        values = part.values.contiguous()
        _write(block, first, values.numpy().view(np.uint32), part.side)
        first += values.shape[1] * part.side**2
        part = next(parts, None)  # type: ignore[assignment]
    return torch.from_numpy(block.view(SIGNED[dtype])).view(dtype).permute(0, 3, 1, 2)


def _compiles(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether the compiled pass supports planes and result: on a processor, without gradients, not traced."""
    plain = values.device.type == "cpu" and values.dtype == torch.float32 and dtype in BITS
    return plain and not values.requires_grad and not torch.jit.is_tracing()  # type: ignore[attr-defined]


@compile_inlined
def _round_bits(bits: Any) -> Any:
    """Round the bits of a float32 to those of the nearest bfloat16, of two as near the even one."""
    return (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


@compile_with(set())
def _write(block: Any, first: int, planes: Any, side: int) -> None:
    """Write planes, the bits of float32, to channels from `first` on. block: (B, h, w, c), bits of float32 or
    bfloat16."""
    B, h, w, _ = block.shape
    short = block.itemsize == 2
    for b in range(B):
        for y in range(h):
            for c in range(planes.shape[1]):
                for i in range(side):
                    row = planes[b, c, y * side + i]
                    k = first + (c * side + i) * side
                    for x in range(w):
                        for j in range(side):
                            bits = row[x * side + j]
                            block[b, y, x, k + j] = _round_bits(bits) if short else bits


def unshuffle_pixels(x: Tensor, side: int) -> Tensor:
    """Compute pixel_unshuffle, channels last: (B, c, H, W) to (B, c side^2, H / side, W / side)."""
    B, c, H, W = x.shape
    blocks = x.reshape(B, c, H // side, side, W // side, side).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(B, H // side, W // side, -1).permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
