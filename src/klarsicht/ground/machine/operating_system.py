"""Calls to the operating system: file locks, memory, cores, parents and children of this process; each stands here
once, for Linux, other POSIX systems and Windows."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

REMOVES_OPEN_FILES = fcntl is not None
PROC = Path("/proc")
LOCKED_BYTE = 1 << 30  # Windows locks bytes, and nobody else may read them: one far behind what the file holds
DIGEST = 12  # hexadecimal digits that stand for the name of a machine in names of files
PR_SET_PDEATHSIG = 1
SECONDS_BETWEEN_LOOKS = 1.0  # at the parent
M_ARENA_MAX = -8
PEAK_RESET = "5"


# Files


def lock(file: IO[Any], is_shared: bool = False) -> None:
    """Lock an open file for this process alone, or together with others that share it; the system frees it when the
    file is closed or the process ends. Raises BlockingIOError: another process holds it; OSError: there is no such
    lock."""
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return
    if is_shared:
        raise OSError(errno.ENOTSUP, "this system has no shared locks")
    import msvcrt

    windows: Any = msvcrt
    os.lseek(file.fileno(), LOCKED_BYTE, os.SEEK_SET)
    try:
        windows.locking(file.fileno(), windows.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, error.strerror) from error
    finally:
        os.lseek(file.fileno(), 0, os.SEEK_SET)


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the entries of a folder, are on the disk (Windows writes out no folders)."""
    if fcntl is None and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if fcntl is not None else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Memory and cores


def c_library() -> ctypes.CDLL | None:
    """Load the C library of this process; None where there is none to be had by that way (Windows)."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None


def return_freed_memory() -> None:
    """Return freed memory to the system, which the GNU C library would keep; elsewhere nothing happens."""
    with suppress(AttributeError, TypeError):
        c_library().malloc_trim(0)  # type: ignore[union-attr]


def use_one_heap() -> None:
    """Set the GNU C library to one heap for all threads; each would reserve addresses for one of its own, 64 MiB."""
    with suppress(AttributeError, TypeError):
        c_library().mallopt(M_ARENA_MAX, 1)  # type: ignore[union-attr]


def _read_proc(*parts: str) -> str:
    """Read a file of /proc; empty where there is none, as on other systems and of a process that has ended."""
    try:
        return PROC.joinpath(*parts).read_text()
    except OSError:
        return ""


def memory_status(field: str) -> int | None:
    """Read a field of this process's memory in bytes: VmRSS (resident), VmHWM (its peak). None but on Linux."""
    lines = _read_proc("self", "status").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def reset_memory_peak() -> bool:
    """Set the peak of resident memory to what is resident now. Returns False but on Linux."""
    try:
        (PROC / "self" / "clear_refs").write_text(PEAK_RESET)
    except OSError:
        return False
    return True


def address_space_limit() -> int | None:
    """Read the limit of this process's address space in bytes (`ulimit -v`, RLIMIT_AS). None where there is none, and
    but on Linux, where alone the space in use can be read."""
    if resource is None or not (PROC / "self" / "statm").exists():
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def address_space(pid: int) -> int:
    """Read the address space of a process in bytes (Linux); 0 where it has ended."""
    words = _read_proc(str(pid), "statm").split()
    return int(words[0]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def processor_seconds(pid: int) -> tuple[float, float]:
    """Read the seconds a process computed by itself and in the system (Linux); 0 and 0 where it has ended."""
    words = _read_proc(str(pid), "stat").rpartition(")")[2].split()
    return (int(words[11]) / os.sysconf("SC_CLK_TCK"), int(words[12]) / os.sysconf("SC_CLK_TCK")) if words else (0, 0)


def mapped_files() -> list[Path]:
    """List the files that this process has mapped, its shared libraries among them; empty but on Linux."""
    names = (line.split(maxsplit=5)[-1] for line in _read_proc("self", "maps").splitlines())
    return [Path(name) for name in dict.fromkeys(names) if name.startswith("/")]


def processor_flags() -> frozenset[str]:
    """Read the words that describe the processor, its instruction sets among them; empty but on Linux."""
    return frozenset(_read_proc("cpuinfo").split())


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Processes


def process_exists(pid: int) -> bool:
    """Tell whether a process exists; on Windows, where asking would end it, always True."""
    if fcntl is None:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or no number of a process
        return True
    return True


def user_folder(variable: str, name: str) -> Path | None:
    """Return the folder that an environment variable names for files of the user, or the one of that name in the home
    folder; None for a user without one, as in some containers."""
    if folder := os.environ.get(variable):
        return Path(folder)
    try:
        return Path.home() / name
    except RuntimeError:
        return None


@cache
def machine_name() -> str:
    """Name this machine and the space of its process numbers: equal only where numbers mean the same processes."""
    name = platform.node()
    with suppress(OSError):
        name += "/" + (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        name += "/" + str((PROC / "self" / "ns" / "pid").readlink())
    return name


def process_mark() -> str:
    """Name this process beyond its machine, `MACHINE.NUMBER`: two containers may give out the same number."""
    return f"{_machine_digest()}.{os.getpid()}"


def marked_dead(mark: str) -> int | None:
    """Return the number of the process of a `process_mark`, where it was of this machine and exists no more; else
    None."""
    number = _number_of(mark)
    return None if number is None or process_exists(number) else number


def is_mark_of_living(mark: str) -> bool:
    """Whether a `process_mark` is of a process of this machine that exists, and is not this one."""
    number = _number_of(mark)
    return number is not None and number != os.getpid() and process_exists(number)


def _number_of(mark: str) -> int | None:
    """Return the number of the process of a mark of this machine; None of another text."""
    machine, _, number = mark.rpartition(".")
    return int(number) if machine == _machine_digest() and number.isdecimal() else None


def _machine_digest() -> str:
    return hashlib.sha256(machine_name().encode()).hexdigest()[:DIGEST]


def end_with_parent(parent: int, of_main_thread: bool) -> None:
    """End this process when its parent ends, in whatever way that does.

    On Linux the kernel kills it at once, but also when the *thread* ends that made it: so it is asked only where that
    is the parent's main thread. Everywhere a thread looks for the parent once a second, or waits for its end on
    Windows."""
    if of_main_thread and sys.platform == "linux":
        with suppress(AttributeError):
            c_library().prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))  # type: ignore[union-attr]
        if os.getppid() != parent:  # it ended before it could be noticed
            os._exit(1)
    threading.Thread(target=_follow, args=(parent,), name="parent", daemon=True).start()


def _follow(parent: int) -> None:
    if sys.platform == "win32":  # a process keeps the number of its parent there, ended or not
        kernel, synchronize, infinite = ctypes.windll.kernel32, 0x00100000, 0xFFFFFFFF
        if handle := kernel.OpenProcess(synchronize, False, parent):
            kernel.WaitForSingleObject(handle, infinite)
    else:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
