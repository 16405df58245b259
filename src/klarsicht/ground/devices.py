"""Compute devices: CPU or GPU, distributed processes, precision and number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from klarsicht.ground.operating_system import processor_flags


@dataclass(frozen=True)
class World:
    """The distributed process group of a training run; torchrun sets the number of processes.

    Attributes:
        rank: number of this process, 0 to size - 1.
        size: number of processes.
        device: the device of this process.
    """

    rank: int
    size: int
    device: torch.device

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Wrap a model in DistributedDataParallel; with a single process return it unchanged."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)

    def mean(self, value: Tensor) -> float:
        """Average a scalar over all processes."""
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value.item() / self.size


@contextmanager
def world() -> Iterator[World]:
    """Open the process group: a single process, or one of torchrun's; on a GPU where there is one."""
    size, here = int(os.environ.get("WORLD_SIZE", "1")), device()
    if size == 1:
        yield World(0, 1, here)
        return
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, here)
    finally:
        dist.destroy_process_group()


def device() -> torch.device:
    """Return the GPU of this process, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def bf16_is_faster(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are faster than float32 on this device.

    They are on GPUs that support bfloat16, on processors with AMX, and on AMD processors with AVX-512 BF16. On Intel
    processors with AVX-512 BF16 alone they are slower than float32 (docs/burst-training.md).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    words = processor_flags()
    return "amx_bf16" in words or {"AuthenticAMD", "avx512_bf16"} <= words


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads within the context and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
