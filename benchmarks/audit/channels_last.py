"""Verdicts of `audit quantify` with channels last in memory, as it computes, beside those without, by the same draws.

    python benchmarks/audit/channels_last.py IMAGENET32 --seeds 0 1

Networks and corpora are those of benchmarks/audit/array_corpora.py, in colour: ten ImageNet classes at 32 px, 80
audited images each, four with an artifact in 30 % of them, a small network trained with these.
Of each quantified run the steps
that show images to the network are computed once more with channels in their usual order. Processor seconds are of
these steps alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from klarsicht import audit
from klarsicht.audit.verdicts.quantification import units
from klarsicht.audit.verdicts.quantification.cluster_units import ClusterInterventionUnits
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits
from klarsicht.ground.run_folder.store import RunStore

sys.path.insert(0, str(Path(__file__).parent))
import array_corpora
import planted_classes
from array_corpora import AUDITED, CARRIERS, CLASSES, KINDS, TRAINED

STEPS = (InterventionUnits.step, ClusterInterventionUnits.step)
HELD_FUNCTIONS = units.channels_last, units.as_channels_last


def quantify(run: Path, model: Any, last: bool) -> tuple[Any, float]:
    """Quantify a run whose detectors are done, in one order of channels or the other."""
    store = RunStore.open(run)
    for step in STEPS:
        store.discard_step(step)
    units.channels_last, units.as_channels_last = HELD_FUNCTIONS if last else (nullcontext, lambda x: x)
    began = time.process_time()
    found = audit.quantify(run, classifier=model)
    return found, time.process_time() - began


def compare(last: Any, usual: Any, **common: Any) -> list[dict[str, Any]]:
    """Compare the verdicts on each class: what is equal, and the largest differences of numbers."""
    lines = []
    for a, b in zip(sorted(last, key=lambda v: v.target), sorted(usual, key=lambda v: v.target), strict=True):
        lines.append(
            common
            | {"class": a.target, "verdict": a.verdict, "same verdict": a.verdict == b.verdict}
            | {"same members": a.rows == b.rows, "same p": a.detection.p_rank == b.detection.p_rank}
            | {"same way": (a.use.tried, a.use.how) == (b.use.tried, b.use.how)}
            | {"p of use": abs(a.use.p_use - b.use.p_use), "shift": abs(a.use.shift - b.use.shift)}
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def logits_apart(net: torch.nn.Module, x: torch.Tensor) -> float:
    """Compute the largest difference of logits in the two memory formats, over the largest logit."""
    with torch.no_grad():
        usual = net(x)
        with HELD_FUNCTIONS[0](net):
            last = net(HELD_FUNCTIONS[1](x))
    return float((last - usual).abs().max() / usual.abs().max())


def one(folder: Path, seed: int, epochs: int) -> list[dict[str, Any]]:
    _, colour = planted_classes.classes(folder, CLASSES, seed)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(CLASSES)[: len(KINDS)]
    plants = {
        int(label): (kind, np.flatnonzero(rng.random(TRAINED) < CARRIERS))
        for kind, label in zip(KINDS, chosen, strict=True)
    }
    marked = array_corpora.planted(colour[:, :TRAINED], plants, seed)
    net = array_corpora.trained(marked, seed, epochs)
    with tempfile.TemporaryDirectory() as place:
        for label, stack in enumerate(marked[:, :AUDITED]):
            (Path(place) / "data" / f"{label:02d}").mkdir(parents=True)
            for i, image in enumerate(stack):
                Image.fromarray(image).save(Path(place) / "data" / f"{label:02d}" / f"{i:03d}.png")
        model = audit.load_model((net, None), classes=[f"{k:02d}" for k in range(CLASSES)])
        settings = audit.AuditSettings(model="mine", data=f"{place}/data", batch=64, unit=4096, seed=seed)
        audit.run(settings, Path(place) / "run", classifier=model)
        audit.quantify(Path(place) / "run", classifier=model)
        shutil.copytree(Path(place) / "run", Path(place) / "again")
        last, seconds = quantify(Path(place) / "run", model, last=True)
        usual, other = quantify(Path(place) / "again", model, last=False)
    x = torch.from_numpy(np.ascontiguousarray(marked[:, 0].transpose(0, 3, 1, 2), np.float32) / 255)
    told = {"seed": seed, "cpu_last": round(seconds, 1), "cpu_usual": round(other, 1), "logits": logits_apart(net, x)}
    return compare(last, usual, **told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for seed in given.seeds for line in one(given.folder, seed, given.epochs)]
    for name in ("same verdict", "same members", "same p", "same way"):
        print(f"{name}: {sum(line[name] for line in lines)} of {len(lines)}")
    for name in ("p of use", "shift"):
        print(f"{name}: apart by {max(line[name] for line in lines):.2g} at most")


if __name__ == "__main__":
    main()
