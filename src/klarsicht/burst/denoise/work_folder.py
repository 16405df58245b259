"""The folder beside an output in which its making is kept, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from klarsicht.ground.disk import locked, write_atomically, writing
from klarsicht.ground.errors import InputError, ModelError, UsageError

ABOUT, LOCK = "work.json", "lock"


def folder_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.work")


@contextmanager
def folder(out: Path, wanted: Mapping[str, Any]) -> Iterator[Path]:
    """The work folder of an output; what it holds of another command is cleared, and all of it when this one is done or
    can never be, because of what it was given.

    Raises RunLocked where another process makes the same output, StoreError where nothing can be written.
    """
    path, about = folder_of(out), json.dumps(wanted, indent=1, sort_keys=True).encode()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK):
        if not (path / ABOUT).exists() or (path / ABOUT).read_bytes() != about:
            for file in path.iterdir():
                if file.name != LOCK:
                    file.unlink()
            write_atomically(path / ABOUT, about)
        try:
            yield path
        except (InputError, UsageError, ModelError):
            shutil.rmtree(path)
            raise
        shutil.rmtree(path)


def fingerprint(path: Path) -> list[Any]:
    """What tells a file from another, without reading it."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def refuse_inputs(outputs: list[Path], inputs: list[Path], folders: list[Path]) -> None:
    """Raises UsageError where an output would take an input's place or be taken for one the next time, or where two
    outputs are one. folders: those whose photographs are the inputs."""
    taken, among = {path.resolve() for path in inputs}, {folder.resolve() for folder in folders}
    for number, out in enumerate(outputs):
        if out.resolve() in taken:
            raise UsageError(f"{out} is one of the frames", rule="frames are never overwritten", remedy="Rename -o.")
        if out.resolve().parent in among:
            rule = "the next time it would be taken for one of them"
            raise UsageError(f"{out} would lie among the frames", rule=rule, remedy="Choose another folder for -o.")
        if out.resolve() in {other.resolve() for other in outputs[:number]}:
            raise UsageError(f"{out} is wanted twice", rule="each output needs a name of its own")
