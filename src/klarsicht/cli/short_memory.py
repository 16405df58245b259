"""The end of a command for which memory ran short: one line, the exit code of OutOfMemory, and no cleaning up, since
what is complete is on disk at every moment."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from klarsicht.ground.errors import OutOfMemory
from klarsicht.ground.foreign import describe_error
from klarsicht.ground.machine.memory import is_out_of_memory

LOGGERS = ("concurrent.futures", "asyncio")  # they log the error that ends a thread, or a callback that is waited for


def describe_shortage(error: BaseException) -> OutOfMemory:
    """Make the error of a command from one that is_out_of_memory."""
    return OutOfMemory("memory ran short", got=describe_error(error), rule="what is complete is kept",
                       remedy="Free memory, and run the same command again to resume.")  # fmt: skip


def end(code: int) -> NoReturn:
    """End the process with this exit code; at once where memory ran short, for what libraries do at the end needs
    memory, and waits for threads that may have none."""
    if code == OutOfMemory.exit_code:
        _end_at_once(code)
    sys.exit(code)


def _end_at_once(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


@contextmanager
def end_at_failed_threads() -> Iterator[None]:
    """Inside the context, end the process with one line where a thread ends for lack of memory: whoever waits for that
    thread would wait for ever."""
    hooks = threading.excepthook, sys.unraisablehook

    def of_thread(arguments: threading.ExceptHookArgs) -> None:
        _end_if_short(arguments.exc_value)
        hooks[0](arguments)

    def unraisable(arguments: sys.UnraisableHookArgs) -> None:
        _end_if_short(arguments.exc_value)
        hooks[1](arguments)

    threading.excepthook, sys.unraisablehook = of_thread, unraisable
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_passes)
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(_passes)


def _passes(record: logging.LogRecord) -> bool:
    _end_if_short(record.exc_info[1] if record.exc_info else None)
    return True


def _end_if_short(error: BaseException | None) -> None:
    if error is not None and threading.current_thread() is not threading.main_thread() and is_out_of_memory(error):
        short = describe_shortage(error)
        with suppress(Exception):
            print(f"klarsicht: {short}", file=sys.stderr)
        _end_at_once(short.exit_code)
