"""Runs as older versions left them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def before_checksums(run: Path) -> None:
    """Take out of a run what store version 1 did not write: checksums, and names of finished steps and of arrays."""
    shutil.rmtree(run / "checksums")
    manifest = json.loads((run / "manifest.json").read_bytes())
    kept = {name: value for name, value in manifest.items() if name not in ("checksums", "finished", "arrays")}
    (run / "manifest.json").write_text(json.dumps(kept | {"store": 1}))
    for step in ("views", "evidence"):
        shutil.rmtree(run / "done" / step, ignore_errors=True)
    for marker in run.glob("done/*/*.json"):
        facts = {k: v for k, v in json.loads(marker.read_bytes()).items() if k not in ("step", "unit", "files")}
        marker.write_text(json.dumps(facts))
    for metadata in run.glob("arrays.zarr/*/zarr.json"):
        metadata.write_text(json.dumps(json.loads(metadata.read_bytes()) | {"attributes": {}}))
