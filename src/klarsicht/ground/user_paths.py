"""Paths that a user gives from Python."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import UsageError


def as_path(name: str, value: Any, remedy: str = "") -> Path:
    """Convert what a user gives under a name to a path.

    Raises:
        UsageError: it is neither a text nor a path.
    """
    if not isinstance(value, str | PathLike):
        raise UsageError(f"{name} is no path", got=type(value).__name__, rule="a text or a pathlib.Path", remedy=remedy)
    return Path(value)
