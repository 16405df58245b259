"""Work folder beside an output, in which intermediate files are kept, so that the same command can resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import InputError, ModelError, UsageError
from klarsicht.ground.machine import disk
from klarsicht.ground.machine.operating_system import REMOVES_OPEN_FILES

ABOUT, LOCK = "work.json", "lock"


def work_folder_path(out: Path) -> Path:
    """Return the path of the work folder of an output, which may be the current folder or one above it."""
    place = out if out.name not in ("", "..") else out.resolve()
    return place.parent / f".{place.name or 'klarsicht'}.work"


@contextmanager
def open_work_folder(out: Path, fingerprint: Mapping[str, Any]) -> Iterator[Path]:
    """Open the work folder of an output under a lock, cleared of another command's content; it is removed when this
    command is done, or fails because of its arguments or inputs. Raises RunLocked where another process makes the same
    output, StoreError where nothing can be written."""
    path, about = work_folder_path(out), json.dumps(fingerprint, indent=1, sort_keys=True).encode()
    with disk.translate_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    with disk.hold_lock(path / LOCK):
        if not (path / ABOUT).exists() or (path / ABOUT).read_bytes() != about:
            for file in path.iterdir():
                if file.name != LOCK:
                    file.unlink()
            disk.write_atomically(path / ABOUT, about)
        try:
            yield path
        except (InputError, UsageError, ModelError):
            _remove(path)
            raise
        _remove(path)
    if not REMOVES_OPEN_FILES:
        _remove(path)


def _remove(path: Path) -> None:
    """Remove the folder; Windows leaves the lock in it as long as it is held."""
    shutil.rmtree(path, ignore_errors=not REMOVES_OPEN_FILES)


def fingerprint(path: Path) -> list[Any]:
    """Identify a file by path, size and modification time. Raises InputError where it is out of reach."""
    with disk.translate_faults(path):
        stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def check_outputs(outputs: list[Path], inputs: list[Path], folders: list[Path]) -> None:
    """Check that no output is a folder, overwrites an input, lies in a folder of inputs (where the next run would read
    it), or cannot be written. Raises UsageError, StoreError."""
    inputs_resolved, among = {path.resolve() for path in inputs}, {folder.resolve() for folder in folders}
    for out in outputs:
        if out.is_dir():
            raise UsageError(f"{out} is a folder", rule="this output is a file", remedy="Give the file a name.")
        if out.resolve() in inputs_resolved:
            raise UsageError(f"{out} is one of the frames", rule="frames are never overwritten", remedy="Rename -o.")
        if out.resolve().parent in among:
            rule = "the next time it would be taken for one of them"
            raise UsageError(f"{out} would lie among the frames", rule=rule, remedy="Choose another folder for -o.")
    disk.require_writable(outputs)
