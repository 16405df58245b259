"""Claims of use with 5 to 19 outputs: artifacts that a network was trained with, others planted afterwards, and groups
of clean images, each judged beside random artifacts of the same strength.

    python benchmarks/audit/use_among_few.py IMAGENET32 --classes 10 --seeds 0 1 --json use.jsonl
    python benchmarks/audit/use_among_few.py --table use.jsonl

A run has real classes of 140 images at 32 px. Two thirds of its classes hold an artifact of a random family on three in
ten images, every second one planted after the training, so that the network cannot use it. True carriers are given, so
that only the claim of use is measured: what they share is estimated, put on 64 images of other classes as `audit
quantify` does, and called used where p is at most 0.05, the effect matters, and what was put on is recognised by the
embedding that comes along, or that does not know it. Clean classes give three groups each: a random one, one of
images that the network's features put together, and one of images alike in their mean colour. The rule before had the
rank and the z among outputs alone. The last column says how many of the groups whose effect matters are called content:
no embedding sets them apart.
Seeds from 100 on are measured once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.class_verdict import WHOLE_SHARE
from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.significance import LEVEL, OTHER_WINDOWS, ManyOutputs, output_strategy
from klarsicht.audit.verdicts.detectors.artifact_embedding import load_shipped_embedding
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.early_stopping import choose_way, measure_in_looks
from klarsicht.audit.verdicts.interventions.experiment import p_among_rivals
from klarsicht.audit.verdicts.interventions.recognition import recognised_share, remaining_separation
from klarsicht.audit.verdicts.quantification import intervention_units as units
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
import planted_classes

SCALE = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
DRAWN, IMAGES, HELD_OUT, SHARE, EPOCHS, WIDTH = 60, 140, 80, 0.3, 20, 16
SHARES = ("covered", "recognition", "remainder")
GROUPS = {"random": 20, "natural": 28, "colour": 28}  # images of a group without an artifact


def make(pictures: np.ndarray, classes: int, seed: int) -> cases.Case:
    """Train the network of a run on classes among those of pictures (k, n, 32, 32, 3), and measure the true uses."""
    rng = generator(seed, "use among few", classes)
    chosen = pictures[rng.choice(len(pictures), classes, replace=False)]
    clean, held_out = chosen[:, :IMAGES], chosen[:, IMAGES:]
    families, labels = rng.permutation([name for name in FAMILIES if name != "mirror"]), rng.permutation(classes)
    images, taught, plants = clean.copy(), clean.copy(), []
    for i, label in enumerate(labels[: max(2, 2 * classes // 3)].tolist()):
        rows = np.sort(rng.choice(IMAGES, round(SHARE * IMAGES), replace=False))
        plants.append(cases.Plant(i, label, str(families[i]), SHARE, i % 2 == 0, tuple(rows.tolist()), ""))
        images[label, rows] = cases.put(clean[label, rows], plants[-1], seed)
        taught[label] = images[label] if plants[-1].trained else clean[label]
    answers = np.repeat(np.arange(classes), IMAGES)
    net = planted_classes.fitted(taught.reshape(-1, *taught.shape[2:]), answers, seed, EPOCHS, WIDTH)
    told = planted_classes.logits(net, held_out.reshape(-1, *held_out.shape[2:])).argmax(1)
    accuracy = float((told == np.repeat(np.arange(classes), held_out.shape[1])).mean())
    names = tuple(map(str, range(classes)))
    case = cases.Case(seed, names, images, held_out, {}, {p.label: p for p in plants}, net, accuracy)
    known = [replace(p, use=cases.measure_use(net, case.others(p.label)[::2], p, seed)) for p in plants]
    return replace(case, plants={p.label: p for p in known})


def judge(case: cases.Case, label: int, rows: np.ndarray) -> dict[str, Any]:
    """Measure the chosen way for carriers at rows (m,) of a class, and its p by either rule."""
    rng, images = generator(case.seed, "claim of use", label, len(rows)), case.images[label]
    found = ArtifactExamples(images[rows], np.delete(images, rows, 0), np.zeros((0, 2), np.intp), (0, 0))
    sign = SignRow(target=label, sign="embedding", score=0.0, rows=rows.tolist(), places=[], height=0.0, width=0.0)
    trial = units.ArtifactTrial.of(sign, found, SCALE, True, rng, own=False)
    if not trial.ways:
        return {"how": "", "rise": 0.0, "p": 1.0, "before": 1.0, "matters": False} | dict.fromkeys(SHARES)
    x = rng.permutation(case.others(label))[: units.CHOICE_IMAGES + units.EFFECT_BACKGROUNDS]
    first, then = (SCALE.inputs(part) for part in np.split(x, [units.CHOICE_IMAGES]))

    def predict(inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return case.net(inputs.contiguous(memory_format=torch.channels_last)).numpy().astype(np.float64)

    how = choose_way(predict, first, predict(first), label, trial.ways, rng)
    effect = measure_in_looks(predict, trial.ways[how], then, predict(then), label, rng)
    p, few = 1.0, then[: units.RIVAL_IMAGES]
    if effect.leads:
        own, rivals = units.put_beside_rivals(trial.ways[how], few, SCALE, rng, OTHER_WINDOWS)
        p = p_among_rivals(predict, few, own, rivals, label, OTHER_WINDOWS)
    known = [{"rank": effect.rank, "z": effect.z, "p_tiles": p}]
    rules = ManyOutputs(len(case.names)), output_strategy(len(case.names))
    former, now = (float(rule.p_beside(known)[0]) for rule in rules)
    embed, marked = load_shipped_embedding().embed, trial.mark_others(trial.ways[how], SCALE)
    shares = {
        "covered": trial.covered_share(trial.ways[how], SCALE),
        "recognition": recognised_share(*map(embed, (found.carriers, found.others[: units.COMPARED], marked))),
    }
    line = {
        "how": how,
        "rise": effect.rise.value,
        "p": now,
        "p_rivals": p,
        "before": former,
        "z": effect.z,
        "rank": effect.rank,
    }
    line |= {"matters": matters(LogitEffect(effect.rise, effect.turned))}
    shown = found.carriers, found.others[: units.COMPARED], marked
    outputs = [centre_logits(predict(SCALE.inputs(x))) for x in shown]
    shares["remainder"] = remaining_separation(*outputs)
    return line | {name: None if np.isnan(value) else value for name, value in shares.items()}


def measured(case: cases.Case) -> Iterator[dict[str, Any]]:
    """Judge the carriers of every plant, and the groups of clean classes."""
    of_case = {"classes": len(case.names), "seed": case.seed}
    for label, plant in sorted(case.plants.items()):
        known = {"group": "trained" if plant.trained else "after", "family": plant.family, "true": plant.use.rise}
        known |= {"used": plant.use.used, "flips": plant.use.flips}
        yield of_case | known | judge(case, label, np.array(plant.rows))
    for label in case.clean:
        rng, net = generator(case.seed, "group", label), case.net
        with torch.no_grad():
            x = net.flatten(net.pool(net.features(planted_classes.prepared(case.images[label])))).numpy()
        colours = case.images[label].mean((1, 2))
        near, alike = (np.argsort(np.linalg.norm(y - y[rng.integers(len(y))], axis=1)) for y in (x, colours))
        for group, order in (("random", rng.permutation(len(x))), ("natural", near), ("colour", alike)):
            yield of_case | {"group": group, "used": False} | judge(case, label, np.sort(order[: GROUPS[group]]))


def table(lines: list[dict[str, Any]]) -> str:
    told = [
        "| outputs | group | | called used, before | called used | of the others, not recognised | matters: content |",
        "|---" * 7 + "|",
    ]
    for classes in sorted({li["classes"] for li in lines}):
        for group, used in (
            ("planted", True),
            ("planted", False),
            ("random", False),
            ("natural", False),
            ("colour", False),
        ):
            mine = [
                li for li in lines if li["classes"] == classes and li["used"] == used
                and (li["group"] in ("trained", "after")) == (group == "planted") and group in (li["group"], "planted")
            ]  # fmt: skip
            before, now = ([li for li in mine if li["matters"] and li[name] <= LEVEL] for name in ("before", "p"))
            now = [li for li in now if li["recognition"] is None or li["recognition"] >= WHOLE_SHARE]
            rest = [li for li in mine if li not in now]
            missed = sum(li["recognition"] is not None and li["recognition"] < WHOLE_SHARE for li in rest)
            of, name = (
                len(mine),
                group if group != "planted" else "planted, truly used" if used else "planted, not used",
            )
            acting = [li for li in mine if li["matters"]]
            content = sum(li["recognition"] is None and li["remainder"] is not None for li in acting)
            told.append(
                f"| {classes} | {name} | {of} | {len(before)} | {len(now)} | {missed} of {len(rest)} "
                f"| {content} of {len(acting)} |"
            )
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--classes", type=int, nargs="+", default=[10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, help="lines are added to this file")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        print(table([json.loads(line) for line in given.table.read_text().splitlines()]))
        return
    pictures, lines = planted_classes.classes(given.data, DRAWN, 7)[1][:, : IMAGES + HELD_OUT], []
    for classes in given.classes:
        for seed in given.seeds:
            began, case = time.process_time(), make(pictures, classes, seed)
            lines += (mine := list(measured(case)))
            seconds = time.process_time() - began
            print(f"{classes} classes, seed {seed}: accuracy {case.accuracy:.2f}, {seconds:.0f} CPU s", file=sys.stderr)
            if given.json:
                with given.json.open("a") as file:
                    file.writelines(json.dumps(li) + "\n" for li in mine)
    print(table(lines))


if __name__ == "__main__":
    main()
