"""Are artifactual and poisoned classes found, and clean ones left alone? Real classes at 32 px, with known artifacts.

    python benchmarks/quantify_imagenet32.py IMAGENET32 --seeds 0 1 2
    python benchmarks/quantify_imagenet32.py IMAGENET32 --seeds 0 --classes 40 --epochs 8

A small network is trained on classes of which 28 % hold an artifact (seven kinds at 20, 10, 5 and 2 %). The audit then
sees (A) what it was trained on, and (B) the clean images with artifacts planted afterwards in as many other classes,
which it cannot use. Whether an artifact is used is known by putting the real one on held-out images of other classes:
it is when its class's logit rises most of all, or second. IMAGENET32 holds train.tar: an ImageFolder, 500 a class.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest, kstest

from klarsicht.audit import models, pipeline, quantification
from klarsicht.audit.examination import Examination
from klarsicht.audit.settings import AuditSettings

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes as planted

PLANTED = 0.28  # share of the classes that hold an artifact


def audited(images: np.ndarray, net: planted.Net, folder: Path, seed: int):
    """The verdicts, by class number, and CPU seconds of the signs and of the effects."""
    names = [f"{k:03d}" for k in range(len(images))]
    for name, stack in zip(names, images, strict=True):
        (folder / "data" / name).mkdir(parents=True)
        for i, image in enumerate(stack[: planted.TRAINED]):
            Image.fromarray(image).save(folder / "data" / name / f"{i:03d}.png")
    settings = AuditSettings(
        model="object", data=str(folder / "data"), method="HeadRelevance", batch=64, unit=4096, seed=seed
    )
    classifier = models.load(net, classes=names)
    audit = pipeline.Audit.of(settings, classifier)
    store = pipeline.opened(audit, folder / "run")
    with store.lock():
        pipeline.attribute(audit, store, workers=1, own=classifier)
        groups = quantification.classes(audit, store)
        work = Examination(store, audit.corpus, settings, groups, classifier.identity, classifier)
        began = time.process_time()
        found = quantification.judged(audit, work, 0.05, workers=1)
    return {v.target: v for v in found}, time.process_time() - began, found.floor


def use(net: planted.Net, images: np.ndarray, plant: planted.Plant, seed: int) -> int:
    """Outputs that the real artifact raises more than its own, on held-out images of other classes."""
    rng = np.random.default_rng(seed)
    others = np.delete(np.arange(len(images)), plant.label)
    x = images[others][:, planted.TRAINED :: 10].reshape(-1, *images.shape[2:])
    marked = np.stack([planted.put(plant.kind, image, plant.seed, rng) for image in x])
    change = planted.logits(net, marked) - planted.logits(net, x)
    shift = (change - change.mean(1, keepdims=True)).mean(0)
    return int((shift > shift[plant.label]).sum()) if shift[plant.label] > 0 else len(shift)


def one(folder: Path, seed: int, count: int, epochs: int) -> dict:
    names, clean = planted.classes(folder, count, seed)
    rng = np.random.default_rng(seed)
    number = round(PLANTED * count)
    used = planted.plan(number, list(range(count)), 100 * seed, rng)
    free = sorted(set(range(count)) - {p.label for p in used})
    unused = planted.plan(number, free, 100 * seed + 50, rng)
    trained_on = planted.planted(clean, used, rng)
    began = time.process_time()
    net = planted.trained(trained_on, seed, epochs)
    seconds = time.process_time() - began
    test = planted.logits(net, clean[:, planted.TRAINED :].reshape(-1, 32, 32, 3)).argmax(1)
    accuracy = float((test == np.repeat(np.arange(count), 500 - planted.TRAINED)).mean())
    lines, cost = [], []
    for name, images, plants in (("trained", trained_on, used), ("after", planted.planted(clean, unused, rng), unused)):
        with tempfile.TemporaryDirectory() as place:
            found, cpu, floor = audited(images, net, Path(place), seed)
        cost.append(cpu)
        by_label = {p.label: p for p in plants}
        for label, v in found.items():
            plant = by_label.get(label)
            line = {"seed": seed, "set": name, "class": names[label], "kind": plant.kind if plant else "", "p": v.p}
            line |= {"extended": v.extended, "sign": v.sign, "artifactual": v.artifactual, "poisoned": v.poisoned}
            line |= {"z": v.z, "p_use": v.p_use, "size": v.size}
            if plant:
                carriers = set(np.flatnonzero(plant.carriers()))
                members = {int(Path(m).stem) for m in v.members}
                both = len(carriers & members)
                line |= {"share": plant.share, "f1": 2 * both / (len(carriers) + len(members))}
                line |= {"use": use(net, clean, plant, seed)}
            lines.append(line)
    print(
        f"seed {seed}: {count} classes, accuracy {accuracy:.3f}, training {seconds:.0f} CPU s, "
        f"audits {cost[0]:.0f} and {cost[1]:.0f} CPU s, floor of p {floor:.3f}",
        file=sys.stderr,
    )
    return {"seed": seed, "accuracy": accuracy, "cpu": cost, "floor": floor, "lines": lines}


def share(hits: list[bool]) -> str:
    """k of n, with the 95 % interval of Wilson."""
    if not hits:
        return "none of 0"
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{sum(hits)} of {len(hits)} ({found.low:.2f} to {found.high:.2f})"


def told(lines: list[dict]) -> str:
    plants, clean = [li for li in lines if li["kind"]], [li for li in lines if not li["kind"]]
    out = ["artifactual, by kind and prevalence (planted before and after training)"]
    for kind in planted.KINDS:
        cells = []
        for prevalence in planted.SHARES:
            mine = [li for li in plants if li["kind"] == kind and li["share"] == prevalence]
            f1 = np.mean([li["f1"] for li in mine if li["artifactual"]] or [0])
            cells.append(f"{prevalence:.0%}: {sum(li['artifactual'] for li in mine)}/{len(mine)} (F1 {f1:.2f})")
        out.append(f"  {kind:8} {'  '.join(cells)}")
    out.append(f"clean classes called artifactual: {share([li['artifactual'] for li in clean])}")
    out.append(f"clean classes called poisoned: {share([li['poisoned'] for li in clean])}")
    p = np.array([li["p"] for li in clean])
    out.append(f"p of clean classes against uniform: Kolmogorov-Smirnov {kstest(p, 'uniform').statistic:.3f}")
    trained = [li for li in plants if li["set"] == "trained"]
    really = [li for li in trained if li["use"] <= 1]
    out.append(f"poisoned, of planted classes whose artifact is used: {share([li['poisoned'] for li in really])}")
    missed = Counter(f"{li['kind']} {li['share']:.0%} z {li['z']:.1f}" for li in really if not li["poisoned"])
    out.append(f"  missed: {', '.join(missed) or 'none'}")
    not_used = [li["poisoned"] for li in trained if li["use"] > 1]
    out.append(f"poisoned, of those whose artifact is not used though trained on: {share(not_used)}")
    after = [li["poisoned"] for li in plants if li["set"] == "after"]
    out.append(f"poisoned, of artifacts planted after training: {share(after)}")
    return "\n".join(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, help="a folder for one JSON a seed; seeds that are there are not run again")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = []
    for seed in given.seeds:
        kept = given.out / f"seed-{seed}.json" if given.out else None
        if kept and kept.is_file():
            result = json.loads(kept.read_text())
        else:
            result = one(given.data, seed, given.classes, given.epochs)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(result, indent=1))
        every += result["lines"]
    print(told(every))
