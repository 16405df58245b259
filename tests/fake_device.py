"""A device that is not the CPU, on machines that have none: torch's place for other backends, computed by the CPU.

A tensor of the device `fake` holds a tensor of the CPU. Like a GPU it refuses to compute with tensors of the CPU,
unless they are single numbers; it refuses the types of REFUSED, as Apple's GPUs refuse float64. Copies are counted.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "fake"
COPIES = Counter()  # copies to the device and to the CPU
REFUSED = set()  # floating types that the device does not have


class FakeTensor(torch.Tensor):
    """Tensor of the device `fake`."""

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), dtype=raw.dtype, device=f"{NAME}:0", layout=raw.layout, strides=raw.stride(),
            storage_offset=raw.storage_offset(),
        )  # fmt: skip

    def __init__(self, raw):
        if raw.dtype in REFUSED:
            raise TypeError(f"the device {NAME} has no {raw.dtype}")
        self.raw = raw

    def __repr__(self):
        return f"FakeTensor({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, *args, **(kwargs or {}))


def raw_of(value):
    return value.raw if isinstance(value, FakeTensor) else value


def compute(function, *args, **kwargs):
    """Compute a function by the CPU; the result is on the device that was asked for, or on that of the tensors."""
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    place = kwargs.pop("device", None)
    place = torch.device(place if place is not None else NAME if given else "cpu")
    copies = "_to_copy" in str(function) or "copy_" in str(function)
    if not copies and any(not isinstance(t, FakeTensor) and t.ndim for t in given):
        raise RuntimeError(f"{function}: tensors of {NAME} and of the CPU in one computation")
    found = function(*tree_map(raw_of, args), **tree_map(raw_of, kwargs))
    if copies:
        COPIES[place.type] += 1
    if str(function).split(".")[1].endswith("_") and isinstance(args[0], FakeTensor):
        return args[0]  # changed in place
    return found if place.type == "cpu" else tree_map(lambda t: FakeTensor(t) if type(t) is torch.Tensor else t, found)


def register():
    """Give torch the device, once for this process."""
    if hasattr(torch.Tensor, f"is_{NAME}"):
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(compute, "PrivateUse1")
    register.kept = library
