"""Models built by a user's function or class, given as `package.module:callable` or `file.py:callable`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from klarsicht.ground.entry_points import import_callable
from klarsicht.ground.errors import ModelError

ENTRY_POINT_REMEDY: Final = "Call it in Python without klarsicht until it returns a module."

Transform = Callable[[Any], Tensor]
"""Function from a decoded picture, or from an array (see ArrayTransform), to a model input, float32 (C, H, W)."""


@dataclass(frozen=True)
class Source:
    """A network as its source gives it: its preprocessing and names of outputs, None where it has none, and its
    specification."""

    module: nn.Module
    transform: Transform | None
    classes: tuple[str, ...] | None
    spec: str


def load(spec: str) -> tuple[nn.Module, Transform | None]:
    """Import `package.module:callable` or `file.py:callable` and call it; the current folder, or that of the file, is
    importable meanwhile. Raises ModelError where the import or the call fails, or the result is no model."""
    with import_callable(spec, ModelError, "the model cannot be built", ENTRY_POINT_REMEDY) as made:
        return as_pair(made() if not isinstance(made, nn.Module) else made, spec)


def as_pair(result: Any, spec: str) -> tuple[nn.Module, Transform | None]:
    """Convert a module or a pair (module, transform) to a pair of an unwrapped module and a transform, or None; raises
    ModelError for anything else."""
    module, transform = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if _has_weights(transform) and not _has_weights(module):
        raise ModelError(
            f"{spec}: the transform stands before the model", got=", ".join(type(part).__name__ for part in result),
            rule="a pair (module, transform)", remedy="Swap the two.",
        )  # fmt: skip
    if isinstance(module, nn.Module) and (transform is None or callable(transform)):
        return unwrap(module, spec), transform
    got = ", ".join(type(part).__name__ for part in (result if isinstance(result, tuple) else (result,)))
    raise ModelError(f"{spec} is not a model", got=got, rule="expected a torch module, or a pair (module, transform)")


def _has_weights(part: Any) -> bool:
    return isinstance(part, nn.Module) and next(part.parameters(), None) is not None


_WRAPPERS: Final = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
"""Classes that run a network in another way, by name, as importing them takes seconds; and where they keep it."""


def unwrap(module: nn.Module, spec: str) -> nn.Module:
    """Take the network out of torch.compile and data parallelism; raises ModelError for a TorchScript program."""
    while (kept := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, kept)
    if isinstance(module, torch.jit.ScriptModule):
        rule, remedy = "its layers have no hooks", "Return the network that was scripted or traced."
        raise ModelError("a TorchScript program cannot be audited", got=spec, rule=rule, remedy=remedy)
    return module
