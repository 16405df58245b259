"""Folders that are made once for one state of the sources, shared by the processes of a test run and kept for the next.

What a folder holds follows from the audit, from the file of its maker, from the libraries and from the processor: their
hash is part of its name. Tests only read it; whoever wants to write copies it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn
import torch

import klarsicht

ROOMS = [Path(klarsicht.__file__).parent / name for name in ("ground", "numerics", "audit")]
LIBRARIES = (platform.python_version(), np.__version__, torch.__version__, sklearn.__version__)
PROCESSOR = (torch.backends.cpu.get_cpu_capability(), os.environ.get("NUMBA_CPU_NAME", ""))


def hash_of(files: Iterable[Path]) -> str:
    """Hash names and contents of files, the libraries and the processor: 16 hexadecimal digits."""
    digest = hashlib.sha256(repr((LIBRARIES, PROCESSOR)).encode())
    for file in sorted(files):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class KeptFolders:
    """Folders under a root, by the name of what they hold and the hash of its sources."""

    root: Path

    def folder(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the folder that `make` fills; it is made where none of these sources exists, by one process alone.

        The path is the same while `make` runs: what is made may name it.
        """
        import fcntl  # here alone: tests of a system without it import this module

        sources = (file for room in ROOMS for file in room.rglob("*") if "__pycache__" not in file.parts)
        files = {Path(inspect.getsourcefile(make)), *filter(Path.is_file, sources)}
        whole = self.root / f"{name}-{hash_of(files)}"
        done = whole / "complete"
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                for old in self.root.glob(f"{name}-*"):
                    aside = self.root / uuid.uuid4().hex
                    old.rename(aside)
                    shutil.rmtree(aside)
                whole.mkdir()
                make(whole)
                done.touch()
        return whole
