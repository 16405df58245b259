"""Commands whose address space is limited (`ulimit -v`, RLIMIT_AS): another process waits for them and tells their end.

Where memory runs short, libraries in C and C++ end the process, and some loops never end: OpenBLAS asks again for its
buffer, and Python 3.11 for the line of an exception. No line of Python in that process can tell it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from klarsicht.ground.errors import OutOfMemory
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.machine.operating_system import (
    address_space,
    address_space_limit,
    end_with_parent,
    processor_seconds,
    use_one_heap,
)

SECONDS_BETWEEN_LOOKS = 0.02
WINDOW_S = 1.0  # in which the time of the system is compared with that of the program
STUCK_S = 20.0
BUFFER_BYTES = 64 << 20  # what OpenBLAS asks for, aligned as the C library does
ARENA_BYTES = 1 << 20  # what Python asks for where no small object has room
NO_FAULTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL) if sys.platform != "win32" else ()
TOLD = b"."  # written by the command when it has printed all that it had to say
ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # "system": the others reserve a gibibyte of addresses at once


def run_limited(command: Callable[[], int], limit: int | None = None) -> int:
    """Run a command, in a process of its own where the address space is limited (in bytes), and return its exit
    code."""
    limit = address_space_limit() if limit is None else limit
    if limit is None:
        return command()
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(writer)
        return _wait(child, reader, limit)
    os.close(reader)
    try:
        end_with_parent(parent, of_main_thread=True)
        os.environ.setdefault(ARROW_POOL, "system")
        use_one_heap()
        code = command()
    except Exception as error:
        if is_out_of_memory(error):  # too short to import the command line
            os._exit(OutOfMemory.exit_code)
        os.write(writer, TOLD)
        raise
    os.write(writer, TOLD)  # what comes from now on is Python's own end
    return code


def _wait(child: int, reader: int, limit: int) -> int:
    """Wait for the end of a command, tell one that no line of its own told, and return the exit code."""
    for number in NO_FAULTS[:3]:
        signal.signal(number, lambda number, _: _forward(number, child))
    detector = StuckDetector(limit)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        if detector.is_stuck(time.monotonic(), address_space(child), processor_seconds(child)):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return _print_error("no memory was left, and a library kept asking for it", f"{STUCK_S:.0f} s of it", limit)
    code = os.waitstatus_to_exitcode(ended[1])
    if code >= 0 and os.read(reader, 1):
        return code
    if code < 0 and -code in NO_FAULTS:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return _print_error("a library ended the process, as some do where memory runs short", how, limit)


def _forward(number: int, child: int) -> None:
    """Hand a signal on; Ctrl-C in a terminal reaches the child by itself."""
    if number != signal.SIGINT or not _in_foreground():
        os.kill(child, number)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _print_error(what: str, got: str, limit: int) -> int:
    rule = f"the address space is limited to {limit / 1e6:,.0f} MB (ulimit -v); what is complete is kept"
    error = OutOfMemory(what, got=got, rule=rule, remedy="Raise the limit, and run the same command again to resume.")
    print(f"klarsicht: {error}", file=sys.stderr)
    return error.exit_code


class StuckDetector:
    """Detector of a process that asks for memory in a loop that does not end: for STUCK_S, in every WINDOW_S, less than
    a buffer is left and the system computed for it more than it did itself; or hardly any address is left and it
    waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: tuple[float, float, float] | None = None
        self._since: float | None = None

    def is_stuck(self, now: float, used: int, seconds: tuple[float, float]) -> bool:
        """Test whether the process is stuck, by one more look: the seconds of a clock, the bytes of its address space,
        and the seconds that it computed by itself and in the system."""
        if self._last is None or now - self._last[0] < WINDOW_S:
            self._last = self._last or (now, *seconds)
            return False
        own, of_system = seconds[0] - self._last[1], seconds[1] - self._last[2]
        self._last, left = (now, *seconds), self._limit - used
        if (left < ARENA_BYTES and own <= of_system) or (left < BUFFER_BYTES and own < of_system):
            self._since = now if self._since is None else self._since
        else:
            self._since = None
        return self._since is not None and now - self._since >= STUCK_S
