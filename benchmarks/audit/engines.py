"""Cost of engines: throughput of an audit, overhead of a unit, bytes of an image, and a model of 1.28 million images.

    python benchmarks/audit/audit_scale.py make DIR/5000 --images 5000 --classes 50
    python benchmarks/audit/engines.py runs DIR/5000 RUNS --engines local dask ray --workers 1 2 --json FILE
    python benchmarks/audit/engines.py overhead --engines dask ray --workers 2 --units 200 --json FILE
    python benchmarks/audit/engines.py speed --workers 1 2 --units 40 --json FILE
    python benchmarks/audit/engines.py client --json FILE
    python benchmarks/audit/engines.py model --compute 0.1 --client 0.0004 --json FILE

`runs`: each run is a command of its own on the drawn pictures and the network of `audit_scale.py`; runs follow each
other. Images a second count from its start to its end, whole run and all; processor seconds are those of the command
and all that it started. The results are compared file by file.

`overhead`: milliseconds of a unit that does nothing, over those of the same loop in this process; workers are warm.

`speed`: seconds of units that compute for about 0.14 processor seconds and share nothing, with warm workers: what an
engine leaves of a second processor.

`client`: what the client does for the images of one unit of a ResNet-50 with 1,000 outputs (256 images, the arrays of
`audit run` with the default settings, random numbers): bytes that a worker sends, and seconds to unpickle, write and
mark them. The folder is where TMPDIR says.

`model`: images a second of W workers are W / compute, until the client's 1 / client is less; the client's own part of
the run (opening, ranking, report) is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from audit_scale import CLASSES_FILE, reporter

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
APART = (
    "lock", "checksums/lock", "manifest.json", "checksums/manifest.json.json", "checksums/report.html.json",
    "report.html",
)  # fmt: skip
"""Files with a date."""
PRODUCTS = 500  # of matrices, in a unit that computes
UNIT, IMAGENET = 256, 1_281_167
ARRAYS = {  # of an image of a ResNet-50, by `attribution.arrays_of`
    "features": ((2048,), np.float32),
    "logits": ((1000,), np.float32),
    "head": ((2048,), np.float32),
    "maps": ((32, 32), np.float16),
    "concepts": ((1024,), np.float32),
    "channels": ((512,), np.float32),
}


def audited(folder: Path, out: Path, engine: str, workers: int) -> dict[str, Any]:
    """Seconds of a run on an engine."""
    names = json.loads((folder / CLASSES_FILE).read_text())
    model = f"{Path(__file__).parent / 'audit_scale.py'}:build"
    command = [sys.executable, "-m", "klarsicht", "audit", "run", "--model", model, "--data", str(folder / "data")]
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"AUDIT_SCALE_CLASSES": str(len(names))}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    code = subprocess.run(
        [*command, "--out", str(out), "--engine", engine, "--workers", str(workers)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    ).returncode  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    images = len(list((folder / "data").glob("*/*")))
    return {"engine": engine, "workers": workers, "code": code, "images": images, "wall": round(wall, 1), "cpu": cpu}


def contents(run: Path) -> dict[str, bytes]:
    """Every result by its bytes."""
    paths = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name not in APART}


def do_nothing(unit: range) -> int:
    return unit.start


def compute(unit: range) -> float:
    """Multiply matrices for about 0.14 processor seconds."""
    began, matrix = time.process_time(), np.random.default_rng(unit.start).random((200, 200))
    for _ in range(PRODUCTS):
        matrix = matrix @ matrix
        matrix /= matrix.max()
    return time.process_time() - began


def measure_speed(engine: str, workers: int, units: int) -> dict[str, Any]:
    """Seconds of units that compute, and the processor seconds of each, which grow where workers share a processor."""
    from klarsicht.audit.explanation.engines import parse_engine
    from klarsicht.audit.explanation.executor import partition, run_here
    from klarsicht.audit.explanation.remote_units import run_on_engine
    from klarsicht.ground.run_folder.store import RunStore

    place = parse_engine(engine)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore.create(Path(folder) / "run", settings={}, identity={})

        def seconds(work: Any, number: int) -> tuple[float, list[Any]]:
            some, began = partition(number, 1), time.perf_counter()
            if place is None:
                results = [result for _, result in run_here(work, some, workers, 1)]
            else:
                results = [result for _, result in run_on_engine(place, store, False, work, some, workers, 1)]
            return time.perf_counter() - began, results

        seconds(compute, 4 * workers)  # workers start and import
        wall, results = seconds(compute, units)
    return {"engine": engine, "workers": workers, "units": units, "wall": wall, "cpu_a_unit": sum(results) / units}


def measure_overhead(engine: str, workers: int, units: int) -> dict[str, Any]:
    """Milliseconds of an empty unit."""
    from klarsicht.audit.explanation.engines import parse_engine
    from klarsicht.audit.explanation.executor import partition, run_here
    from klarsicht.audit.explanation.remote_units import run_on_engine
    from klarsicht.ground.run_folder.store import RunStore

    place = parse_engine(engine)
    assert place is not None
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore.create(Path(folder) / "run", settings={}, identity={})

        def seconds(number: int) -> float:
            began = time.perf_counter()
            done = sum(1 for _ in run_on_engine(place, store, False, do_nothing, partition(number, 1), workers, 1))
            assert done == number
            return time.perf_counter() - began

        seconds(4 * workers)  # workers start and import
        there, few = seconds(units), seconds(4)
    began = time.perf_counter()
    assert sum(1 for _ in run_here(do_nothing, partition(units, 1), 1, 1)) == units
    here = time.perf_counter() - began
    return {
        "engine": engine, "workers": workers, "units": units, "ms": 1000 * (there - here) / units,
        "ms_of_a_step": 1000 * few,
    }  # fmt: skip


def measure_client() -> dict[str, Any]:
    """Bytes of an image, and the client's seconds."""
    from klarsicht.ground.run_folder.remote_store import RemoteStore, keep_files, list_forms
    from klarsicht.ground.run_folder.store import RunStore

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store, remote = RunStore.create(Path(folder) / "run", settings={}, identity={}), RemoteStore(Path(folder) / "w")
        written = {}
        for name, (shape, dtype) in ARRAYS.items():
            store.create_array(name, (UNIT, *shape), dtype, UNIT, "attribution")
        remote.common.update({read.key: read.answer(store) for read in list_forms(store)})
        for name, (shape, dtype) in ARRAYS.items():
            written |= remote.write_rows(name, 0, rng.standard_normal((UNIT, *shape)).astype(dtype))
        sent = pickle.dumps(remote.take_files())
        repeats, began, cpu = 10, time.perf_counter(), time.process_time()
        for _ in range(repeats):
            keep_files(store, pickle.loads(sent))
            store.mark_done("attribution", 0, written)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "bytes_an_image": len(sent) / UNIT, "gigabytes_of_imagenet": len(sent) / UNIT * IMAGENET / 1e9,
        "client_s_an_image": wall / repeats / UNIT, "client_cpu_s_an_image": cpu / repeats / UNIT,
    }  # fmt: skip


def model_of(workers: int, compute: float, client: float) -> dict[str, Any]:
    """Hours of ImageNet's 1.28 million images on so many workers."""
    rate = min(workers / compute, 1 / client)
    return {
        "workers": workers, "hours": IMAGENET / rate / 3600, "images_a_second": rate,
        "limit": "client" if 1 / client < workers / compute else "workers", "workers_at_the_limit": compute / client,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["runs", "overhead", "speed", "client", "model"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--engines", nargs="+", default=["local", "dask", "ray"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--compute", type=float, help="seconds of a worker for an image")
    parser.add_argument("--client", type=float, help="seconds of the client for an image")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report = reporter(asked.json, corpus=asked.folder.name if asked.folder else "")
    if asked.what == "client":
        report(**measure_client())
    if asked.what == "model":
        for workers in (8, 64, 512):
            report(**model_of(workers, asked.compute, asked.client))
    first = None
    for engine in asked.engines if asked.what in ("runs", "overhead", "speed") else ():
        for workers in asked.workers:
            if asked.what in ("overhead", "speed"):
                measure = measure_overhead if asked.what == "overhead" else measure_speed
                report(**measure(engine, workers, asked.units))
                continue
            out = asked.out / f"{engine}-{workers}"
            measured = audited(asked.folder, out, engine, workers)
            found = contents(out)
            first = first or found
            same = first.keys() == found.keys() and all(first[name] == found[name] for name in found)
            report(**measured, images_a_second=measured["images"] / measured["wall"], files=len(found), same=same)


if __name__ == "__main__":
    main()
