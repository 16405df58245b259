"""Progress of a run by step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import Verification, verify


@dataclass(frozen=True)
class Step:
    """A step of a run with its finished (`done`) and total (`units`) work units."""

    name: str
    done: int
    units: int

    @property
    def complete(self) -> bool:
        return self.done >= self.units

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"complete": self.complete}


def read_progress(run: str | Path) -> list[Step]:
    """Read the steps of a run in order; a step whose size is not yet known is left out.

    Raises:
        InputError: the folder contains no run.
        RunDamaged: a marker is damaged, or missing from a step that was finished.
    """
    store = RunStore.open(run)
    manifest = store.manifest
    with store.translate_parse_errors(MANIFEST):
        sizes = [(str(name), int(units)) for name, units in manifest["steps"].items()]
    steps = [Step(name, len(store.finished_units(name)), units) for name, units in sizes]
    files = [Step(name, int((store.path / name).exists()), 1) for name in ("ranking.json", "report.html")]
    return steps + files


def verify_run(run: str | Path) -> Verification:
    """Compare every file of a run with its checksum.

    Raises:
        InputError: the folder contains no run.
        RunDamaged: its manifest is damaged, so that nothing is known of the rest.
    """
    return verify(RunStore.open(run))
