"""Count parts that `audit shortcuts` flags in 5 to 19 natural classes, and make the reference that judges them.

    python benchmarks/audit/natural_sets.py IMAGENET32 --classes 10 --seeds 0 12 --out tens.jsonl --reference tens.json
    python benchmarks/audit/natural_sets.py IMAGENET32 --classes 10 --seeds 114 120 --out fresh.jsonl

A set is of ImageNet classes at 32 px, drawn by the seed, that nobody marked. A small network is trained on 400 images
of each class, and 64 of the other 100 are shown; with --seen 64 of the 400. A line of the file is a set: all parts of
all classes. --reference writes the scores that the audit includes, from the lines of --out. Otherwise lines are judged
by the reference that is included; printed are the classes with a flagged part. IMAGENET32 holds train.tar.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes as planted
import whole_class_shortcuts as marks
from klarsicht.audit.results.part_comparison import score_parts
from klarsicht.audit.results.sufficiency import PartEvidence
from klarsicht.numerics.statistics.intervals import Interval

TRAINED, EPOCHS, SHOWN = 400, 10, 64
REGIONS = ("inside", "outside")  # which pictures that are not aligned have not


def measure(folder: Path, count: int, seed: int, seen: bool) -> dict[str, object]:
    """Train a network on one set, audit it, and return a line."""
    _, images = planted.classes(folder, count, seed)
    known = images[:, :TRAINED]
    net = planted.fitted(known.reshape(-1, *known.shape[2:]), np.repeat(np.arange(count), TRAINED), seed, EPOCHS)
    marks.TRAINED = 0 if seen else TRAINED  # images that `audited` leaves out
    found, seconds = marks.audited(known if seen else images, net, seed, SHOWN)
    return {
        "classes": count, "seed": seed, "seen": seen, "seconds": seconds,
        "flagged": {one.name: [part.part for part in one.noted] for one in found if one.noted},
        "profiles": [
            {"target": one.target, "whole": one.whole, "parts": [asdict(part) for part in one.parts]} for one in found
        ],
    }  # fmt: skip


def to_reference(lines: list[dict]) -> dict[str, object]:
    """Make the file of natural sets that the audit includes: the scores of all classes, each within its set."""
    names = [part["part"] for part in lines[0]["profiles"][0]["parts"] if part["part"] not in REGIONS]
    scores = np.vstack([scores_of(line, names) for line in lines])
    made = f"{len(lines)} sets of {lines[0]['classes']} classes, of natural_sets.py"
    return {"made": made, "parts": names, "scores": scores.round(3).tolist()}


def scores_of(line: dict, names: list[str]) -> np.ndarray:
    """Score the parts of those names of the classes of a set, (n, m)."""
    table = [{part["part"]: PartEvidence(**part) for part in one["parts"]} for one in line["profiles"]]
    parts = [[one[name] for name in names] for one in table]
    areas = [[None if p.area is None else Interval(p.area, p.low, p.high, 0) for p in row] for row in parts]
    return score_parts(areas, [[part.effect for part in row] for row in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 12))
    parser.add_argument("--seen", action="store_true", help="show images that the network was trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="write the file that the audit includes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    made = {(line["classes"], line["seed"], line["seen"]) for line in lines}
    with given.out.open("a") as out:
        for seed in range(*given.seeds):
            if (given.classes, seed, given.seen) not in made:
                lines.append(measure(given.imagenet32, given.classes, seed, given.seen))
                out.write(json.dumps(lines[-1]) + "\n")
                out.flush()
    mine = [line for line in lines if line["classes"] == given.classes and line["seen"] == given.seen]
    if given.reference:
        given.reference.write_text(json.dumps(to_reference(mine)))
        return
    flagged = sum(len(line["flagged"]) for line in mine)
    print(f"{flagged} of {sum(len(line['profiles']) for line in mine)} classes have a flagged part")
    for line in mine:
        print(line["seed"], line["flagged"])


if __name__ == "__main__":
    main()
