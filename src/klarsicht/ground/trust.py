"""Trust in code that a file, a run or a correction of somebody else brings along: it is named, and not run unasked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from klarsicht.ground.entry_points import find_files
from klarsicht.ground.errors import InputError, UntrustedCode

TRUST_REMEDY: Final = "Use --trust if you know who wrote it."
RECORD_REMEDY: Final = "Or repeat its `audit run`, which records the code that --model and --decode name."
_TRUST: Final = ContextVar("trust", default=False)


@contextmanager
def trusted_code() -> Iterator[None]:
    """Run code that model files, runs and corrections bring along or name, while the context is open, as by `--trust`.

    Without it such code is named and not run: pickles and programs in a .pt2 file, weights of transformers in a pickle,
    and functions that a run or correction names in a file inside it, or that changed since. Threads that are begun
    meanwhile do not inherit it; worker processes of a run do. Raises Exception: what is raised inside."""
    token = _TRUST.set(True)
    try:
        yield
    finally:
        _TRUST.reset(token)


def is_trusted() -> bool:
    """Test whether code of others may run here, see `trusted_code`."""
    return _TRUST.get()


def set_trust(value: bool) -> None:
    """Take over the trust of the process that sent work to this one."""
    _TRUST.set(value)


@dataclass(frozen=True)
class RecordedCode:
    """Code that the record in the folder of a run or a correction names, with the SHA-256 of the module's file by
    specification from when the record was made."""

    folder: Path
    digests: Mapping[str, str]

    @classmethod
    def of(cls, folder: str | Path, record: Mapping[str, Any]) -> RecordedCode:
        """Read the hashes of a manifest, or of the record of a correction; none stand there where it names no code."""
        return cls(Path(folder), record.get("code", {}))

    def require(self, spec: str | None) -> None:
        """Check that the file of a specification, if there is one, lies outside the folder and is as it was when the
        record was made. Raises UntrustedCode: otherwise, unless code is trusted here."""
        if spec is None or is_trusted() or (files := find_files(spec)) is None:
            return
        inside = [file for file in files if file.resolve().is_relative_to(self.folder.resolve())]
        if inside:
            what = "a folder brings its own code along"
        elif not files:
            what = "a folder names code that is not a file of yours"
        elif spec not in self.digests:
            what = "a folder names code without its hash"
        elif self.digests[spec] != hash_file(files[-1]):
            what = "code has changed since the folder that names it was made"
        else:
            return
        got = str((inside or files)[-1]) if files else spec
        rule = f"{self.folder} names {spec}, which would be run"
        raise UntrustedCode(what, got=got, rule=rule, remedy=f"{TRUST_REMEDY} {RECORD_REMEDY}")


def record_code(*specs: str | None) -> dict[str, str]:
    """Hash the file of each module, by its specification; code that has none is left out."""
    found = {spec: files for spec in specs if spec is not None and (files := find_files(spec))}
    return {spec: hash_file(files[-1]) for spec, files in found.items()}


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file of code. Raises InputError: it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError("a file of code cannot be read", got=f"{file}: {error.strerror}") from error
