"""Paths that a user gives from Python."""

from __future__ import annotations

import errno
import os
from os import PathLike
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import UsageError


def as_path(name: str, value: Any) -> Path:
    """Convert what a user gives under a name to a path. Raises UsageError: no text or path, or no possible file
    name."""
    text = os.fspath(value) if isinstance(value, str | PathLike) else value
    if not isinstance(text, str):
        raise UsageError(f"{name} is not a path", got=type(value).__name__, rule="a text or a pathlib.Path")
    try:
        os.lstat(text)
    except ValueError as error:  # a zero byte, or characters that no name of a file can have
        raise UsageError(f"{name} is not a path", got=repr(text), rule=f"a file name: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            got, rule = f"{len(text)} characters", str(error.strerror)
            raise UsageError(f"{name} is not a path", got=got, rule=rule, remedy="Give a shorter one.") from error
    return Path(value)
