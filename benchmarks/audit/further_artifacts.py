"""Two artifacts of one class, a frequent and a rare one: how often each is named, and what is named beside them.

    python benchmarks/audit/further_artifacts.py IMAGENET32 --folder two --seeds 130 131

Classes, families and shares are those of left_out_cases.py: 28 of 75 classes hold an artifact on 20, 10 or 5 % of their
images, put on 20 of them before the network is trained. In three of four of these classes an artifact of another fold
of families is put on 5, 10 or 20 % of the images, whichever they are. Each case is audited as `audit run` and
`audit quantify` do. An artifact is *named* where the verdict on the class or on a further artifact of it has members
with an F1 of at least .5; it is *used* where the real one, put on held-out images of the other classes, raises its
class most of all outputs, by half a logit or with two more of a hundred images taken for it. The learned embedding
knows all families: this is no figure of families left out. One line of FOLDER/SEED.jsonl is a class.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.ground.seeding import generator

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
import planted_classes
from left_out_families import f1, write_images

OTHER_SHARE = {0.2: 0.05, 0.1: 0.1, 0.05: 0.2}  # of the second artifact, by that of the first
SINGLE = 4  # every so many-th class keeps one artifact
NAMED = 0.5  # F1 from which an artifact counts as named
NUMBERED = 1000  # by which the numbers of second artifacts are larger


def plan_second(first: list[cases.Plant], rng: np.random.Generator) -> list[cases.Plant]:
    """The second artifacts of most classes: of other folds, no family twice before all were drawn."""
    order, plants = rng.permutation(list(FAMILIES)).tolist(), []
    for i, plant in enumerate(first):
        if i % SINGLE == SINGLE - 1:
            continue
        family = next(name for name in order if cases.fold_of(name) != cases.fold_of(plant.family))
        order.remove(family)
        order.append(family)
        share = OTHER_SHARE[plant.share]
        rows = np.sort(rng.choice(cases.IMAGES, round(share * cases.IMAGES), replace=False)).tolist()
        number = NUMBERED + plant.number
        plants.append(replace(plant, number=number, family=family, share=share, rows=tuple(rows)))
    return plants


def make_case(data: Path, seed: int, epochs: int) -> tuple[cases.Case, list[cases.Plant]]:
    """Train the network of a case on images with both artifacts; return it and all artifacts with their use."""
    names, pictures = planted_classes.classes(data, cases.CLASSES, seed)
    rng = generator(seed, "further artifacts")
    whole = pictures[:, : planted_classes.TRAINED]
    clean = whole[:, np.sort(rng.permutation(planted_classes.TRAINED)[: cases.IMAGES])]
    held_out = pictures[:, planted_classes.TRAINED :][:, : cases.HELD_OUT]
    first = cases.plan(seed, rng)
    plants, images, taught = [*first, *plan_second(first, rng)], clean.copy(), clean.copy()
    for plant in plants:
        for stack in (images, taught) if plant.trained else (images,):
            stack[plant.label, list(plant.rows)] = cases.put(stack[plant.label, list(plant.rows)], plant, seed)
    labels = np.repeat(np.arange(cases.CLASSES), cases.IMAGES)
    net = planted_classes.fitted(taught.reshape(-1, *taught.shape[2:]), labels, seed, epochs)
    case = cases.Case(seed, tuple(names), images, held_out, {}, {}, net, float("nan"))
    return case, [replace(plant, use=cases.measure_use(net, case.others(plant.label), plant, seed)) for plant in plants]


def audit_case(case: cases.Case, folder: Path) -> Quantification:
    """Run `audit run` and `audit quantify` on the images of a case."""
    names = [f"{k:03d}" for k in range(len(case.names))]
    write_images(case, folder / "data")
    classifier = load_model(case.net, classes=names)
    settings = AuditSettings(
        model="object", data=str(folder / "data"), method=HEAD_RELEVANCE, batch=64, unit=4096, seed=case.seed
    )
    pipeline.run(settings, folder / "run", classifier=classifier)
    return quantify(folder / "run", classifier=classifier)


def describe_classes(found: Quantification, plants: list[cases.Plant]) -> list[dict]:
    """Compare the verdicts on each class with what was planted in it."""
    lines = []
    for verdict in found:
        mine = [plant for plant in plants if plant.label == verdict.target]
        called = [one for one in verdict.artifacts if one.artifactual]
        numbers = [{int(Path(path).stem) for path in one.members} for one in called]
        scores = [[f1(members, plant.rows) for plant in mine] for members in numbers]
        lines.append(
            {
                "label": verdict.target,
                "planted": [[p.family, p.share, p.trained, p.use.used] for p in mine],
                "called": [[one.detection.sign, one.size, one.detection.p, one.poisoned] for one in called],
                "f1": scores,
            }
        )
    return lines


def measure(data: Path, folder: Path, seed: int, epochs: int) -> list[dict]:
    """Make and audit a case; one that was measured is read."""
    file = folder / f"{seed}.jsonl"
    if file.is_file():
        return [json.loads(line) for line in file.read_text().splitlines()]
    case, plants = make_case(data, seed, epochs)
    lines = describe_classes(audit_case(case, folder / f"case-{seed}"), plants)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def share_text(part: int, whole: int) -> str:
    """A share with Wilson's interval."""
    if not whole:
        return "none of 0"
    low, high = binomtest(part, whole).proportion_ci(method="wilson")
    return f"{part} of {whole} ({low:.2f} to {high:.2f})"


def print_table(lines: list[dict]) -> None:
    """Print what was named of two artifacts, of one, and what was named beside them."""
    print("| share | named first | named as a further one | not named |\n|---|---|---|---|")
    two = [line for line in lines if len(line["planted"]) == 2]
    for share in cases.SHARES:
        told = {"first": 0, "further": 0, "none": 0}
        for line in two:
            for k, planted in enumerate(line["planted"]):
                if planted[1] == share:
                    told[position_named(line, k)] += 1
        print(f"| {share:.0%} | {told['first']} | {told['further']} | {told['none']} |")
    both = sum(all(position_named(line, k) != "none" for k in (0, 1)) for line in two)
    print(f"\nboth are named in {share_text(both, len(two))} classes")
    called = [line for line in lines if line["called"]]
    wrong = sum(not any(score >= NAMED for score in scores) for line in called for scores in line["f1"][1:])
    print(f"further ones that are none: {wrong}, in {len(called)} called classes")
    for used in (True, False):
        right = [
            line["called"][i][3]
            for line in lines
            for i, scores in enumerate(line["f1"][1:], 1)
            for k, score in enumerate(scores)
            if score >= NAMED and line["planted"][k][3] == used
        ]
        kind = "used" if used else "unused"
        print(f"further ones called poisoned, of those {kind}: {share_text(sum(right), len(right))}")


def position_named(line: dict, k: int) -> str:
    """Say where the k-th planted artifact of a class is named."""
    named = [i for i, scores in enumerate(line["f1"]) if scores[k] >= NAMED]
    return "none" if not named else "first" if named[0] == 0 else "further"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    measured = [line for seed in given.seeds for line in measure(given.data, given.folder, seed, given.epochs)]
    print_table(measured)
