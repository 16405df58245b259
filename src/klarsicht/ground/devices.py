"""Where numbers are crunched: this processor or a GPU, alone or as one of several processes, in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """The processes that learn together; torchrun says how many."""

    rank: int
    size: int
    device: torch.device

    def spread(self, model: nn.Module) -> nn.Module:
        if self.size == 1:
            return model
        return DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)

    def mean(self, value: Tensor) -> float:
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value.item() / self.size


@contextmanager
def world() -> Iterator[World]:
    """Alone, or one of torchrun's processes; on a GPU where there is one."""
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
    """This process's GPU, where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def bf16_gains(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are faster here: GPUs that know it, processors with AMX, AMD's with AVX-512 BF16.

    On Intel's, AVX-512 BF16 alone is slower than float32 (docs/burst-training.md).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return "amx_bf16" in words or {"AuthenticAMD", "avx512_bf16"} <= words


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many for torch's operators, and as many as before when it is left."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
