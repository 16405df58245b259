"""Exceptions of foreign code, such as a user's model or transform, as errors of ours in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from klarsicht.ground.errors import KlarsichtError, OutOfMemory, ProgramFailed, Unreachable
from klarsicht.ground.machine.disk import is_fault_of_place
from klarsicht.ground.machine.memory import is_out_of_memory

LONGEST: Final = 300  # characters of a foreign message that are kept
DEVICE_FAILED: Final = ("cuda error", "hip error", "device-side assert", "cudnn_status_", "cublas_status_")


@contextmanager
def foreign_errors(kind: type[KlarsichtError], what: str, *, of: str, remedy: str = "") -> Iterator[None]:
    """Convert exceptions of the foreign code that runs inside, `SystemExit` among them, to an error of ours, which
    names the file or callable `of`; our own errors and Ctrl-C pass unchanged. Raises OutOfMemory: memory ran short,
    which says nothing of the code."""
    try:
        yield
    except KlarsichtError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise OutOfMemory("memory ran short", got=of, remedy="Free memory and run it again.") from error
        raise kind(what, got=f"{of}: {describe_error(error)}", remedy=remedy) from error


@contextmanager
def foreign_errors_on_image(kind: type[KlarsichtError], what: str, *, of: str) -> Iterator[None]:
    """Convert exceptions of foreign code that is given an image, as `foreign_errors`. Raises Unreachable: the system
    does not give what the code reads, which says nothing of the image; ProgramFailed: a device failed, which says
    nothing of it either."""
    with foreign_errors(kind, what, of=of):
        try:
            yield
        except RuntimeError as error:
            if not is_device_error(error) or is_out_of_memory(error):
                raise
            remedy = "Restart it; the same command resumes."
            raise ProgramFailed("the device failed", got=f"{of}: {describe_error(error)}", remedy=remedy) from error
        except OSError as error:
            if not is_fault_of_place(error):
                raise
            raise Unreachable(
                "data of an image is out of reach", got=f"{of}: {describe_error(error)}",
                remedy="Check the disk or the network; the same command resumes.",
            ) from error  # fmt: skip


def is_device_error(error: BaseException) -> bool:
    """Tell whether an error of torch says that a device failed, after which it fails at everything."""
    text = str(error).lower()
    said = any(sign in text for sign in DEVICE_FAILED)
    return type(error).__name__ == "AcceleratorError" or (isinstance(error, RuntimeError) and said)


def describe_error(error: BaseException) -> str:
    """Describe a foreign exception: its class, the first line of its message, the next as well where the first ends in
    a colon, and the user's line that raised it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:LONGEST]
    return f"{type(error).__name__}{f': {message}' if message else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """Name file and line of the innermost frame that belongs to no installed package and not to this one."""
    own = str(Path(__file__).parents[1])
    every = traceback.extract_tb(error.__traceback__)
    frames = [one for one in every if "site-packages" not in one.filename and not one.filename.startswith((own, "<"))]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
