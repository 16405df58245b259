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

from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.operating_system import processor_flags

AUTO = "auto"
NARROW = ("mps", "xpu")  # devices without float64, Intel's smaller ones among them


@dataclass(frozen=True)
class World:
    """The distributed process group of a training run: the number of this process, of all processes, and its device."""

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


def select_device(name: str = AUTO) -> torch.device:
    """Return the device of a name: cpu, mps, cuda, cuda:N, xpu, xpu:N, or auto for the CUDA device of this process
    where there is one. Raises UsageError: another name, or a device that this machine does not have."""
    if name == AUTO:
        return device()
    here = ["cpu", *(["mps"] if torch.backends.mps.is_available() else []), *_names_of("cuda"), *_names_of("xpu")]
    if name not in here and not (name in ("cuda", "xpu") and f"{name}:0" in here):
        raise UsageError(
            "this machine does not have that --device", got=repr(name), rule=f"auto, {', '.join(here)}",
            remedy="Give --device auto: the GPU if torch sees one, else the CPU.",
        )  # fmt: skip
    return torch.device(name, _own_number()) if name in ("cuda", "xpu") else torch.device(name)


def _names_of(kind: str) -> list[str]:
    there = getattr(torch, kind)
    return [f"{kind}:{i}" for i in range(there.device_count())] if there.is_available() else []


def _own_number() -> int:
    """Return the number of this process among those of the machine, 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def widest_float(device: torch.device) -> torch.dtype:
    """Return the widest floating type of a device: float64, on Apple's and Intel's GPUs float32."""
    return torch.float32 if device.type in NARROW else torch.float64


def device() -> torch.device:
    """Return the GPU of this process, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", _own_number())
    return torch.device("cpu")


def bf16_is_faster(device: torch.device) -> bool:
    """Test whether bfloat16 convolutions are faster than float32: on GPUs that support it, on processors with AMX, and
    on AMD processors with AVX-512 BF16, but not on Intel's with that alone (docs/burst-training.md)."""
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
