"""How far a run has come."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klarsicht.ground.store import RunStore


@dataclass(frozen=True)
class Step:
    """A step of a run and its work units."""

    name: str
    done: int
    units: int

    @property
    def complete(self) -> bool:
        return self.done >= self.units

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"complete": self.complete}


def progress_of(run: str | Path) -> list[Step]:
    """The steps of a run in order; a step whose size is not known yet is left out.

    Raises:
        InputError: no run in this folder.
    """
    store = RunStore.open(run)
    steps = [Step(name, len(store.done(name)), units) for name, units in store.manifest.get("steps", {}).items()]
    files = [Step(name, int((store.path / name).exists()), 1) for name in ("ranking.json", "report.html")]
    return steps + files
