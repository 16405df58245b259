"""Verdicts on kinds of artifacts that no embedding was taught: what is called at 20, 10 and 5 % of a class.

    python benchmarks/audit/untaught_classes.py IMAGENET32 --folder kinds --seeds 0 1
    python benchmarks/audit/untaught_classes.py IMAGENET32 --folder kinds --steps 450 --seeds 100
    python benchmarks/audit/untaught_classes.py --table --folder kinds --steps 450 --seeds 100
    python benchmarks/audit/untaught_classes.py IMAGENET32 --folder forms --forms --steps 450 --seeds 100
    python benchmarks/audit/untaught_classes.py IMAGENET32 --folder kinds --fixed --seeds 0 1

A run has real classes of 280 images at 32 px. In two of five a kind of `untaught_kinds.py` is planted, half of them at
5 %, the others at 10 and 20 %. The embedding is learned on the images of the run as `audit quantify` does, with all
families, and every detector looks at every class. No network is trained: this asks what is called, not what is used.

Seeds below 100 are to develop on: 50 of the 100 classes, and half of the kinds. Runs from 100 on have the other kinds
and 75 classes, of which 50 were not developed on. What detectors say is kept in FOLDER/seed-N, so that another rule of
verdicts is judged in seconds. The table says what the step-down and the differences of means add. With fewer --steps
the embedding is learned in less time, and separates less. --fixed takes a head in closed form over the network that
comes along (`fixed_features.py`). With --named an embedding is taught families only, as before decision 197.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from klarsicht.audit.results.significance import LEVEL, class_strategy
from klarsicht.audit.verdicts.detectors import artifact_embedding
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    STAGES,
    STEPS,
    ArtifactEmbedding,
    EmbeddingTraining,
    drawn_in_training,
    load_embedding,
    load_shipped_embedding,
    taught_families,
)
from klarsicht.audit.verdicts.detectors.bank import change_of, run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.patch_matches import WINDOW_POOL
from klarsicht.audit.verdicts.quantification.embedding_units import LEARNED_IMAGES
from klarsicht.audit.verdicts.quantification.units import POOL
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.split_half import combined_p, draw_halves

sys.path.insert(0, str(Path(__file__).parent))
import fixed_features
import planted_classes
import untaught_forms
import untaught_kinds
from left_out_cases import FRESH, IMAGES
from left_out_families import NAMED, f1

DEVELOPED, RUN = 50, 75  # classes to develop on, and of a run that is measured once
PLANTED = 0.4  # share of the classes
RARE, FREQUENT = 0.05, (0.1, 0.2)
MEANS = "embedding-means"


def draw_classes(names: Sequence[str], seed: int) -> list[str]:
    """Draw the classes of a run, sorted."""
    order = generator(0, "untaught classes").permutation(list(names)).tolist()
    if seed < FRESH:
        return sorted(order[:DEVELOPED])
    return sorted(
        order[DEVELOPED:] + generator(seed, "more classes").permutation(order[:DEVELOPED]).tolist()[: RUN - DEVELOPED]
    )


def make(data: Path, place: Path, seed: int, forms: bool = False) -> tuple[np.ndarray, list[dict]]:
    """Draw images uint8 (classes, 280, 32, 32, 3) and plant the kinds of a run; read them where they are there."""
    if (place / "classes.json").is_file():
        return np.load(place / "images.npy"), json.loads((place / "classes.json").read_text())
    every, pictures = planted_classes.classes(data, 100, 0)
    chosen, rng = draw_classes(every, seed), generator(seed, "untaught")
    images = np.stack([pictures[every.index(name)][np.sort(rng.permutation(500)[:IMAGES])] for name in chosen])
    known = draw_classes(every, 0)
    classes = [{"class": name, "developed": name in known, "kind": "", "share": 0.0, "rows": []} for name in chosen]
    drawn = (untaught_forms.forms_of if forms else untaught_kinds.kinds_of)(seed >= FRESH)
    kinds, known_kinds = rng.permutation(drawn).tolist(), untaught_forms.FORMS if forms else untaught_kinds.KINDS
    count = round(PLANTED * len(chosen))
    for number, label in enumerate(rng.permutation(len(chosen))[:count].tolist()):
        half = count // 2
        share = FREQUENT[1] if forms else RARE if number < half else FREQUENT[number % 2]
        kind = kinds[number % len(kinds)] if number < half else kinds[(number - half) % len(kinds)]
        rows = np.sort(rng.choice(IMAGES, round(share * IMAGES), replace=False))
        images[label, rows] = untaught_kinds.put(images[label, rows], kind, seed, number, known_kinds)
        classes[label] |= {"kind": kind, "share": share, "rows": rows.tolist()}
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "images.npy", images)
    (place / "classes.json").write_text(json.dumps(classes))
    return images, classes


def learn(images: np.ndarray, place: Path, seed: int, named: bool = False) -> ArtifactEmbedding:
    """Learn the embedding on the images of a run, or go on from the stage at which it was stopped."""
    flat = images.reshape(-1, *images.shape[2:])
    rows = np.sort(generator(seed, "learned images").permutation(len(flat))[:LEARNED_IMAGES])
    training = EmbeddingTraining(flat[rows], taught_families(3) if named else drawn_in_training(3), seed)
    place.mkdir(exist_ok=True)
    states = [place / f"stage-{stage}.pt" for stage in range(STAGES)]
    first = next((i for i, file in enumerate(states) if not file.is_file()), STAGES)
    if first:
        training.restore(states[first - 1].read_bytes())
    for stage in range(first, STAGES):
        clock = time.process_time()
        training.run_stage(stage)
        states[stage].write_bytes(training.state())
        print(f"seed {seed}: stage {stage}, {time.process_time() - clock:.0f} CPU s", flush=True)
    return load_embedding(states[-1].read_bytes())


def classes_of(images: np.ndarray, network: ArtifactEmbedding, seed: int) -> Iterator[ClassImages]:
    """Collect the classes of a run (k, n, H, W, 3) as `audit quantify` does."""
    rng, count = generator(seed, "pool"), len(images)
    each = -(-POOL // count)
    rows = np.concatenate([k * IMAGES + rng.permutation(IMAGES)[:each] for k in range(count)])
    rows = rows[rng.permutation(len(rows))]
    pool = ImageStack(images.reshape(-1, *images.shape[2:])[rows])
    compared = max(int(np.flatnonzero(rows // IMAGES != k)[:WINDOW_POOL][-1]) + 1 for k in range(count))
    for k, own in enumerate(images):
        half = draw_halves(IMAGES, generator(seed, "halves", k))
        others = rows // IMAGES != k
        yield ClassImages(
            ImageStack(own), pool, others, half, np.arange(IMAGES), seed, network, compared,
            pool_classes=rows // IMAGES,
        )  # fmt: skip


def measure(images: np.ndarray, classes: list[dict], network: ArtifactEmbedding, file: Path, seed: int) -> None:
    """Write one line a class, with the score of each detection and the F1 of its members; what is there is kept."""
    known = len(file.read_text().splitlines()) if file.is_file() else 0
    for k, (one, of_class) in enumerate(zip(classes, classes_of(images, network, seed), strict=True)):
        if k >= known:
            clock = time.process_time()
            found = run_detectors(of_class)
            signs = [[d.name, d.score, f1(d.members.tolist(), one["rows"])] for d in found]
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(one | {"seed": seed, "signs": signs, "cpu": time.process_time() - clock}) + "\n")


def judge(lines: list[dict], *, steps: bool, means: bool) -> list[dict]:
    """The lines of one run with their verdicts: with the step-down or by one comparison, with differences of means or
    without."""
    signs = [[one for one in line["signs"] if means or one[0].split()[0] != MEANS] for line in lines]
    scores = np.array([[score for _, score, _ in of_class] for of_class in signs])
    if steps:
        found = class_strategy(len(scores)).test_detections(scores, [name for name, *_ in signs[0]], change_of)
        p, best = found.p_decisive, found.decisive
    else:
        test = conformal.maximum_over_detectors(scores)
        best = test.best
        p = np.maximum(test.extended, combined_p(scores, test.tests)[np.arange(len(scores)), best])
    return [
        line | {"artifactual": bool(p[k] <= LEVEL), "f1": signs[k][best[k]][2], "p": float(p[k])}
        for k, line in enumerate(lines)
    ]


def share(lines: list[dict]) -> str:
    """Called of all, with Wilson's interval, and of the called those whose images are named."""
    hits = [line["artifactual"] for line in lines]
    if not hits:
        return "0 of 0"
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    named = sum(line["artifactual"] and line["f1"] >= NAMED for line in lines)
    return f"{sum(hits)} of {len(hits)} ({found.low:.2f} to {found.high:.2f}), {named} named"


def table(runs: list[list[dict]]) -> Iterator[str]:
    for means, steps in product((False, True), repeat=2):
        lines = [line for run in runs for line in judge(run, steps=steps, means=means)]
        clean = [line for line in lines if not line["kind"]]
        yield f"{'with' if means else 'without'} differences of means, {'step-down' if steps else 'compared once'}:"
        for part in (*FREQUENT[::-1], RARE):
            yield f"  {part:.0%}: {share([line for line in lines if line['share'] == part])}"
        for sort, names in untaught_forms.SORTS.items():
            yield f"  {sort}, at any share: {share([line for line in lines if line['kind'] in names])}"
        yield f"  clean: {share(clean)}; not developed on: {share([one for one in clean if not one['developed']])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training of the embedding")
    parser.add_argument("--only-learn", action="store_true")
    parser.add_argument("--shipped", action="store_true", help="use the embedding that comes along, and learn none")
    parser.add_argument("--fixed", action="store_true", help="use it under a head in closed form, fitted on the run")
    parser.add_argument("--named", action="store_true", help="teach families only, no change without a name")
    parser.add_argument("--forms", action="store_true", help="forms of untaught_forms.py, on a fifth of a class each")
    parser.add_argument("--table", action="store_true", help="judge what is there, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    artifact_embedding.STEPS = given.steps
    runs = []
    for seed in given.seeds:
        place = given.folder / f"seed-{seed}"
        kind = "shipped" if given.shipped else "fixed" if given.fixed else f"{given.steps}{'-named' * given.named}"
        file = place / f"signs-{kind}.jsonl"
        if not given.table:
            images, classes = make(given.data, place, seed, given.forms)
            if given.shipped:
                network = load_shipped_embedding()
            elif given.fixed:
                network = fixed_features.fit_embedding(images.reshape(-1, *images.shape[2:]), seed)
            else:
                network = learn(images, place / kind, seed, given.named)
            if given.only_learn:
                continue
            measure(images, classes, network, file, seed)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        print(f"seed {seed}: {len(lines)} classes, {np.mean([li['cpu'] for li in lines]):.2f} CPU s each", flush=True)
        runs.append(lines)
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
