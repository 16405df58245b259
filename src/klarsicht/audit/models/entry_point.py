"""Models built by a user's function or class, given as `package.module:callable` or `file.py:callable`."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn

from klarsicht.ground.errors import ModelError
from klarsicht.ground.foreign import foreign_errors

ENTRY_POINT_REMEDY: Final = "Call it in Python without klarsicht until it returns a module."

Transform = Callable[[Image.Image], Tensor]
"""Function from a decoded picture to a model input, float32 (C, H, W)."""


def load(spec: str) -> tuple[nn.Module, Transform | None]:
    """Import `package.module:callable` or `file.py:callable` and call it; the current folder, or that of the file, is
    importable meanwhile.

    Raises:
        ModelError: the import or the call fails, or the result is no model; the message names the specification.
    """
    path, _, attribute = spec.rpartition(":")
    folder = Path(path).resolve().parent if path.endswith(".py") else Path.cwd()
    with (
        _importable(folder),
        foreign_errors(ModelError, "the model cannot be built", of=spec, remedy=ENTRY_POINT_REMEDY),
    ):
        package = _import_file(Path(path)) if path.endswith(".py") else importlib.import_module(path)
        if not hasattr(package, attribute):
            near = difflib.get_close_matches(attribute, dir(package), n=3)
            hint = f"Did you mean {' or '.join(near)}?" if near else ""
            raise ModelError(f"{path} has no {attribute!r}", got=repr(spec), remedy=hint)
        made = getattr(package, attribute)
        return as_pair(made() if not isinstance(made, nn.Module) else made, spec)


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it hides no installed package."""
    if not path.is_file():
        raise ModelError("no such file", got=str(path), rule="file.py:callable")
    name = f"klarsicht_model_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ModelError("the file cannot be imported", got=str(path))
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look it up
    found.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def as_pair(made: Any, spec: str) -> tuple[nn.Module, Transform | None]:
    """Convert a module or a pair (module, transform) to a pair of an unwrapped module and a transform, or None.

    Raises:
        ModelError: anything else, and see `unwrap`.
    """
    module, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(module, nn.Module) and (transform is None or callable(transform)):
        return unwrap(module, spec), transform
    got = ", ".join(type(part).__name__ for part in (made if isinstance(made, tuple) else (made,)))
    raise ModelError(f"{spec} is no model", got=got, rule="expected a torch module, or a pair (module, transform)")


_WRAPPERS: Final = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
"""Classes that run a network in another way, by name, as importing them takes seconds; and where they keep it."""


def unwrap(module: nn.Module, spec: str) -> nn.Module:
    """Take the network out of what torch.compile and data parallelism put around it.

    Raises:
        ModelError: a TorchScript program, whose layers have no hooks.
    """
    while (kept := _WRAPPERS.get(type(module).__name__)) is not None:
        module = getattr(module, kept)
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript program cannot be audited",
            got=spec,
            rule="its layers cannot be looked into",
            remedy="Return the network that was scripted or traced.",
        )
    return module
