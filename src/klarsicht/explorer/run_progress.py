"""Progress of a run that may still be written."""

from __future__ import annotations

from typing import Any

from klarsicht.explorer.class_lines import RANKING_FILE
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.step_words import describe_step, is_measured_beside


def list_steps(reader: RunReader) -> list[dict[str, Any]]:
    """List the steps of a run with their done and total units, and the ranking."""
    manifest, store = reader.manifest, reader.store
    finished = manifest.get("finished", ())
    steps = [
        {"name": name, "done": units if name in finished else store.count_units(name), "units": units}
        for name, units in manifest.get("steps", {}).items()
    ]
    steps.append({"name": "ranking", "done": int(store.has_file(RANKING_FILE)), "units": 1})
    return [step | {"words": describe_step(step["name"]), "beside": is_measured_beside(step["name"])} for step in steps]
