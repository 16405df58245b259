"""Files of a run folder that are written whole, each with its checksum in RUN/checksums; among them the manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.config import require_shape
from klarsicht.ground.errors import KlarsichtError, RunDamaged, StoreError
from klarsicht.ground.machine.disk import hold_lock, read_regular_file, translate_write_errors, write_atomically
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.run_folder.checksums import Checksum, describe_difference
from klarsicht.ground.run_folder.manifest import Manifest, ManifestShape, require_format, to_json
from klarsicht.ground.run_folder.markers import damage_error

MANIFEST = "manifest.json"
ABSENT = object()
WRITE_LOCK, WRITE_SECONDS = "checksums/lock", 60.0  # seconds that a writer of one file waits for another
REMAKE_REMEDY = "Make the run again with this version: `klarsicht audit run` into another folder."


@dataclass(frozen=True)
class RunFiles:
    """Manifest and other whole files of a run folder; names are paths inside the run. Every reading method raises
    StoreError for what does not exist, and RunDamaged for what is missing or altered since it was written."""

    path: Path

    @property
    def exists(self) -> bool:
        """Whether the folder holds a manifest, or held one."""
        return self.has_file(MANIFEST)

    @property
    def manifest(self) -> Manifest:
        """Settings, identity, fixed facts, versions and date. Raises InputError: the run is of another format."""
        manifest: Manifest = self._parse(MANIFEST, self._read_recorded(MANIFEST))
        require_format(manifest, f"{self.path / MANIFEST}", REMAKE_REMEDY)
        with self.translate_parse_errors(MANIFEST):
            require_shape(manifest, ManifestShape)
        self._require_recorded(MANIFEST)
        return manifest

    def update_manifest(self, **facts: Any) -> None:
        """Add or replace facts of the manifest besides those fixed at creation."""
        known = self.manifest
        if any(known.get(name, ABSENT) != json.loads(to_json(value)) for name, value in facts.items()):
            self.write_json(MANIFEST, known | facts)
        elif len(self._read_admitted(MANIFEST) or ()) > 1:  # killed as it was written: the old one is admitted, too
            self._admit(MANIFEST, Checksum.of(self._read_recorded(MANIFEST)))

    def write_json(self, name: str, content: Any) -> None:
        self.write_bytes(name, to_json(content))

    def read_json(self, name: str) -> Any:
        return self._parse(name, self.read_bytes(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file inside the run. At any moment its checksum admits what the file holds: the old or the new. One
        process writes at a time: reports and certificates are written without the lock of the run. Raises RunLocked."""
        new, lock = Checksum.of(content), self.path / WRITE_LOCK
        with translate_write_errors(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, WRITE_SECONDS):
            self._admit(name, *self._content_before(name), new)
            write_atomically(self.inside(name), content)
            self._admit(name, new)

    def read_bytes(self, name: str) -> bytes:
        content = self._read_recorded(name)
        self._require_recorded(name)
        return content

    def has_file(self, name: str) -> bool:
        """Whether the file exists, or was written and is lost."""
        try:
            if self.inside(name).is_file():
                return True
        except OSError as error:
            raise damage_error(name, f"cannot be read: {error.strerror or error}") from error
        admitted = self._read_admitted(name)
        return admitted is not None and None not in admitted

    def recorded_files(self) -> list[str]:
        """List the files that have a checksum of their own."""
        folder = self.path / "checksums"
        return sorted(file.relative_to(folder).as_posix().removesuffix(".json") for file in folder.rglob("*.json"))

    def remove_file(self, name: str) -> None:
        """Remove a file, and then its checksum, so that it counts as never written."""
        with translate_write_errors(self.path):
            for one in (name, record_path(name)):
                self.inside(one).unlink(missing_ok=True)

    @contextmanager
    def translate_parse_errors(self, name: str, *faults: type[Exception]) -> Iterator[None]:
        """Convert whatever a parser raises on a damaged file of the run to RunDamaged, but `faults` of the program."""
        try:
            yield
        except Exception as error:  # zarr, pyarrow and look-ups raise nearly anything on damaged content
            if isinstance(error, (KlarsichtError, MemoryError, *faults)) or is_out_of_memory(error):
                raise
            told = f"{type(error).__name__}: {error}".split("\n")[0]
            raise damage_error(name, f"cannot be read: {told}") from error

    def _parse(self, name: str, content: bytes) -> Any:
        with self.translate_parse_errors(name):
            return json.loads(content)

    def _read(self, name: str) -> bytes:
        """Read a file without comparing it with its checksum."""
        try:
            return read_regular_file(self.inside(name))
        except (FileNotFoundError, NotADirectoryError):
            raise self._absent("file", name) from None
        except OSError as error:
            raise damage_error(name, f"cannot be read: {error.strerror or error}") from error

    def _read_recorded(self, name: str) -> bytes:
        """Read a file, and compare it with its checksum where there is one."""
        while True:
            cached = self._read_admitted(name)
            if cached is not None and None not in cached and not self.inside(name).exists():
                raise damage_error(name, "missing")
            content = self._read(name)
            if cached is None or Checksum.of(content) in cached:
                return content
            if self._read_admitted(name) == cached:  # else another process of a shared run is replacing the file
                raise damage_error(name, describe_difference(Checksum.of(content), cached[-1]))

    def _read_admitted(self, name: str) -> tuple[Checksum | None, ...] | None:
        """Read the checksums that a file may have, None for its absence; None where none were written. Raises
        RunDamaged."""
        record = record_path(name)
        try:
            content = read_regular_file(self.inside(record))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise damage_error(record, f"cannot be read: {error.strerror or error}") from error
        with self.translate_parse_errors(record):
            return tuple(None if one is None else Checksum.from_json(one) for one in [*json.loads(content)])

    def _is_recorded(self, name: str) -> bool:
        return self._read_admitted(name) is not None

    def _require_recorded(self, name: str) -> None:
        """Check that a file has a checksum; raises RunDamaged."""
        if not self._is_recorded(name):
            raise damage_error(name, "its checksum is missing")

    def _admit(self, name: str, *checksums: Checksum | None) -> None:
        """Write the checksums that a file may have; None: it need not exist."""
        write_atomically(self.inside(record_path(name)), to_json([one and one.to_json() for one in checksums]))

    def _content_before(self, name: str) -> tuple[Checksum | None, ...]:
        """Return what a file that is to be replaced may hold; nothing where that cannot be known."""
        try:
            return self._read_admitted(name) or ((None,) if not self.inside(name).exists() else ())
        except RunDamaged:
            return ()

    def inside(self, name: str) -> Path:
        """Return the path of a file inside the run; raises StoreError for names that lead out of it."""
        return self.path.joinpath(*map(check_name, name.split("/")))

    def _absent(self, kind: str, name: str) -> StoreError:
        remedy = "Run the command that makes it again."
        return StoreError(f"the run has no {kind} {name!r}", got=self.path, remedy=remedy)


def check_name(name: str) -> str:
    """Return the name if it is allowed inside a run; raises StoreError otherwise."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        rule = "letters, digits, _ . + - only, and no path out of the run"
        raise StoreError("this name is not allowed inside a run", got=repr(name), rule=rule)
    return name


def record_path(name: str) -> str:
    """Return the path inside the run of the checksum of a file of that name."""
    return f"checksums/{name}.json"
