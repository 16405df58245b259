"""Resident memory of this process, and how the C library returns freed memory."""

from __future__ import annotations

import math

from klarsicht.ground.errors import OutOfMemory, UsageError
from klarsicht.ground.machine.operating_system import c_library, memory_status, return_freed_memory

MALLOC_OPTIONS = ((-4, 0), (-1, 2**31 - 1))  # M_MMAP_MAX: no separate mappings; M_TRIM_THRESHOLD: keep up to 2 GiB free
OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc",
                 "can't start new thread", "failed to launch worker thread")  # fmt: skip
NOT_MAPPED = "failed to map segment"  # a shared library that an import needs
NOTHING_SET = "error return without exception set"  # of Python's compiler, where it has no memory
NO_PRIMITIVE = "could not create a primitive"  # and no more: oneDNN, which had accepted the layer before
TYPICAL_BYTES = 0.6e9  # bytes of a process with torch, assumed where the system does not report them
VARIATION_BYTES = 0.05e9  # of what libraries take from one run to the next


def resident_bytes() -> float:
    """Measure the resident memory of this process in bytes (Linux; elsewhere TYPICAL_BYTES), without freed memory."""
    return_freed_memory()
    resident = memory_status("VmRSS")
    return TYPICAL_BYTES if resident is None else float(resident)


def short_budget(limit: float, need: float, what: str) -> UsageError:
    """Make the error of an option --memory that is too small, in bytes, with a number that suffices. `what` takes
    them."""
    enough = math.ceil((need + VARIATION_BYTES) / 1e8) / 10
    got, remedy = f"{limit / 1e9:.3g} GB", f"Give --memory {enough:.1f}, or more."
    return UsageError("memory", got=got, rule=f"{what} {enough:.1f} GB", remedy=remedy)


def is_out_of_memory(error: BaseException) -> bool:
    """Test whether an error says that memory could not be had, of this process or of a device; torch raises a
    RuntimeError with a text of its own on the CPU."""
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, ImportError | OSError) and _not_mapped(error):
        return True
    if isinstance(error, SystemError) and str(error) == NOTHING_SET:
        return True
    text = str(error).lower()
    said = text == NO_PRIMITIVE or any(sign in text for sign in OUT_OF_MEMORY)
    return said and (isinstance(error, RuntimeError | OSError) or type(error).__name__ == "ArrowException")


def _not_mapped(error: BaseException | None) -> bool:
    """Tell whether a shared library had no room, also where the one who loads it raises another error for that."""
    while isinstance(error, ImportError | OSError):
        if NOT_MAPPED in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def keep_freed_memory() -> bool:
    """Set the GNU C library to reuse freed memory for the next large array, in place of new pages that the system must
    zero; returns False under another C library, where nothing is changed."""
    try:
        told = [c_library().mallopt(option, value) for option, value in MALLOC_OPTIONS]  # type: ignore[union-attr]
    except AttributeError:
        return False
    return all(one == 1 for one in told)
