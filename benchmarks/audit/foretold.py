"""Forecast of an audit's cost (`audit doctor --cost`) beside what `audit run` and `audit quantify` then cost, by step.

    python benchmarks/audit/foretold.py RUNS --model networks:squeezenet --data DIR --target carton --json FILE
    python benchmarks/audit/foretold.py RUNS --model audit_scale.py:build --data DIR/10000/data --seconds 60

    python benchmarks/audit/foretold.py RUNS --model MODEL --data DATA --sides forecast audit

The forecast, the audit and its quantification are processes of their own with one thread, one after the other, on the
whole corpus. They count processor seconds, which other work on the machine changes less than elapsed time. RUNS/run
gets the audit's run folder, which must not exist.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from audit_scale import disk, measured, reporter, timed

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIDES = ("forecast", "audit", "quantification")
MIB = 2**20


def foretold(settings: Any, seconds: float, out: Path) -> dict[str, Any]:
    """Processor seconds, MB and MiB of each step, as the forecast has them, and what it took itself."""
    from klarsicht.audit.verdicts.forecast import add_steps, forecast
    from klarsicht.ground.machine.memory import keep_freed_memory

    keep_freed_memory()
    cpu, wall = time.process_time(), time.perf_counter()
    found = forecast(settings, seconds=seconds)
    took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}

    def lines(steps: Sequence[Any]) -> dict[str, Any]:
        return {
            step.step: {"cpu": step.cpu_seconds, "disk": step.disk_bytes / 1e6, "peak": (step.peak_bytes or 0) / MIB}
            for step in steps
        }

    quantification = lines((*found.quantification, add_steps(found.quantification)))
    told = lines((*found.steps, add_steps(found.steps))) | {"images": found.images, "took": took}
    return told | {"quantification": quantification}


def audited(settings: Any, seconds: float, out: Path) -> dict[str, Any]:
    """The same of the audit itself."""
    from klarsicht.audit.explanation import pipeline
    from klarsicht.audit.explanation.steps import audit_inputs
    from klarsicht.ground.machine.memory import keep_freed_memory

    keep_freed_memory()
    told: dict[str, Any] = {}
    metrics = [f"clusters ({', '.join(settings.metric)})", "clusters (features)"]

    def report(step: str, cpu: float, peak: float, **more: float) -> None:
        told[metrics.pop(0) if step == "clusters" else step] = {"cpu": cpu, "peak": peak}

    names = {"open_run": "hash", "attribute": "relevance", "report": "ranking and report",
             "analyse": "clusters"}  # fmt: skip
    timed(pipeline, names, report)
    timed(audit_inputs, {"open_data": "opening"}, report)
    pipeline.run(settings, out / "run")
    steps = list(told.values())
    total = {"cpu": sum(one["cpu"] for one in steps), "peak": max(one["peak"] for one in steps)}
    size = sum(value for name, value in disk(out / "run").items() if name != "files")
    return told | {"all": total | {"disk": size}}


def quantified(settings: Any, seconds: float, out: Path) -> dict[str, Any]:
    """The same of the quantification of that audit; steps that read images have the reading in them."""
    from klarsicht.audit.explanation.steps import step_units
    from klarsicht.audit.verdicts.quantification import quantification
    from klarsicht.ground.machine.memory import keep_freed_memory

    keep_freed_memory()
    told: dict[str, Any] = {}
    before = sum(value for name, value in disk(out / "run").items() if name != "files")

    def report(step: str, cpu: float, peak: float, **more: float) -> None:
        told[step] = {"cpu": cpu, "peak": peak}

    run_step = step_units.run_step

    def measured_step(audit: Any, store: Any, work: Any, step: str, units: Any, workers: int, label: str) -> None:
        with measured(label, report):
            run_step(audit, store, work, step, units, workers, label)

    step_units.run_step = measured_step
    names = {"learn_embedding": "learned embedding", "draw_followed_clusters": "pictures of clusters",
             "name_resemblances": "families", "write_quantification": "pictures and page"}  # fmt: skip
    timed(quantification, names, report)
    began = time.process_time()
    found = quantification.quantify(out / "run")
    noted = sum(verdict.needs_review for verdict in found)
    total = {"cpu": time.process_time() - began, "peak": max(one["peak"] for one in told.values())}
    size = sum(value for name, value in disk(out / "run").items() if name != "files")
    return told | {"all": total | {"disk": size - before}, "noted": noted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", default="label")
    parser.add_argument("--metric", nargs="+", default=["concept"])
    parser.add_argument("--method", default="auto")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        from klarsicht.audit.explanation.settings import AuditSettings

        settings = AuditSettings(
            model=asked.model, data=asked.data, target=asked.target, metric=tuple(asked.metric), method=asked.method
        )
        side = {"forecast": foretold, "audit": audited, "quantification": quantified}[asked.side]
        print(json.dumps(side(settings, asked.seconds, asked.out)))
        return
    report = reporter(asked.json, model=asked.model, data=Path(asked.data).name, target=asked.target)
    for side in asked.sides:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        done = subprocess.run(
            command, env=os.environ | dict.fromkeys(THREADS, "1"), stdout=subprocess.PIPE, text=True, check=True
        )
        report(side=side, **json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
