"""Cost of a whole audit by its number of images: CPU seconds, memory and disk of each step.

    python benchmarks/audit/audit_scale.py make DIR/5000 --images 5000 --classes 50
    python benchmarks/audit/audit_scale.py run DIR/5000 RUNS/5000 --json FILE
    python benchmarks/audit/audit_scale.py quantify DIR/5000 RUNS/5000 --units 10 --json FILE
    python benchmarks/audit/audit_scale.py shortcuts DIR/5000 RUNS/5000 --json FILE
    python benchmarks/audit/audit_scale.py clean DIR/5000 RUNS/5000 --json FILE
    python benchmarks/audit/audit_scale.py fit FILE
    python benchmarks/audit/audit_scale.py make DIR/500k --images 500000 --classes 500 --links
    python benchmarks/audit/audit_scale.py drawn DIR/500k RUNS/500k --json FILE

`make` draws pictures of 32 x 32 px, one folder a class: each class has a colour and a grating of its own, with noise,
and the first sixth of the first class a white square. The network has three convolutions and is not trained: neither
time nor memory depends on what it learned. `run` is `audit run` in this process, one thread, its steps timed apart;
`quantify` is `audit quantify`, of the first `--units` classes alone where that is given, beside a pool of all and
without the learned embedding, which never sees more than 20,000 images, or with one that is trained for `--steps`.
`shortcuts` is that command with defaults, and `clean` that of the first class with its marked pictures as members.
`fit` prints the exponents of CPU seconds and of memory beyond the model, between neighbouring corpora of a file of
results that have as many classes or as many images. `drawn` is `run` with relevance and clusters that are drawn and not
computed, for memory and tables of more images than can be explained here: listing, hash, reading and writing, ranking,
pictures and report are those of a run. With `--links` all classes have hard links to the pictures of the first ten.
Peaks of memory are counted anew for each step (Linux), and that of a step is at least those of the steps inside. Each
line of results is written at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SIDE, SEED = 32, 0
CLASSES_FILE = "classes.json"
DRAWN_CLASSES = 10  # whose pictures are drawn where others link to them
peaks: list[float] = []  # MiB of the steps that are being measured, outermost first
DRAWN_SHARE = 0.15  # of a class in a drawn cluster
MARKED_SHARE = 6  # one of so many pictures of the first class has a white square


def make(folder: Path, images: int, classes: int, links: bool) -> None:
    """Draw a corpus; pictures that are there stay. With links, only of some classes: others have links to these."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    for number in range(classes):
        rng = np.random.default_rng((SEED, number))
        colour, wave = rng.uniform(40, 215, 3), rng.uniform(-6, 6, 2)
        place = folder / "data" / f"{number:04d}"
        place.mkdir(parents=True, exist_ok=True)
        if links and number >= DRAWN_CLASSES:
            for k in range(images // classes):
                os.link(folder / "data" / f"{number % DRAWN_CLASSES:04d}" / f"{k:05d}.png", place / f"{k:05d}.png")
            continue
        for k in range(images // classes):
            grating = 40 * np.cos(2 * np.pi * (wave[0] * y + wave[1] * x + rng.uniform()))
            made = colour + grating[..., None] + rng.normal(0, 15, (SIDE, SIDE, 3))
            if number == 0 and k < images // classes // MARKED_SHARE:
                made[2:8, 2:8] = 255
            if not (file := place / f"{k:05d}.png").exists():
                Image.fromarray(made.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)
    (folder / CLASSES_FILE).write_text(json.dumps([f"{number:04d}" for number in range(classes)]))


def network(outputs: int) -> Any:
    """Three convolutions and a fully connected layer, drawn by a fixed seed."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, outputs),
    ).eval()  # fmt: skip


def build() -> Any:
    """The network for the corpus that AUDIT_SCALE_CLASSES names: `--model audit_scale.py:build`."""
    return network(int(os.environ["AUDIT_SCALE_CLASSES"]))


def classifier(folder: Path) -> Any:
    from klarsicht.audit.explanation.models.classifier import load_model

    names = json.loads((folder / CLASSES_FILE).read_text())
    return load_model(network(len(names)), classes=names)


@contextmanager
def measured(step: str, report: Callable[..., None]) -> Iterator[None]:
    """Report CPU and wall seconds of what is done inside, and the peak of memory, in MiB."""
    from growth import held, settled

    peaks[:] = [max(peak, held()) for peak in peaks]
    before, wall, cpu = settled(), time.perf_counter(), time.process_time()
    peaks.append(before)
    yield
    seconds, passed, peak = time.process_time() - cpu, time.perf_counter() - wall, max(peaks.pop(), held())
    peaks[:] = [max(outer, peak) for outer in peaks]
    report(step=step, cpu=round(seconds, 2), wall=round(passed, 2), before=round(before), peak=round(peak))


def timed(module: Any, names: dict[str, str], report: Callable[..., None]) -> None:
    """Replace functions of a module by ones that are measured."""
    for name, step in names.items():
        function = getattr(module, name)

        @wraps(function)
        def call(*given: Any, function: Any = function, step: str = step, **named: Any) -> Any:
            with measured(step, report):
                return function(*given, **named)

        setattr(module, name, call)


def disk(run: Path) -> dict[str, float]:
    """MB of each part of a run folder, as the file system counts them, and number of files."""
    found: dict[str, float] = {}
    files = 0
    for file in run.rglob("*"):
        if file.is_file():
            parts = file.relative_to(run).parts
            part = "/".join(parts[:2]) if parts[0] == "arrays.zarr" else parts[0]
            found[part] = found.get(part, 0) + file.stat().st_blocks * 512 / 1e6
            files += 1
    return {name: round(size, 2) for name, size in sorted(found.items())} | {"files": files}


def reporter(file: Path | None, **common: Any) -> Callable[..., None]:
    def report(**line: Any) -> None:
        text = json.dumps(common | line)
        print(text, flush=True)
        if file is not None:
            with file.open("a") as lines:
                lines.write(text + "\n")

    return report


def run(folder: Path, out: Path, batch: int | None, report: Callable[..., None]) -> None:
    from klarsicht.audit.explanation import pipeline
    from klarsicht.audit.explanation.settings import AuditSettings
    from klarsicht.audit.explanation.steps import audit_inputs

    data, chosen = str(folder / "data"), {} if batch is None else {"batch": batch}
    with measured("model", report):
        model = classifier(folder)
    steps = {"open_run": "hash", "attribute": "relevance", "report": "ranking and report",
             "write_ranking": "ranking", "illustrate": "pictures", "analyse": "clusters"}  # fmt: skip
    timed(pipeline, steps, report)
    timed(audit_inputs, {"open_data": "listing"}, report)
    with measured("whole", report):
        pipeline.run(AuditSettings(model="object", data=data, **chosen), out, classifier=model)
    report(step="disk", **disk(out))


def draw_results() -> None:
    """Let units of relevance and of clusters write drawn numbers, of the shapes and into the files of a run."""
    import numpy as np
    import pyarrow as pa

    from klarsicht.audit.explanation.relevance import attribution
    from klarsicht.audit.explanation.relevance.attribution import Attribution, TimedUnit
    from klarsicht.audit.explanation.relevance.image_batches import WaitingTime
    from klarsicht.audit.explanation.spectral.analysis import NO_CLUSTER, SUSPECTS, Analysis

    block: dict[str, Any] = {}

    def attribute(self: Attribution, unit: range) -> TimedUnit:
        if not block:
            block["columns"] = {"row": None, **attribution.FACTS} | {"absorbed": 0.01, "noise": 1.0, "residual": 1e-6}
            rng = np.random.default_rng(SEED)
            for name in self.store.manifest["arrays"]:
                array = self.store.array(name)
                block[name] = rng.normal(size=(len(unit), *array.shape[1:])).astype(array.zarr.dtype)
        columns = {name: [value] * len(unit) for name, value in block["columns"].items()} | {"row": list(unit)}
        columns["predicted"] = columns["target"] = [int(t) for t in self.targets[unit.start : unit.stop]]
        written = self.store.write_part(attribution.IMAGES, unit.start // self.settings.unit, columns)
        for name in self.store.manifest["arrays"]:
            written |= self.store.write_rows(name, unit.start, block[name][: len(unit)])
        return TimedUnit(written, WaitingTime())

    def analyse(self: Analysis, unit: range) -> Any:
        (group,) = (self.groups[i] for i in unit)
        rng = np.random.default_rng((SEED, group.target))
        rows = np.sort(rng.permutation(group.rows)[: int(DRAWN_SHARE * len(group))])
        line = {"class": group.name, "target": group.target, "metric": self.metric, "n": len(group), "skipped": ""}
        drawn = {"proposal": "drawn", "rows": rows.tolist(), "shift": 1.0, "z": float(rng.normal()), "deviation": 0.5}
        _ = self.sources, self.target_logits(group)  # what is read before a class is clustered
        return self.store.write_part(
            self.table, unit.start, pa.Table.from_pylist([line | {"aside": ""} | NO_CLUSTER | drawn], SUSPECTS)
        )

    Attribution.__call__ = attribute  # type: ignore[method-assign]
    Analysis.__call__ = analyse  # type: ignore[method-assign]


def quantify(folder: Path, out: Path, units: int | None, steps: int | None, report: Callable[..., None]) -> None:
    from klarsicht.audit.explanation.steps import step_units
    from klarsicht.audit.verdicts.detectors import artifact_embedding
    from klarsicht.audit.verdicts.quantification import quantification

    run_step = step_units.run_step

    def some(audit: Any, store: Any, work: Any, step: str, planned: Any, workers: int, label: str) -> None:
        with measured(label, report):
            run_step(audit, store, work, step, planned[:units], workers, label)

    step_units.run_step = some
    if steps is not None:
        artifact_embedding.training_steps = lambda images: steps
    elif units is not None:
        quantification.learn_embedding = lambda work: None
    timed(quantification, {"learn_embedding": "embedding", "write_quantification": "report"}, report)
    with measured("quantify", report):
        quantification.quantify(out, data=str(folder / "data"), classifier=classifier(folder))
    report(step="disk", **disk(out))


def shortcuts(folder: Path, out: Path, report: Callable[..., None]) -> None:
    from klarsicht.audit.verdicts.quantification import sufficiency

    with measured("shortcuts", report):
        sufficiency.measure_sufficiency(out, data=str(folder / "data"), classifier=classifier(folder))


def clean(folder: Path, out: Path, report: Callable[..., None]) -> None:
    from klarsicht.audit.cleaning.models.clean_model import clean as clean_class

    (first, *_) = json.loads((folder / CLASSES_FILE).read_text())
    pictures = sorted((folder / "data" / first).iterdir())
    marked = [f"{first}/{picture.name}" for picture in pictures[: len(pictures) // MARKED_SHARE]]
    with measured("clean", report):
        clean_class(out, first, members=marked, data=str(folder / "data"), classifier=classifier(folder))


def fit(file: Path) -> None:
    """Print the exponents between neighbouring corpora, which are named IMAGESxCLASSES."""
    whole = {"run": "whole", "quantify": "quantify", "shortcuts": "shortcuts", "clean": "clean"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    costs: dict[tuple[str, int, int], tuple[float, float]] = {}
    for line in lines:
        if line["step"] == whole.get(line["action"]):
            images, classes = map(int, line["corpus"].split("x"))
            costs[line["action"], images, classes] = line["cpu"], line["peak"] - line["before"]
    print("| command | from | to | CPU s | exponent | MiB more | exponent |\n|---|---|---|---|---|---|---|")
    for (action, images, classes), (cpu, memory) in sorted(costs.items()):
        larger = [key for key in costs if key[0] == action and (key[1] > images) != (key[2] > classes)]
        for along in (1, 2):
            here, other = ((images, classes), (classes, images))[along - 1]
            following = [key for key in larger if key[along] > here and key[3 - along] == other]
            if following:
                key = min(following, key=lambda key: key[along])
                growth = math.log(key[along] / here)
                seconds, peak = costs[key]
                print(
                    f"| {action} | {images} in {classes} | {key[1]} in {key[2]} | {cpu:.1f}, {seconds:.1f} "
                    f"| {math.log(seconds / cpu) / growth:.2f} | {memory}, {peak} "
                    f"| {math.log(max(peak, 1) / max(memory, 1)) / growth:.2f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "run", "drawn", "quantify", "shortcuts", "clean", "fit"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--links", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--units", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.action == "make":
        make(asked.folder, asked.images, asked.classes, asked.links)
        return
    if asked.action == "fit":
        fit(asked.folder)
        return
    report = reporter(asked.json, corpus=asked.folder.name, action=asked.action)
    if asked.action == "drawn":
        draw_results()
    if asked.action in ("run", "drawn"):
        run(asked.folder, asked.out, asked.batch, report)
    elif asked.action == "shortcuts":
        shortcuts(asked.folder, asked.out, report)
    elif asked.action == "clean":
        clean(asked.folder, asked.out, report)
    else:
        quantify(asked.folder, asked.out, asked.units, asked.steps, report)


if __name__ == "__main__":
    main()
