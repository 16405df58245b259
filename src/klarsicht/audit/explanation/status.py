"""Progress of a run by step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.shards import Shares
from klarsicht.ground.run_folder.store import RunStore


@dataclass(frozen=True)
class Step:
    """A step of a run with its finished (`done`) and total (`units`) work units, and the commands that make the shares
    which are missing, where shards work on it (`commands`, of `shares`)."""

    name: str
    done: int
    units: int
    commands: tuple[str, ...] = ()
    shares: int = 0

    @property
    def complete(self) -> bool:
        return self.done >= self.units

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"complete": self.complete}


def read_progress(run: str | Path) -> list[Step]:
    """Read the steps of a run in order, without one whose size is not yet known; raises InputError where the folder has
    no run, and RunDamaged where a marker is damaged, or missing from a finished step."""
    store = RunStore.open(run)
    manifest = store.manifest
    with store.translate_parse_errors(MANIFEST):
        sizes = [(str(name), int(units)) for name, units in manifest["steps"].items()]
    shares = store.shares()
    steps = [read_step(store, name, units, shares.get(name)) for name, units in sizes]
    files = [Step(name, int((store.path / name).exists()), 1) for name in ("ranking.json", "report.html")]
    return steps + files


def read_step(store: RunStore, name: str, units: int, shares: Shares | None) -> Step:
    """Read how far a step has come, by units and by shares."""
    done = store.finished_units(name)
    if shares is None:
        return Step(name, len(done), units)
    missing_shares = shares.list_missing(set(range(units)) - done.keys())
    commands = tuple(map(shares.command_of, missing_shares))
    return Step(name, len(done), units, commands, shares.count)
