"""Throughput of an audit by one process and by several that share its folder (`audit run --shard K/N`).

    python benchmarks/audit/audit_scale.py make DIR/5000 --images 5000 --classes 50
    python benchmarks/audit/shards.py DIR/5000 RUNS --shards 1 2 --json FILE

Each run is made by so many processes of one thread, started together, on the drawn pictures and the network of
`audit_scale.py`; runs follow each other. Images a second count from the start of the first process to the end of the
last, whole run and all. Processor seconds are those of all processes, which other work on the machine changes less:
those of one process over those of N are the share of N-fold speed that is left where every process has a processor.
The results are compared file by file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from audit_scale import CLASSES_FILE, reporter

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
APART = ("lock", "manifest.json", "checksums/manifest.json.json", "checksums/report.html.json", "report.html")
"""Files with a date."""


def audited(folder: Path, out: Path, shards: int) -> dict[str, Any]:
    """Seconds of a run by so many processes."""
    names = json.loads((folder / CLASSES_FILE).read_text())
    model = f"{Path(__file__).parent / 'audit_scale.py'}:build"
    command = [sys.executable, "-m", "klarsicht", "audit", "run", "--model", model, "--data", str(folder / "data")]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"AUDIT_SCALE_CLASSES": str(len(names))}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    running = [
        subprocess.Popen(
            [*command, "--out", str(out), *(["--shard", f"{k + 1}/{shards}"] if shards > 1 else [])],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for k in range(shards)
    ]  # fmt: skip
    codes = [one.wait() for one in running]
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    images = len(list((folder / "data").glob("*/*")))
    return {"shards": shards, "codes": codes, "images": images, "wall": round(wall, 1), "cpu": round(cpu, 1)}


def contents(run: Path) -> dict[str, bytes]:
    """Every result by its bytes."""
    paths = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name not in APART}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report = reporter(asked.json, corpus=asked.folder.name)
    first = None
    for number, shards in enumerate(asked.shards):
        out = asked.out / f"{number}-{shards}"
        told = audited(asked.folder, out, shards)
        found = contents(out)
        first = first or found
        same = first.keys() == found.keys() and all(first[name] == found[name] for name in found)
        report(**told, images_a_second=round(told["images"] / told["wall"], 1), files=len(found), same=same)


if __name__ == "__main__":
    main()
