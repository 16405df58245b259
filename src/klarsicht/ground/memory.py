"""Memory that this process holds."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

KEEPING = ((-4, 0), (-1, 2**31 - 1))  # M_MMAP_MAX: nothing apart; M_TRIM_THRESHOLD: 2 GiB may stay free at the end
USUAL = 0.6e9  # bytes of a process with torch, where the system does not tell


def resident() -> float:
    """Bytes that this process holds now (Linux; elsewhere USUAL), after what was freed is given back to the system:
    the C library keeps it otherwise, and it would count as in use."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return USUAL
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def keep() -> bool:
    """Tells the GNU C library to keep what is freed for the next large array, in this process from now on.

    It would give every array of more than 32 MiB back to the system at once, and the next one would be made of new
    pages, each of which the system has to find and blank when it is first touched. Where that is dear (virtual
    machines) it took two fifths of the time of relevance. False under another C library: nothing is changed.
    """
    try:
        told = [ctypes.CDLL(None).mallopt(option, value) for option, value in KEEPING]
    except (OSError, AttributeError, TypeError):
        return False
    return all(one == 1 for one in told)
