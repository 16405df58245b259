"""Messages of libtiff, with which Pillow decodes compressed TIFF files: it prints errors of damaged data on standard
error and goes on. They are collected here for whoever decodes; warnings are not printed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import PIL

from klarsicht.ground.machine.operating_system import mapped_files

HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)  # module, format, its arguments
_collected = threading.local()


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Collect what libtiff calls errors while this thread decodes; nothing where Pillow's libtiff cannot be found."""
    _install()
    _collected.errors = errors = list[str]()
    try:
        yield errors
    finally:
        _collected.errors = None


@cache
def _install() -> tuple[Any, ...]:
    """Replace the functions that print, in this process from now on; returns what must stay alive."""

    keep = HANDLER(_keep)
    handlers: list[Any] = [keep]
    for path in find_libraries():
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            for name, handler in (("TIFFSetErrorHandler", keep), ("TIFFSetWarningHandler", HANDLER())):
                function = getattr(library, name)
                function.argtypes, function.restype = [HANDLER], ctypes.c_void_p
                function(handler)
            handlers.append(library)
    return tuple(handlers)


def _keep(module: bytes | None, text: bytes | None, arguments: int | None) -> None:
    errors = getattr(_collected, "errors", None)
    if errors is not None:
        errors.append(_message(module, text))


def _message(module: bytes | None, text: bytes | None) -> str:
    """The function's name and the beginning of the text, up to its first number."""
    words = (text or b"").partition(b"%")[0].decode("ascii", "replace").strip(" ,.(")
    return f"{(module or b'libtiff').decode('ascii', 'replace')}: {words}"


def find_libraries() -> list[Path]:
    """The files of libtiff that this process may have loaded for Pillow: of its wheel, or the system's."""
    root = Path(PIL.__file__).parent
    wheel = [file for folder in (root.parent / "pillow.libs", root / ".dylibs") for file in folder.glob("libtiff*")]
    return wheel or [file for file in mapped_files() if file.name.startswith("libtiff.so")]
