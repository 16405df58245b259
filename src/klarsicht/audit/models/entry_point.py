"""Models built by a user's function or class, given as `package.module:callable`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from klarsicht.ground.errors import ModelError

Transform = Callable[[Image.Image], Tensor]
"""Function from a decoded picture to a model input, float32 (C, H, W)."""


def load(spec: str) -> tuple[nn.Module, Transform | None]:
    """Import `package.module:callable` and call it; the current folder is importable meanwhile.

    Raises:
        ModelError: the import or the call fails, or the result is no model; the message names the specification.
    """
    path, _, attribute = spec.partition(":")
    try:
        with _importable(Path.cwd()):
            package = importlib.import_module(path)
            if not hasattr(package, attribute):
                near = difflib.get_close_matches(attribute, dir(package), n=3)
                hint = f"Did you mean {' or '.join(near)}?" if near else ""
                raise ModelError(f"{path} has no {attribute!r}", got=repr(spec), remedy=hint)
            made = getattr(package, attribute)
            return as_pair(made() if not isinstance(made, nn.Module) else made, spec)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the model {spec!r} cannot be built", got=f"{type(error).__name__}: {error}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def as_pair(made: Any, spec: str) -> tuple[nn.Module, Transform | None]:
    """Convert a module or a pair (module, transform) to a pair; the transform may be None.

    Raises:
        ModelError: anything else.
    """
    module, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(module, nn.Module) and (transform is None or callable(transform)):
        return module, transform
    got = ", ".join(type(part).__name__ for part in (made if isinstance(made, tuple) else (made,)))
    raise ModelError(f"{spec} is no model", got=got, rule="expected a torch module, or a pair (module, transform)")
