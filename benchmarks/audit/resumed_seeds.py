"""One result a seed, kept in a file of JSON lines: a seed that is in it is not run again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path


def results(file: Path, seeds: int, one: Callable[[int, Path], dict]) -> list[dict]:
    """What `one` gives for each seed, in a folder of its own that is removed afterwards; those of the file first."""
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in range(seeds):
        if seed not in {result["seed"] for result in found}:
            with tempfile.TemporaryDirectory() as folder:
                found.append(one(seed, Path(folder)))
            with file.open("a") as lines:
                lines.write(json.dumps(found[-1]) + "\n")
    return found
