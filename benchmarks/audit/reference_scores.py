"""Reference classes that come along: scores of clean classes of photographs, each beside one other class.

    python benchmarks/audit/reference_scores.py IMAGENET32 reference_scores.json
    python benchmarks/audit/reference_scores.py IMAGENET32 without-0.json --embedding without-0.safetensors \\
        --known reference_scores.json
    python benchmarks/audit/reference_scores.py IMAGENET32 new.json --known reference_scores.json \\
        --measured flat-colour one-sided-colour

Makes `audit/verdicts/detectors/reference_scores.json`: the 100 classes of IMAGENET32 are put in random pairs, of which
the first 40 are taken; every detection that is no window is scored on the first 450 images of either class, beside the
other one. Scores are rounded to a hundredth of a nat. --embedding takes another network of ship_embedding.py for the
one that comes along; with --known only the detectors named by --measured are run, by default that of the embedding, and
the other scores are read from there. Pairs that are measured stand in OUT.jsonl, and one that was stopped goes on after
them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.verdicts.detectors import reference_classes
from klarsicht.audit.verdicts.detectors.artifact_embedding import REFERENCE_EMBEDDING_FILE, load_shipped_embedding
from klarsicht.audit.verdicts.detectors.bank import FEW_CLASS_DETECTORS
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.split_half import draw_halves

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes

CLASSES, PAIRS = 100, 40
SEED = (73, 0)  # of the order of the classes


def class_images(pair: np.ndarray, seed: int) -> list[ClassImages]:
    """Collect two classes (2, n, H, W, 3), each beside the other one."""
    pool, labels = ImageStack(pair.reshape(-1, *pair.shape[2:])), np.repeat(np.arange(2), pair.shape[1])
    rows = np.arange(pair.shape[1])
    halves = [draw_halves(len(rows), generator(seed, "halves", k)) for k in range(2)]
    return [ClassImages(ImageStack(pair[k]), pool, labels != k, halves[k], rows, seed) for k in range(2)]


def measure_pair(pair: np.ndarray, seed: int, names: Sequence[str]) -> list[dict[str, float]]:
    """Score the detections of two classes, in nats.

    Args:
        names: detectors of few classes; if there are none, all that are no windows are run.
    """
    network = reference_classes.load_reference_embedding()
    scores = []
    for images in class_images(pair, seed):
        shown = replace(images, embedding=network)
        some = (one for name in names for one in FEW_CLASS_DETECTORS[name](shown, name))
        found = some if names else reference_classes.detect_described(images)
        scores.append({one.name: round(round(one.score, 4), 2) for one in found})
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embedding", type=Path, default=REFERENCE_EMBEDDING_FILE)
    parser.add_argument("--known", type=Path, help="reference whose other scores are taken as they are")
    parser.add_argument("--measured", nargs="+", default=["shipped-embedding"], choices=FEW_CLASS_DETECTORS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = load_shipped_embedding(given.embedding)
    reference_classes.load_reference_embedding = lambda: network
    names, images = planted_classes.classes(given.data, CLASSES, 0)
    order, file = np.random.default_rng(SEED).permutation(CLASSES), given.out.with_suffix(".jsonl")
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for k in range(len(done), given.pairs):
        pair = order[2 * k : 2 * k + 2]
        scores = measure_pair(images[pair][:, : planted_classes.TRAINED], 2 * k, given.measured if given.known else ())
        done.append({"names": [str(names[i]) for i in pair], "scores": scores})
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(done[-1]) + "\n")
    found = {name: row for one in done for name, row in zip(one["names"], one["scores"], strict=True)}
    if given.known:
        known = json.loads(given.known.read_text(encoding="utf-8"))
        rows = zip(known["names"], known["scores"], strict=True)
        found = {n: dict(zip(known["signs"], row, strict=True)) | found[n] for n, row in rows if n in found}
    signs = list(next(iter(found.values())))
    assert {name.split()[0] for name in signs} >= FEW_CLASS_DETECTORS.keys()
    lines = ",\n  ".join(json.dumps([row[name] for name in signs]) for row in found.values())
    head = f' "images": {planted_classes.TRAINED},\n "names": {json.dumps(list(found))},\n "signs": {json.dumps(signs)}'
    given.out.write_text(f'{{\n{head},\n "scores": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
