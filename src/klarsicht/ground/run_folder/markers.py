"""Markers of finished work units: what each unit wrote, by size and checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from klarsicht.ground.errors import RunDamaged
from klarsicht.ground.machine.disk import read_regular_file
from klarsicht.ground.run_folder.checksums import Checksum, Written
from klarsicht.ground.run_folder.manifest import to_json

HEADER = ("step", "unit", "files")
COMPUTE_AGAIN = "Give the same `audit run` again: it computes again what is damaged. Then repeat the commands after it."


@dataclass(frozen=True)
class Marker:
    """Marker of a finished unit: the files that it wrote, and other facts."""

    step: str
    unit: int
    files: Written
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        files = {name: one and one.to_json() for name, one in self.files.items()}
        return to_json({"step": self.step, "unit": self.unit, "files": files, **self.facts})

    @classmethod
    def read(cls, path: Path, step: str, unit: int) -> Marker:
        """Read the marker of a unit. Raises FileNotFoundError; RunDamaged: it cannot be read, or is of another unit."""
        try:
            known = path.stat()
            return _read_unchanged(path, step, unit, known.st_ino, known.st_mtime_ns)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise damage_error(f"done/{step}/{path.name}", f"no marker of unit {unit}: {error}") from error


@lru_cache(maxsize=1 << 16)
def _read_unchanged(path: Path, step: str, unit: int, inode: int, date: int) -> Marker:
    content = json.loads(read_regular_file(path))
    facts = {name: value for name, value in content.items() if name not in HEADER}
    if (content["step"], content["unit"]) != (step, unit):
        raise ValueError(f"it is of {content['step']}, unit {content['unit']}")
    files = {name: None if one is None else Checksum.from_json(one) for name, one in content["files"].items()}
    return Marker(step, unit, files, facts)


def damage_error(name: str, what: str) -> RunDamaged:
    """Make the error of a file of a run, by its path inside it, that is not as it was written, in a few words."""
    is_manifest = name.removeprefix("checksums/").startswith("manifest.json")
    remedy = "Restore it from a copy, or audit again into another folder." if is_manifest else COMPUTE_AGAIN
    return RunDamaged("the run is damaged", got=f"{name}: {what}", rule="every file as it was written", remedy=remedy)
