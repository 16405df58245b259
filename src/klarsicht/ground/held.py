"""Memory that this process holds."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

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
