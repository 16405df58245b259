"""Are artifactual and poisoned classes found, and clean ones left alone? Real classes at 32 px, with known artifacts.

    python benchmarks/audit/quantify_imagenet32.py IMAGENET32 --seeds 0 1 2
    python benchmarks/audit/quantify_imagenet32.py IMAGENET32 --seeds 0 --classes 40 --epochs 8
    python benchmarks/audit/quantify_imagenet32.py IMAGENET32 --untrained
    python benchmarks/audit/quantify_imagenet32.py IMAGENET32 --untrained --together 2

A small network is trained on classes of which 28 % hold an artifact (seven kinds at 20, 10, 5 and 2 %). The audit then
sees (A) what it was trained on, and (B) the clean images with artifacts planted afterwards in as many other classes,
which it cannot use. Whether an artifact is used is known by putting the real one on held-out images of other classes:
it is when its class's logit rises most of all, or second; by how much is told as well. IMAGENET32 holds train.tar: an
ImageFolder, 500 a class.

Detectors look at images only. --untrained asks of the same plants in the same classes what is artifactual, and trains
nothing. They were chosen on half of the classes with other plants; figures are told of the other half apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest, kstest

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.verdicts.detectors.bank import run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.patch_matches import grey
from klarsicht.audit.verdicts.quantification import opened_runs, quantification
from klarsicht.audit.verdicts.quantification.selected_detections import select_detections
from klarsicht.audit.verdicts.quantification.units import POOL, THUMBNAIL, DetectionUnits
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.near_duplicates import first_duplicates
from klarsicht.numerics.statistics.logits import centre_logits
from klarsicht.numerics.statistics.split_half import draw_halves

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes as planted

PLANTED = 0.28  # share of the classes that hold an artifact


def audited(images: np.ndarray, net: torch.nn.Module, folder: Path, seed: int):
    """The verdicts on images (classes, n, ...), by class number, and CPU seconds of the signs and of the effects."""
    names = [f"{k:03d}" for k in range(len(images))]
    for name, stack in zip(names, images, strict=True):
        (folder / "data" / name).mkdir(parents=True)
        for i, image in enumerate(stack):
            Image.fromarray(image).save(folder / "data" / name / f"{i:03d}.png")
    settings = AuditSettings(
        model="object", data=str(folder / "data"), method="HeadRelevance", batch=64, unit=4096, seed=seed
    )
    classifier = load_model(net, classes=names)
    audit = audit_inputs.Audit.of(settings, classifier)
    store = pipeline.open_run(audit, folder / "run")
    with store.lock():
        relevance_step.attribute(audit, store, workers=1, own=classifier)
        groups = opened_runs.class_groups(audit, store)
        work = DetectionUnits(store, audit.corpus, settings, groups, classifier.identity, classifier)
        began = time.process_time()
        found = quantification.run_quantification(audit, work, 0.05, workers=1)
    return {v.target: v for v in found}, time.process_time() - began, found.floor


def looked(images: np.ndarray, seed: int) -> list[dict]:
    """What an audit says of the images (classes, n, H, W, C) alone: for each class whether it is artifactual (of fewer
    than five classes: whether it shares windows of its own), and for which of its images."""
    rng = generator(seed, "pool")
    each = -(-POOL // len(images))
    some = rng.permutation([(k, i) for k in range(len(images)) for i in rng.permutation(images.shape[1])[:each]])
    pool, owner = ImageStack(images[some[:, 0], some[:, 1]]), some[:, 0]
    signs = []
    for k, stack in enumerate(images):
        rows = np.unique(first_duplicates(grey(ImageStack(stack).shrunk_to(THUMBNAIL))))
        half = draw_halves(len(rows), generator(seed, "halves", k))
        scene = ClassImages(ImageStack(stack[rows]), pool, owner != k, half, np.arange(len(rows)))
        signs.append([{"sign": s.name, "score": s.score, "rows": rows[s.members]} for s in run_detectors(scene)])
    found = select_detections(signs, LEVEL)
    significance, largest = found.significance, found.significance.largest
    called = significance.artifactual(LEVEL) | significance.class_specific(LEVEL)
    return [
        {"p": float(largest.p[k]), "extended": float(largest.extended[k]), "p_own": float(significance.p_own[k])}
        | {"artifactual": bool(called[k]), "sign": line["sign"], "members": line["rows"]}
        for k, line in enumerate(found.rows)
    ]


def in_groups(images: np.ndarray, seed: int, together: int) -> list[dict]:
    """What audits of so many classes each say."""
    starts = range(0, len(images) - len(images) % together, together)
    return [told for a in starts for told in looked(images[a : a + together], seed)]


def untrained(folder: Path, seed: int, count: int, together: int) -> dict:
    """Lines as those of `one`, of the same images, without what needs a network."""
    names, clean, rng, used, unused, trained_on = corpus(folder, seed, count)
    lines, cost = [], []
    for name, images, plants in (("trained", trained_on, used), ("after", planted.planted(clean, unused, rng), unused)):
        began = time.process_time()
        found = in_groups(images[:, : planted.TRAINED], seed, together)
        cost.append(time.process_time() - began)
        by_label = {p.label: p for p in plants}
        for label, told in enumerate(found):
            members, plant = told.pop("members"), by_label.get(label)
            line = {"seed": seed, "set": name, "class": names[label], "kind": plant.kind if plant else ""} | told
            if plant:
                both = len(np.intersect1d(members, plant.rows))
                line |= {"share": plant.share, "f1": 2 * both / (len(members) + len(plant.rows))}
            lines.append(line)
    print(f"seed {seed}: {count} classes, {cost[0]:.0f} and {cost[1]:.0f} CPU s", file=sys.stderr)
    return {"seed": seed, "cpu": cost, "lines": lines}


def corpus(folder: Path, seed: int, count: int):
    """Names, clean images, the generator, plants before and after training, and the images trained on."""
    names, clean = planted.classes(folder, count, seed)
    rng = np.random.default_rng(seed)
    number = round(PLANTED * count)
    used = planted.plan(number, list(range(count)), 100 * seed, rng)
    free = sorted(set(range(count)) - {p.label for p in used})
    unused = planted.plan(number, free, 100 * seed + 50, rng)
    return names, clean, rng, used, unused, planted.planted(clean, used, rng)


def network(images: np.ndarray, seed: int, epochs: int, kept: Path | None) -> planted.Net:
    """A trained network; one that was kept is not trained again."""
    if kept and kept.is_file():
        net = planted.Net(len(images))
        net.load_state_dict(torch.load(kept))
        return net.eval()
    net = planted.trained(images, seed, epochs)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), kept)
    return net


def held_back(every: list[str]) -> set[str]:
    """The half of the classes that no choice was made on."""
    names = sorted(every)
    chosen = np.random.default_rng(2026).permutation(len(names))[: len(names) // 2]
    return set(names) - {names[k] for k in chosen}


def use(net: planted.Net, images: np.ndarray, plant: planted.Plant, seed: int) -> dict:
    """What the real artifact does on held-out images of other classes: how many outputs it raises more than its own
    class (all of them, if it does not raise it), by how much it raises it, and how many more are taken for it."""
    rng = np.random.default_rng(seed)
    others = np.delete(np.arange(len(images)), plant.label)
    x = images[others][:, planted.TRAINED :: 10].reshape(-1, *images.shape[2:])
    marked = np.stack([planted.put(plant.kind, image, plant.seed, rng) for image in x])
    under, plain = planted.logits(net, marked), planted.logits(net, x)
    shift = (centre_logits(under) - centre_logits(plain)).mean(0)
    rise = float(shift[plant.label])
    taken = [float((answer.argmax(1) == plant.label).mean()) for answer in (under, plain)]
    more = int((shift > rise).sum()) if rise > 0 else len(shift)
    return {"use": more, "rise": rise, "turned": taken[0] - taken[1]}


def one(folder: Path, seed: int, count: int, epochs: int, kept: Path | None) -> dict:
    names, clean, rng, used, unused, trained_on = corpus(folder, seed, count)
    began = time.process_time()
    net = network(trained_on, seed, epochs, kept)
    seconds = time.process_time() - began
    test = planted.logits(net, clean[:, planted.TRAINED :].reshape(-1, 32, 32, 3)).argmax(1)
    accuracy = float((test == np.repeat(np.arange(count), 500 - planted.TRAINED)).mean())
    lines, cost = [], []
    for name, images, plants in (("trained", trained_on, used), ("after", planted.planted(clean, unused, rng), unused)):
        with tempfile.TemporaryDirectory() as place:
            found, cpu, floor = audited(images[:, : planted.TRAINED], net, Path(place), seed)
        cost.append(cpu)
        by_label = {p.label: p for p in plants}
        for label, v in found.items():
            plant = by_label.get(label)
            line = {
                "seed": seed,
                "set": name,
                "class": names[label],
                "kind": plant.kind if plant else "",
                "p": v.detection.p_rank,
            }
            line |= {
                "extended": v.detection.p_rank,
                "sign": v.detection.sign,
                "artifactual": v.artifactual,
                "poisoned": v.poisoned,
            }
            line |= {"z": v.use.z, "p_use": v.use.p_use, "size": v.size}
            if plant:
                carriers = set(np.flatnonzero(plant.carriers()))
                members = {int(Path(m).stem) for m in v.members}
                both = len(carriers & members)
                line |= {"share": plant.share, "f1": 2 * both / (len(carriers) + len(members))}
                line |= use(net, clean, plant, seed)
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


def artifactual(lines: list[dict]) -> Iterator[str]:
    plants, clean = [li for li in lines if li["kind"]], [li for li in lines if not li["kind"]]
    yield "artifactual, by kind and prevalence (planted before and after training)"
    for kind in planted.KINDS:
        cells = []
        for prevalence in planted.SHARES:
            mine = [li for li in plants if li["kind"] == kind and li["share"] == prevalence]
            f1 = np.mean([li["f1"] for li in mine if li["artifactual"]] or [0])
            cells.append(f"{prevalence:.0%}: {sum(li['artifactual'] for li in mine)}/{len(mine)} (F1 {f1:.2f})")
        yield f"  {kind:8} {'  '.join(cells)}"
    seen = [li["artifactual"] for li in plants if li["kind"] != "cast"]
    yield f"recall of all kinds but casts: {share(seen)}"
    yield f"clean classes called artifactual: {share([li['artifactual'] for li in clean])}"
    p = np.array([li["p"] for li in clean])
    yield f"p of clean classes against uniform: Kolmogorov-Smirnov {kstest(p, 'uniform').statistic:.3f}"
    yield f"  clean and called: {dict(Counter((li['class'], li['sign']) for li in clean if li['artifactual']))}"


def poisoned(lines: list[dict]) -> Iterator[str]:
    plants, clean = [li for li in lines if li["kind"]], [li for li in lines if not li["kind"]]
    yield f"clean classes called poisoned: {share([li['poisoned'] for li in clean])}"
    trained = [li for li in plants if li["set"] == "trained"]
    really = [li for li in trained if li["use"] <= 1]
    yield f"poisoned, of classes that their artifact raises first or second: {share([li['poisoned'] for li in really])}"
    large = [li for li in really if matters(LogitEffect.of_values(li["rise"], li["turned"]), "value")]
    yield f"  of these, where it matters (half a logit, or two of a hundred): {share([li['poisoned'] for li in large])}"
    yield f"  missed: {', '.join(described(li) for li in really if not li['poisoned']) or 'none'}"
    other = [li for li in trained if li["use"] > 1]
    yield f"poisoned, of those that it raises third or later: {share([li['poisoned'] for li in other])}"
    yield f"  called: {', '.join(described(li) for li in other if li['poisoned']) or 'none'}"
    after = [li for li in plants if li["set"] == "after"]
    yield f"poisoned, of artifacts planted after training: {share([li['poisoned'] for li in after])}"
    yield f"  called: {', '.join(described(li) for li in after if li['poisoned']) or 'none'}"


def described(li: dict) -> str:
    """A plant and what the real artifact does."""
    return (
        f"{li['kind']} {li['share']:.0%} ({li['use'] + 1}. of all, {li['rise']:+.2f}, {li['turned']:+.1%} taken for it)"
    )


def told(lines: list[dict]) -> str:
    back = held_back(sorted({li["class"] for li in lines}))
    kept = [li for li in lines if li["class"] in back]
    parts = [artifactual(lines), ["", f"of the {len(back)} classes held back:"], artifactual(kept)]
    if all("poisoned" in li for li in lines):
        parts += [["", "use, all classes:"], poisoned(lines), ["", "of the classes held back:"], poisoned(kept)]
    return "\n".join(line for part in parts for line in part)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, help="a folder for one JSON a seed; seeds that are there are not run again")
    parser.add_argument("--untrained", action="store_true", help="only what is artifactual: no network")
    parser.add_argument("--together", type=int, help="with --untrained: classes of one audit, in place of all")
    parser.add_argument("--nets", type=Path, help="a folder to keep trained networks in")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = []
    for seed in given.seeds:
        kept = given.out / f"seed-{seed}.json" if given.out else None
        if kept and kept.is_file():
            result = json.loads(kept.read_text())
        else:
            net = given.nets / f"{given.classes}-{given.epochs}-{seed}.pt" if given.nets else None
            alone = given.untrained
            result = (
                untrained(given.data, seed, given.classes, given.together or given.classes)
                if alone
                else one(given.data, seed, given.classes, given.epochs, net)
            )
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(result, indent=1))
        every += result["lines"]
    print(told(every))
