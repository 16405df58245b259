"""Atomic writes and file locks: an interruption at any moment leaves the old or the new content of a file whole."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from klarsicht.ground.errors import DiskFull, InputError, KlarsichtError, RunLocked, StoreError, Unreachable
from klarsicht.ground.machine.operating_system import is_mark_of_living, lock, marked_dead, process_mark, sync

NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_THE_CALL = (errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ESPIPE, errno.EOVERFLOW, errno.EFBIG, errno.EDOM,
               errno.ERANGE, errno.EILSEQ, errno.ENOMEM)  # fmt: skip
"""Error numbers of what a decoder asks of damaged content, such as a place before the beginning of a file; and that of
short memory, see `memory.is_out_of_memory`."""
HDF5_NUMBER = re.compile(r"\berrno = (\d+)")  # in the text of the errors of HDF5, which have no number
READ_AT_ONCE = 1 << 20  # bytes
NOT_REGULAR = "not a regular file, but a pipe or a device"
UNFINISHED = ".unfinished"  # marks a folder that is being filled
LEFTOVERS = (".*.tmp", "*.partial")  # temporary files of killed processes: klarsicht's and zarr's
JOIN_SECONDS = 60.0  # that a lock is waited for which others share: one alone holds it while it tidies up
LOCK_LOOK = 0.02  # seconds between two tries of a lock
TEMPORARY = "klarsicht-"  # beginning of the names of temporary folders, followed by the mark of the process
SHARED_MEMORY = Path("/dev/shm")
OF_WORKERS = ("sem.loky-{0}-*", "joblib_memmapping_folder_{0}_*")  # made by joblib for a process of that number


def is_fault_of_place(error: BaseException) -> bool:
    """Tell whether an error is the answer of a disk, of a network or of the system, which says nothing of the content
    of a file. Decoders raise OSError, too, for damaged content: these have no error number, or one of OF_THE_CALL."""
    if not isinstance(error, OSError):
        return False
    in_text = HDF5_NUMBER.search(str(error))
    number = int(in_text[1]) if error.errno is None and in_text else error.errno
    return isinstance(error, ConnectionError | TimeoutError) or (number is not None and number not in OF_THE_CALL)


def describe_system_error(error: BaseException) -> str:
    """Describe an error of the system or of a library in its own words, in one line."""
    return str(getattr(error, "strerror", "") or f"{type(error).__name__}: {error}".split("\n")[0])


@contextmanager
def translate_write_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Convert the operating system's write errors to errors that name the remedy, and the size in bytes if it is given.
    Raises DiskFull: no space, quota or file size left; StoreError: any other, for instance a read-only folder."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE_ERRORS:
            rule = f"{'' if size is None else f'it takes {size / 1e6:,.1f} MB; '}what is complete is kept"
            remedy = "Free space and run the same command again to resume."
            raise DiskFull(f"no space left to write {path}", got=error.strerror, rule=rule, remedy=remedy) from error
        remedy = "Check the folder's permissions, or its name."
        raise StoreError(f"cannot write {path}", got=error.strerror or error, remedy=remedy) from error


def require_writable(paths: Iterable[Path]) -> None:
    """Check, before long computing, that files can be made at some paths, as far as the system tells: in the folder of
    each, or the nearest above it that exists. Raises StoreError: the system says that one cannot."""
    for path in paths:
        with translate_write_errors(path):
            folder = next(above for above in path.absolute().parents if above.exists())
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, f"{folder} is read-only")


def require_regular_file(path: Path) -> None:
    """Check, before a file is opened, that it is no folder, pipe or device: those may never end, or never answer.

    A file that does not exist passes: opening it says so. Raises InputError: it is one."""
    if path.exists() and not path.is_file():
        got, remedy = f"a folder, a pipe or a device at {path}", "Name a file, or leave it out."
        raise InputError(f"{path.name or path} is not a regular file", got=got, remedy=remedy)


def read_regular_file(path: Path) -> bytes:
    """Read a file whole. Raises OSError: it cannot be read, or is a folder, or a pipe or device that might never
    end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says so itself
        raise OSError(errno.EINVAL, NOT_REGULAR)
    return path.read_bytes()


@contextmanager
def translate_faults(path: Path) -> Iterator[None]:
    """Convert the answer of a disk, of a network or of the system for an input file to an error that names it. Raises
    Unreachable: the file is out of reach, which says nothing of its content."""
    try:
        yield
    except OSError as error:
        if not is_fault_of_place(error):
            raise
        raise Unreachable(
            f"{path.name} is out of reach", got=f"{describe_system_error(error)}, at {path}",
            remedy="Check the disk or the network, and run the same command again.",
        ) from error  # fmt: skip


def read_to_end(path: Path) -> None:
    """Read a file that could not be decoded to its end, for the system's errors: libraries in C tell damaged content
    and a disk that does not answer by the same error."""
    with path.open("rb") as file:
        while file.read(READ_AT_ONCE):
            pass


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Convert whatever is raised while a file of klarsicht's own is read. Raises StoreError: the file, named, is
    damaged."""
    try:
        yield
    except (KlarsichtError, MemoryError):
        raise
    except Exception as error:  # numpy, zipfile and json raise nearly anything on damaged files
        got = f"{type(error).__name__}: {error}"
        remedy = "Remove it, and run the same command again to create it."
        raise StoreError(f"{path} is damaged", got=got, remedy=remedy) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file durably and make its folder. Raises as `translate_write_errors`; then the old content is kept."""
    with replace_atomically(path) as file:
        file.write(content)


@contextmanager
def replace_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that durably replaces the old one when the context ends; the temporary files that killed
    processes left of it are removed. Raises as `write_atomically`."""
    temporary = path.with_name(f".{path.name}.{process_mark()}.tmp")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of a file that belong to processes of this machine which exist no more."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if marked_dead(_mark_of(left)) is not None:
            left.unlink(missing_ok=True)


def _mark_of(temporary: Path) -> str:
    """Return the mark of the process that made a temporary file; of another file some text."""
    return ".".join(temporary.name.removesuffix(".tmp").split(".")[-2:])


@contextmanager
def fill_folder(folder: Path) -> Iterator[None]:
    """Fill a new or empty folder, or one that a killed process left unfinished, known by its marker. Raises InputError:
    it holds something else, or is a file; DiskFull, StoreError: as `translate_write_errors`."""
    marker = folder / UNFINISHED
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not marker.is_file()):
        raise InputError("the output folder is not empty", got=folder, remedy="Choose another --out.")
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in [path for path in folder.iterdir() if path != marker]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        marker.touch()
        sync(folder)
        yield
        marker.unlink()
        sync(folder)


@contextmanager
def hold_lock(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock file with the process id, after waiting up to `patience` seconds for another process; the
    system frees it when the process ends. Raises RunLocked: another process holds it, which is named; StoreError: the
    file system has no locks."""
    with _acquire(path, lock, patience) as file:
        with translate_write_errors(path):
            _write_process(file)
        yield


@contextmanager
def share_lock(path: Path, when_alone: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file together with other processes that share it; `hold_lock` is refused meanwhile. `when_alone` is
    called before the body and after it, where no other process holds the lock then. Raises as `hold_lock`."""

    def join(file: IO[str]) -> None:
        with suppress(BlockingIOError):
            lock(file)
            when_alone()
            _write_process(file)
        lock(file, is_shared=True)

    with _acquire(path, join, JOIN_SECONDS) as file:
        try:
            yield
        finally:
            with suppress(OSError, StoreError):
                lock(file)
                when_alone()


@contextmanager
def _acquire(path: Path, attempt: Callable[[IO[str]], None], patience: float) -> Iterator[IO[str]]:
    """Open a lock file, and attempt to lock it until the patience ends."""
    with translate_write_errors(path):
        file = path.open("a+")
    with file:
        deadline = time.monotonic() + patience
        while True:
            try:
                attempt(file)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise _locked_by(file.read().strip(), path) from None
                time.sleep(LOCK_LOOK)
            except OSError as error:
                got, remedy = f"{error.strerror or error}, for {path}", "Choose an --out on a local disk."
                rule = "a lock keeps two processes from writing to one run"
                raise StoreError("the file system cannot lock files", got=got, rule=rule, remedy=remedy) from error
        yield file


def _write_process(file: IO[str]) -> None:
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _locked_by(process: str, path: Path) -> RunLocked:
    got, remedy = f"process {process or 'unknown'} in {path.parent}", "Wait for it, stop it, or choose another --out."
    return RunLocked("another process writes to this run", got=got, remedy=remedy)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes, and keep those of processes that live. Only the holder of the
    folder's lock may call it."""
    with translate_write_errors(folder):
        for pattern in LEFTOVERS:
            for leftover in folder.rglob(pattern):
                if not is_mark_of_living(_mark_of(leftover)):
                    leftover.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in the system's place for temporary files, and remove it at the end; those of killed processes are
    removed first, with what joblib made for their workers: that a process was ours, its folder says. Raises DiskFull,
    StoreError: it cannot be made."""
    place = Path(tempfile.gettempdir())
    for old in place.glob(f"{TEMPORARY}*"):
        number = marked_dead(old.name.removeprefix(TEMPORARY).partition("-")[0])
        if number is not None:
            _remove_worker_files(number)
            shutil.rmtree(old, ignore_errors=True)
    with translate_write_errors(place):
        folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{process_mark()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_worker_files(number: int) -> None:
    """Remove the semaphores and folders that joblib made for the workers of a process which was killed with them."""
    for place in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        for pattern in OF_WORKERS:
            for left in place.glob(pattern.format(number)):
                with suppress(OSError):  # of another user, or removed meanwhile
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
