"""Cost of `audit clean` without a method: images shown to the network, CPU seconds and memory, before and after.

    python benchmarks/audit/clean_cost.py layers
    python benchmarks/audit/clean_cost.py unused RUN --class C --members FILE

`layers`: statistics of an artifact at all layers that are tried, by one pass of the images for each layer as before, or
for all together; networks with random weights, a tag put on 600 images. `unused`: the whole command on
a run in which the artifact is not used, with the search of a correction as before, or stopped by the rise before it.
Each line is a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.cleaning.corrections.closed_form import FittingData
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.models import clean_model, correction_choice
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.verdicts.interventions.overlay import Overlay

sys.path.insert(0, str(Path(__file__).parent))
import cleaning_truth

NETWORKS = {name: recipe.build for name, recipe in cleaning_truth.NETWORKS.items()}
IMAGES, SIDE = 600, 32
WAYS = ("before", "now")


def show_count(classifier: Classifier) -> list[int]:
    """A list to which the number of images of every forward pass is appended."""
    shown: list[int] = []
    classifier.module.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    return shown


def tell(what: str, way: str, shown: list[int], began: float, memory: int) -> None:
    seconds = time.process_time() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(f"| {what} | {way} | {sum(shown):,} | {seconds:.1f} | {more:.0f} |", flush=True)


def layers(name: str, way: str) -> None:
    n, side = IMAGES, SIDE
    torch.manual_seed(0)
    classifier = load_model(NETWORKS[name]().eval())
    images = list(torch.rand(n, 3, side, side))
    member, labels = np.arange(n) < n // 3, np.arange(n) * 2 // n
    for image in images[: n // 3]:
        image[:, : side // 8, : side // 8] = 1.0
    opacity = np.zeros((1, side, side), np.float32)
    opacity[0, : side // 8, : side // 8] = 1
    place = Overlay(opacity, np.repeat(opacity[:, None], 3, 1))
    data = FittingData(classifier, 0, Sample(images, member, np.arange(n), labels), place)
    names, shown = data.layers, show_count(classifier)
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for some in [names] if way == "now" else [(one,) for one in names]:
        data.fit_layers(some)
    tell(f"{name}, {len(names)} layers", way, shown, began, memory)


def unused(run: Path, label: str, members: Path, way: str) -> None:
    if way == "before":
        correction_choice.is_raised = lambda before: True  # type: ignore[assignment]
    from klarsicht.audit.cleaning.models.audited_run import AuditedRun

    classifier = AuditedRun.of(run).audit.classifier
    shown, began = show_count(classifier), time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as out:
        found = clean_model.clean(run, label, CleanSettings(), out=out, members=members, classifier=classifier)
    tell(f"{found.judgement.verdict.split(':')[0]}, {len(found.choice.tried)} tried", way, shown, began, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layers", "unused"))
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--class", dest="label")
    parser.add_argument("--members", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.way and asked.what == "layers":
        return layers(asked.networks[0], asked.way)
    if asked.way:
        return unused(asked.run, asked.label, asked.members, asked.way)
    print("| | | images shown | CPU s | further MB at most |\n|---|---|---|---|---|", flush=True)
    for name in asked.networks if asked.what == "layers" else [""]:
        for way in WAYS:
            more = ["--networks", name] if name else []
            subprocess.run([sys.executable, *sys.argv, *more, "--way", way], check=True)
    return None


if __name__ == "__main__":
    main()
