"""Cost of `audit quantify`: images shown to the network and CPU seconds, stage by stage, of a finished run.

    python benchmarks/audit/quantify_cost.py RUN
    python benchmarks/audit/quantify_cost.py RUN --images-only
    PYTHONPATH=OLDER_CHECKOUT/src python benchmarks/audit/quantify_cost.py RUN --images-only

RUN is a folder of `audit run` that was not quantified; a copy of it is. Numbers of images are of forward passes, which
are most of the cost with a large network. --images-only has a small function answer in place of the network: numbers of
images then come in minutes where passes would take hours, but choices are those of that function, and CPU seconds leave
out the passes. One thread.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.ground.run_folder.store import RunStore

RUN_STEP = step_units.run_step


class Meter:
    """Images that a network was shown, and CPU seconds, by stage."""

    def __init__(self, classifier: Classifier) -> None:
        self.shown, self.stages = 0, list[tuple[str, int, float]]()
        classifier.module.register_forward_pre_hook(self._count)

    def _count(self, _: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.shown += len(given[0])

    def run_step(self, audit: Any, store: Any, work: Any, step: str, units: Any, workers: int, label: str) -> None:
        """Run a step, and note its cost."""
        shown, clock = self.shown, time.process_time()
        RUN_STEP(audit, store, work, step, units, workers, label)
        self.stages.append((label, self.shown - shown, time.process_time() - clock))


def stand_in(outputs: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make a function that answers as a network with so many outputs would, from mean colours in a grid of four."""

    def answer(x: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        weight = torch.randn(seen.shape[1], outputs, generator=torch.Generator().manual_seed(0))
        return seen @ weight

    return answer


def measure(run: Path, images_only: bool) -> None:
    store = RunStore.open(run)
    classifier = load_model(store.manifest["settings"]["model"], device=torch.device("cpu"))
    meter, classes = Meter(classifier), len(set(store.table("corpus")["label"].to_pylist()))
    if images_only:
        classifier.module.forward = stand_in(store.array("logits").shape[1])  # type: ignore[method-assign]
    step_units.run_step = meter.run_step
    clock = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(run, Path(folder) / "run")
        found = quantification.quantify(Path(folder) / "run", classifier=classifier)
    seconds = time.process_time() - clock
    for label, shown, taken in [*meter.stages, ("all", meter.shown, seconds)]:
        print(f"{label}: {shown:,} images, {shown / classes:,.0f} a class; {taken:.0f} CPU s")
    for verdict in found:
        use = f"rise {verdict.use.shift:+.2f}, p of use {verdict.use.p_use:.3f}"
        print(f"  {verdict.name}: {verdict.verdict}; {verdict.detection.sign}, {use}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images-only", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    measure(asked.run, asked.images_only)


if __name__ == "__main__":
    main()
