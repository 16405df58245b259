"""Check of single pictures on trained networks: pictures with and without an artifact that the network learned.

    python benchmarks/audit/checked_pictures.py IMAGENET32 --folder checked --seeds 115 116
    python benchmarks/audit/checked_pictures.py --table checked/checked.jsonl

A small network is trained on 20 classes of 120 images at 32 px; a fifth of the images of 8 classes carry an artifact,
each of another family. `audit run` and `audit quantify` go through these images, then `audit check` through pictures
that the network has not seen: twenty of each class as they are, and, for each artifact, sixteen of its class and 32 of
others that carry it. The truth of a picture is what the network says of the same picture before the artifact was put
on. One line a picture goes to FOLDER/checked.jsonl, and one an artifact to FOLDER/artifacts.jsonl. Seeds below 100 are
to develop on. Without --embedding none is learned: what it alone names is not compared with single pictures, and it is
most of the cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.results.checked_picture import CheckedPictures
from klarsicht.audit.results.logit_effect import FLOOR
from klarsicht.audit.verdicts.quantification import quantification
from klarsicht.audit.verdicts.quantification.check_pictures import check_pictures
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import block_mean_interval
from klarsicht.numerics.statistics.logits import centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
import left_out_families as families
import planted_classes

CLASSES, IMAGES, SHARE, EPOCHS, WIDTH = 20, 120, 0.2, 20, 16
PLANTED = ("random-tag", "caption", "logo", "date-stamp", "stripe", "two-stripes", "frame", "grain")
CLEAN_EACH, OWN, OTHERS = 20, 16, 32  # pictures without: of each class; with: of its class, and of others
Line = dict


def make(data: Path, seed: int) -> cases.Case:
    """Train the network of a seed on images of which some carry artifacts; held-out images are fifty a class."""
    names, pictures = planted_classes.classes(data, CLASSES, seed)
    rng = generator(seed, "checked pictures")
    images, held_out = pictures[:, :IMAGES].copy(), pictures[:, planted_classes.TRAINED :]
    plants = []
    for number, (label, family) in enumerate(zip(rng.permutation(CLASSES).tolist(), PLANTED, strict=False)):
        rows = np.sort(rng.choice(IMAGES, round(SHARE * IMAGES), replace=False))
        plant = cases.Plant(number, label, family, SHARE, True, tuple(rows.tolist()), "")
        images[label, rows] = cases.put(images[label, rows], plant, seed)
        plants.append(plant)
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    net = planted_classes.fitted(images.reshape(-1, *images.shape[2:]), labels, seed, EPOCHS, WIDTH)
    answers = planted_classes.logits(net, held_out.reshape(-1, *held_out.shape[2:])).argmax(1)
    accuracy = float((answers == np.repeat(np.arange(CLASSES), held_out.shape[1])).mean())
    case = cases.Case(seed, tuple(names), images, held_out, {}, {}, net, accuracy)
    known = [replace(p, use=cases.measure_use(net, case.others(p.label), p, seed)) for p in plants]
    return replace(case, plants={p.label: p for p in known})


def load_case(place: Path, data: Path, seed: int) -> cases.Case:
    """Read what `make` made before, or make it."""
    if not (place / "case.pt").is_file():
        place.mkdir(parents=True, exist_ok=True)
        torch.save(make(data, seed), place / "case.pt")
    return torch.load(place / "case.pt", weights_only=False)


def write_pictures(case: cases.Case, folder: Path) -> list[Line]:
    """Write pictures without and with each artifact; one line a picture, with what the network says of it without."""
    rng, lines = generator(case.seed, "pictures"), []
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, plain: np.ndarray, shown: np.ndarray, more: Line) -> None:
        Image.fromarray(shown).save(folder / f"{name}.png")
        before, after = (planted_classes.logits(case.net, x[None]) for x in (plain, shown))
        line = {"seed": case.seed, "name": name, "predicted": int(after.argmax()), "plain": int(before.argmax())}
        fall = (centre_logits(after) - centre_logits(before))[0]
        target = more.get("target", -1)
        lines.append(line | more | {"true_fall": float(fall[target]) if target >= 0 else 0.0})

    for label, stack in enumerate(case.held_out):
        for i in range(CLEAN_EACH):
            write(f"clean-{label}-{i}", stack[i], stack[i], {"label": label, "family": ""})
    for plant in case.plants.values():
        others = case.others(plant.label)
        own = case.held_out[plant.label][CLEAN_EACH : CLEAN_EACH + OWN]
        plain = np.concatenate([own, others[rng.choice(len(others), OTHERS, replace=False)]])
        artifact = plant.artifact(case.seed)
        for i, x in enumerate(plain):
            shown = artifact(x, generator(case.seed, "shown", plant.number, i)).pixels
            more = {"target": plant.label, "family": plant.family, "own": i < OWN}
            write(f"with-{plant.label}-{i}", x, shown, more)
    return lines


def describe(lines: list[Line], found: CheckedPictures, names: list[str]) -> list[Line]:
    """Add to each line what `audit check` said of the picture."""
    told = {Path(one.path).stem: one for one in found}
    known = {names.index(name) for name in found.known}
    for line in lines:
        one = told[line["name"]]
        line |= {"p": min((a.p for a in one.artifacts), default=1.0), "carries": len(one.carried) > 0}
        line |= {"rests": one.rests, "changes": one.changes, "known": line.get("target", -1) in known}
        mine = next((a for a in one.artifacts if a.target == line.get("target")), None)
        if mine is not None:
            line |= {"sign": mine.sign, "carried": mine.carried, "fall": mine.drop, "rests_on_it": mine.rests}
            line |= {"without": None if mine.without is None else names.index(mine.without)}
    return lines


def measure(data: Path, folder: Path, seed: int) -> tuple[list[Line], list[Line]]:
    """One line a picture, and one an artifact, of one network."""
    place, clock = folder / f"seed-{seed}", time.process_time()

    def note(told: str) -> None:
        print(f"seed {seed}, {time.process_time() - clock:.0f} CPU s: {told}", file=sys.stderr, flush=True)

    case = load_case(place, data, seed)
    note(f"accuracy {case.accuracy:.2f}")
    classes = families.audited(case, place / "audit")
    note("quantified")
    names = [f"{k:03d}" for k in range(CLASSES)]
    lines, classifier = write_pictures(case, place / "pictures"), load_model(case.net, classes=names)
    found = check_pictures(place / "audit" / "run", [place / "pictures"], classifier=classifier)
    note(f"{len(found)} pictures; {found.limits}")
    kept = ("seed", "label", "family", "used", "true_rise", "artifactual", "poisoned", "verdict", "sign", "f1")
    return describe(lines, found, names), [{name: li[name] for name in kept} for li in classes if li["family"]]


def share(hits: list[bool], blocks: list[int] | None = None) -> str:
    """k of n, with the 95 % interval of Wilson, and where blocks are given, that over blocks."""
    if not hits:
        return "none of 0"
    low, high = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    told = f"{sum(hits)} of {len(hits)}, {sum(hits) / len(hits):.3f} ({low:.3f} to {high:.3f})"
    if blocks is None or len(set(blocks)) < 2:
        return told
    over = block_mean_interval(np.array(hits, float), np.array(blocks))
    return f"{told}; over {len(set(blocks))} artifacts {max(over.low, 0):.2f} to {min(over.high, 1):.2f}"


def table(lines: list[Line], artifacts: list[Line]) -> str:
    clean, carrying = [li for li in lines if not li["family"]], [li for li in lines if li["family"]]
    told = [f"{len({li['seed'] for li in lines})} networks, {len(artifacts)} artifacts"]
    called = [a for a in artifacts if a["artifactual"]]
    told.append(f"artifactual: {share([a['artifactual'] for a in artifacts])}")
    told.append(f"used: {share([a['used'] for a in artifacts])}")
    known = {(li["seed"], li["target"]) for li in carrying if li["known"]}
    told.append(f"of these compared with pictures: {share([(a['seed'], a['label']) in known for a in called])}")
    told.append(f"without: p <= .05 of any artifact {share([li['p'] <= 0.05 for li in clean])}")
    told.append(f"  carries one {share([li['carries'] for li in clean])}; rests {share([li['rests'] for li in clean])}")
    told.append("  of pictures taken for a class with a known artifact: rests "
                + share([li["rests"] for li in clean if (li["seed"], li["predicted"]) in known]))  # fmt: skip
    mine = [li for li in carrying if li["known"]]
    blocks = [1000 * li["seed"] + li["target"] for li in mine]
    told.append(f"with a known artifact: carried {share([li['carried'] for li in mine], blocks)}")
    for what, truth in (("rests", True), ("does not rest", False)):
        some = [li for li in mine if li["predicted"] == li["target"] and (li["true_fall"] >= FLOOR) == truth]
        found = share([li["rests_on_it"] for li in some], [1000 * li["seed"] + li["target"] for li in some])
        told.append(f"taken for its class, truth {what}: said to rest {found}")
    some = [li for li in mine if li["predicted"] == li["target"]]
    for what, truth in (("another class", True), ("the same", False)):
        part = [li for li in some if (li["plain"] != li["target"]) == truth]
        where = [1000 * li["seed"] + li["target"] for li in part]
        told.append(f"  truth without it: {what}: said to change {share([li['changes'] for li in part], where)}")
    part = [li for li in some if li.get("without") is not None]
    found = share([li["without"] == li["plain"] for li in part], [1000 * li["seed"] + li["target"] for li in part])
    told.append(f"  class predicted without it is that of the picture before: {found}")
    told.append("| family | seed | verdict, by | F1 | rise | carried | truth rests: said | truth changes: said |")
    for a in artifacts:
        its = [li for li in carrying if (li["seed"], li["target"]) == (a["seed"], a["label"])]
        taken = [li for li in its if li["predicted"] == a["label"]]
        cells = [a["family"], str(a["seed"]), f"{a['verdict'].split(',')[0]}, {a['sign']}", f"{a['f1']:.2f}"]
        cells += [f"{a['true_rise']:+.1f}"]
        if its and its[0]["known"]:
            rest = [li["rests_on_it"] for li in taken if li["true_fall"] >= FLOOR]
            change = [li["changes"] for li in taken if li["plain"] != a["label"]]
            cells += [f"{sum(li['carried'] for li in its)} of {len(its)}", f"{sum(rest)} of {len(rest)}"]
            cells += [f"{sum(change)} of {len(change)} ({its[0]['sign']})"]
        told.append(f"| {' | '.join(cells)} |")
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, default=Path("checked"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--again", action="store_true", help="check the pictures of measured seeds again")
    parser.add_argument("--embedding", action="store_true", help="learn the embedding of `audit quantify`")
    parser.add_argument("--table", type=Path, help="print the table of a file of lines, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.embedding:
        quantification.learn_embedding = lambda work: None
    file = given.table or given.folder / "checked.jsonl"
    for seed in () if given.table else given.seeds:
        if given.again and file.is_file():
            for one in (file, file.with_name("artifacts.jsonl")):
                one.write_text("".join(json.dumps(li) + "\n" for li in families.read(one) if li["seed"] != seed))
        if seed not in families.measured(file):
            pictures, artifacts = measure(given.data, given.folder, seed)
            families.append(file.with_name("artifacts.jsonl"), artifacts)
            families.append(file, pictures)
    print(table(families.read(file), families.read(file.with_name("artifacts.jsonl"))))


if __name__ == "__main__":
    main()
