"""Corrections of a run before and after: what `audit clean` and `audit evaluate` wrote into its folder."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from klarsicht.explorer.explored_run import ExploredRun

RESULT_FILES = ("correction.json", "evaluation.json", "certificate.json")
ANSWERS_FILE = "answers.parquet"
MAX_BYTES = 32 << 20  # of a result file that is read


def list_corrections(run: ExploredRun) -> list[dict[str, Any]]:
    """List the corrections in a run's folder with their results and changed images; `unread` names damaged files."""
    root = run.reader.store.path
    folders = [root / "certificate", *sorted((root / "corrections").glob("*"))]
    own = (folder for folder in folders if folder.is_dir() and not folder.is_symlink())
    return [_describe(run, one) for one in own if any((one / name).is_file() for name in RESULT_FILES)]


def _describe(run: ExploredRun, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {"name": folder.name, "unread": [], "changed": []}
    for name in RESULT_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
            record[name.removesuffix(".json")] = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            record["unread"].append(f"{name}: {error}")
    try:
        record["changed"] = _read_changed_images(run, folder / ANSWERS_FILE)
    except Exception as error:  # pyarrow raises nearly anything on damaged files
        record["unread"].append(f"{ANSWERS_FILE}: {type(error).__name__}: {error}")
    return record


def _read_changed_images(run: ExploredRun, file: Path) -> list[dict[str, Any]]:
    """Read the images whose predicted class the correction changed, as they are or with the artifact on them."""
    from pyarrow import parquet

    if not file.is_file():
        return []
    images, names = run.reader.images(), run.reader.names
    lines = parquet.read_table(BytesIO(file.read_bytes())).to_pylist()

    def name(number: int) -> str:
        return names[number] if 0 <= number < len(names) else str(number)

    return [
        {
            "row": line["row"], "name": images.key(line["row"]), "label": name(line["label"]),
            "artifact": line["artifact"], "before": name(line["before"]), "after": name(line["after"]),
        }
        for line in lines if line["before"] != line["after"] and 0 <= line["row"] < len(images)
    ]  # fmt: skip
