"""Count headlines of `audit shortcuts` on two classes that nobody marked, and on one with a frame.

    python benchmarks/audit/natural_pairs.py IMAGENET32 --kind pairs --seeds 0 30 --out pairs.jsonl
    python benchmarks/audit/natural_pairs.py IMAGENET32 --kind halves --seeds 100 130 --out halves.jsonl
    python benchmarks/audit/natural_pairs.py IMAGENET32 --kind frames --seeds 200 210 --out frames.jsonl
    python benchmarks/audit/natural_pairs.py IMAGENET32 --kind left --seeds 0 30 --out left.jsonl
    python benchmarks/audit/natural_pairs.py IMAGENET32 --kind left --seeds 0 30 --out cleaned.jsonl --clean

*pairs*: two ImageNet classes at 32 px, a small network trained on 400 images of each, the audit on the other 100.
*halves*: one class, cut in two at random, trained on 150 images of each half. *frames*: pairs, one class with a frame
on all of its images, which the audit should find. *left*: pairs of the 22 classes that made no pair of
`natural_surroundings.py`, numbered by the seed, so that both kinds of calls are counted on classes that calibrated none
of surroundings. A line of the file is a pair: all parts of both classes, headlines; and of the images that trained the
network how well own places and surroundings separate the classes, with its p. Seeds from FIRST to LAST - 1; lines that
are there are not made again. `--clean`: nothing is audited; the network is cleaned of surroundings all the same, as
`audit clean --part surroundings` does where no use of them is shown, and tested before and after on the other 100
images. `--places`: no network is trained or audited; own places alone are found. IMAGENET32 holds train.tar.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parent))
import natural_surroundings
import planted_classes as planted
import whole_class_shortcuts as marks
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.composite_training import train_on_composites
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.cleaning.models.surroundings_correction import (
    bound_change,
)
from klarsicht.audit.cleaning.models.teaching_images import require_own_places
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.splits import split_by_source
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale
from klarsicht.audit.results.sufficiency import PartEvidence
from klarsicht.audit.results.surroundings import SURROUNDINGS_LEVEL
from klarsicht.audit.verdicts.own_places.own_places import find_own_places
from klarsicht.audit.verdicts.quantification.natural_surroundings import rank_among_natural
from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator

EPOCHS, HALF_TRAINED = 20, 150
CLEANING = CleanSettings(batch=32, rate=5e-4, steps=200)
REGIONS = ("inside", "outside")  # which pictures that are not aligned have not


def images_of(folder: Path, kind: str, seed: int) -> np.ndarray:
    """Draw images uint8 (2, n, 32, 32, 3) of two classes; the first `marks.TRAINED` of each are for training."""
    rng = np.random.default_rng([11, seed])
    if kind == "halves":
        _, images = planted.classes(folder, 1, seed)
        return images[0][rng.permutation(500)].reshape(2, 250, *images.shape[2:])
    if kind == "left":
        return np.stack(natural_surroundings.read_left_pair(folder / "train.tar", seed, 500))
    _, images = planted.classes(folder, 2, seed)
    if kind == "frames":
        images = images.copy()
        images[0] = marks.put(marks.of_frame(rng), images[0], rng)
    return images


def measure_places(folder: Path, kind: str, seed: int) -> dict[str, object]:
    """Find own places in the images of one pair that would train a network, and return a line."""
    known = images_of(folder, kind, seed)[:, : HALF_TRAINED if kind == "halves" else marks.TRAINED]
    places = find_own_places(known.reshape(-1, *known.shape[2:]), np.repeat([0, 1], known.shape[1]), seed)
    return {
        "kind": kind, "seed": seed, "followed": places.followed, "told": places.told, "separate": places.separate,
        "surroundings p": rank_among_natural(places.separate), "exceptions": float(places.exceptional.mean()),
    }  # fmt: skip


def measure(folder: Path, kind: str, seed: int, shown: int) -> dict[str, object]:
    """Train a network on one pair, audit it, and return a line."""
    marks.TRAINED = HALF_TRAINED if kind == "halves" else 400
    images = images_of(folder, kind, seed)
    known = images[:, : marks.TRAINED]
    labels = np.repeat([0, 1], marks.TRAINED)
    net = planted.fitted(known.reshape(-1, *known.shape[2:]), labels, seed, EPOCHS)
    unseen = images[:, marks.TRAINED :]
    right = planted.logits(net, unseen.reshape(-1, *unseen.shape[2:])).argmax(1) == np.repeat([0, 1], unseen.shape[1])
    found, seconds = marks.audited(images, net, seed, shown)
    places = find_own_places(known.reshape(-1, *known.shape[2:]), labels, seed)
    return {
        "kind": kind,
        "seed": seed,
        "accuracy": float(right.mean()),
        "seconds": seconds,
        "headlines": [line.headline for line in found.headlines],
        "separate": places.separate,
        "surroundings p": rank_among_natural(places.separate),
        "exceptions": float(places.exceptional.mean()),
        "files": [rule.describe() for rule in found.files or () if rule.identifies],
        "classes": [
            {"target": one.target, "whole": one.whole, "parts": [asdict(part) for part in one.parts]} for one in found
        ],
    }


def measure_cleaning(folder: Path, kind: str, seed: int) -> dict[str, object]:
    """Train a network on one pair, clean it of surroundings as the command does where they are asked for all the same,
    and return a line."""
    images, labels = images_of(folder, kind, seed), np.repeat([0, 1], 400)
    known, unseen = (some.reshape(-1, *some.shape[2:]) for some in (images[:, :400], images[:, 400:]))
    net, begun = planted.fitted(known, labels, seed, EPOCHS), time.process_time()
    places, classifier = find_own_places(known, labels, seed), load_model(net, classes=["0", "1"])
    shown = InputImages(Corpus(("0",), ("0",), ("0",)), classifier, PixelScale.of(classifier), known.shape[1:3])
    part = split_by_source(np.arange(len(labels)), places.exceptional, generator(seed, "surroundings"))
    own_images = OwnImages(known, places.own, labels, places.side, part, shown)
    right = np.repeat([0, 1], len(unseen) // 2)

    def accuracy() -> float:
        return float((planted.logits(net, unseen).argmax(1) == right).mean())

    line: dict[str, object] = {"kind": kind, "seed": seed, "separate": places.separate, "before": accuracy()}
    line["surroundings p"] = rank_among_natural(places.separate)
    try:
        require_own_places(own_images, "no shortcut")
    except UsageError as error:
        return line | {"after": line["before"], "refused": str(error)}
    whole = train_on_composites(classifier, own_images, CLEANING)
    kept, change = bound_change(classifier, whole, own_images, CLEANING.overall)
    for name, correction in (("after", kept), ("whole change", whole)):
        with correction.applied(net):
            line[name] = accuracy()
    return line | {
        "share": change.share, "lost by images that bound it": change.loss.value, "images that bound it": change.loss.n,
        "seconds": time.process_time() - begun,
    }  # fmt: skip


def to_reference(lines: list[dict]) -> dict[str, object]:
    """Make the file of natural pairs that the audit includes, of each part for the class that it moves more."""
    names = [part["part"] for part in lines[0]["classes"][0]["parts"] if part["part"] not in REGIONS]
    table = []
    for line in lines:
        sides = [{part["part"]: PartEvidence(**part) for part in one["parts"]} for one in line["classes"]]
        table.append([max((side[name] for side in sides), key=lambda part: part.weight) for name in names])
    columns = {
        "offer": [[round(part.low or 0.5, 4) for part in row] for row in table],
        "rise": [[round(part.shift_low, 3) for part in row] for row in table],
        "turned": [[round(part.effect.turned.low, 3) for part in row] for row in table],
    }
    return {"made": f"{len(lines)} pairs of natural_pairs.py", "parts": names, **columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kind", choices=("pairs", "halves", "frames", "left"), default="pairs")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 30))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("natural_pairs.jsonl"))
    parser.add_argument("--clean", action="store_true", help="clean the networks, and audit none")
    parser.add_argument("--places", action="store_true", help="find own places, and train or audit no network")
    parser.add_argument("--reference", type=Path, help="write the file that the audit includes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    made = {(line["kind"], line["seed"]) for line in lines}
    with given.out.open("a") as out:
        for seed in range(*given.seeds):
            if (given.kind, seed) not in made:
                alone = measure_cleaning if given.clean else measure_places
                one = alone if given.clean or given.places else partial(measure, shown=given.images)
                lines.append(one(given.data, given.kind, seed))
                out.write(json.dumps(lines[-1]) + "\n")
                out.flush()
    mine = [line for line in lines if line["kind"] == given.kind]
    if given.clean:
        for when in ("after", "whole change"):
            lost = 100 * np.array([line["before"] - line[when] for line in mine if when in line])
            reach = student.ppf(0.975, len(lost) - 1) * lost.std(ddof=1) / np.sqrt(len(lost))
            ends = f"{lost.mean() - reach:.2f} to {lost.mean() + reach:.2f}, at most {lost.max():.1f}"
            print(f"{when}: {lost.mean():.2f} points lost ({ends}), {len(lost)} pairs")
        return
    if given.reference:
        given.reference.write_text(json.dumps(to_reference(mine)))
    called = sum(line["surroundings p"] <= SURROUNDINGS_LEVEL for line in mine)
    if given.places:
        print(f"surroundings of {called} of {len(mine)} pairs are called")
        return
    print(f"{sum(bool(line['headlines']) for line in mine)} of {len(mine)} pairs have a headline")
    print(f"surroundings of {called} of {len(mine)} pairs are called")
    for line in mine:
        said = " ".join(line["headlines"]) or "none"
        print(f"{line['seed']}: accuracy {line['accuracy']:.2f}, own places {line['separate']:.2f}; {said}")


if __name__ == "__main__":
    main()
