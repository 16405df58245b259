"""Exceptions of foreign code, such as a user's model or transform, as errors of ours in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from klarsicht.ground.errors import KlarsichtError, OutOfMemory
from klarsicht.ground.machine.memory import is_out_of_memory

LONGEST: Final = 300  # characters of a foreign message that are kept


@contextmanager
def foreign_errors(kind: type[KlarsichtError], what: str, *, of: str, remedy: str = "") -> Iterator[None]:
    """Convert exceptions of the foreign code that runs inside, `SystemExit` among them, to an error of ours.

    Errors of ours pass unchanged, and so does Ctrl-C.

    Args:
        kind: class of the error.
        what, remedy: its parts, see `KlarsichtError`.
        of: name of the foreign code, its file or its callable.

    Raises:
        OutOfMemory: memory ran short, which says nothing of the code.
    """
    try:
        yield
    except KlarsichtError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise OutOfMemory("memory ran short", got=of, remedy="Free memory and run it again.") from error
        raise kind(what, got=f"{of}: {describe_error(error)}", remedy=remedy) from error


def describe_error(error: BaseException) -> str:
    """Describe a foreign exception: its class, the first line of its message, and the user's line that raised it."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:LONGEST]
    return f"{type(error).__name__}{f': {message}' if message else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """Name file and line of the innermost frame that belongs to no installed package and not to this one."""
    own = str(Path(__file__).parents[1])
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith((own, "<"))
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
