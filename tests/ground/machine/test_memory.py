"""Memory that is held: what is allocated counts, and what was freed does not."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from klarsicht.ground import optional
from klarsicht.ground.machine import memory
from klarsicht.ground.machine.memory import resident_bytes


def test_freed_memory_is_not_held():
    before = resident_bytes()
    kept = [np.ones(20_000) for _ in range(400)]  # 64 MB in pieces that the C library keeps for itself
    now = resident_bytes()
    assert now - before == pytest.approx(64e6, rel=0.1)
    last = kept[-1]
    del kept
    assert resident_bytes() - before < 10e6 and last.all()


def test_a_library_without_room_is_short_memory_and_not_a_missing_package(monkeypatch):
    """As the loader says it, bare, in numpy's words, and in llvmlite's, which do not repeat it."""

    def raised(text):
        try:
            try:
                raise OSError("liba.so: failed to map segment from shared object")
            except OSError:
                raise OSError(text)  # noqa: B904
        except OSError as error:
            return error

    assert memory.is_out_of_memory(ImportError("liba.so: failed to map segment from shared object"))
    assert memory.is_out_of_memory(ImportError("Read this:\n* liba.so: failed to map segment from shared object"))
    assert memory.is_out_of_memory(raised("cannot load liba.so"))
    assert not memory.is_out_of_memory(ImportError("liba.so: cannot allocate memory in static TLS block"))
    assert not memory.is_out_of_memory(ImportError("No module named a"))
    assert not memory.is_out_of_memory(ValueError("failed to map segment"))
    monkeypatch.setattr(optional, "import_module", lambda name: (_ for _ in ()).throw(raised("cannot load liba.so")))
    with pytest.raises(OSError, match="cannot load"):
        optional.load("a", "raw")


def test_a_compiler_without_memory_sets_no_exception():
    """As Python 3.11 says it at 200 MB of addresses; another fault of the interpreter is none of memory."""
    assert memory.is_out_of_memory(SystemError("error return without exception set"))
    assert not memory.is_out_of_memory(SystemError("bad argument to internal function"))


AGAIN = """
import resource, sys
from klarsicht.ground.machine import memory as held
kept = held.keep_freed_memory() if sys.argv[1] == "keep" else False
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytes([1]) * 64_000_000  # numpy would ask for huge pages
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(kept), faults)
"""


def test_another_c_library_is_left_alone(monkeypatch):
    """One without mallopt, and one that refuses."""
    for answer in ({}, {"mallopt": lambda option, value: 0}):
        monkeypatch.setattr("ctypes.CDLL", lambda name, answer=answer: SimpleNamespace(**answer))
        assert memory.keep_freed_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is not told")
def test_what_is_kept_is_not_found_anew():
    """The second of two arrays of 64 MB needs no new pages, where it needs its 15,625 of them (of 4 KiB) else."""

    def told(how):
        out = subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True).stdout
        return [int(word) for word in out.split()]

    (no, anew), (yes, kept) = told("leave"), told("keep")
    assert (no, yes) == (0, 1)
    assert kept < 100
    assert anew > 15_000 or anew < 100  # where the system makes huge pages for all: 31
