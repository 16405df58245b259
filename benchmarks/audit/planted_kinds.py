"""Held-out truth beside what `audit clean` says of itself, for artifacts of four families, without a named method.

    python benchmarks/audit/planted_kinds.py --seeds 30 31 --json planted.jsonl

Artifacts of `audit plant --kind`: at a fixed place (`tag`, `mark`), at a place that varies (`text`), on the whole frame
(`border`, `blocks`), without a place (`noise`, `blur`). For each seed and kind two small networks on Fashion-MNIST: one
trained on pictures of which 30 % of the T-shirts carry the artifact, and its twin on the same pictures without. Other
pictures with as many carriers are audited, and `audit.clean` is run without a method on the list of the true carriers.
*Said* are its figures on its own third part: effect left, flips, points lost. *True* are figures of 10,000 test
pictures, of which the true artifact was put on all:

    flips   of other classes' pictures not taken for T-shirts, the share that is with the artifact on
    rise    of the class's centred logit by the artifact, on pictures of other classes
    under   accuracy of pictures of other classes with the artifact on
    lost    points of accuracy on clean pictures
    gap     (before - after) / (before - twin), of the mean over seeds; beyond 100 % less is left than in the twin

A figure is one line of the JSON file; one that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE
from klarsicht.audit.verdicts.synthetic.artifacts import draw_plant
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import centred_logit

sys.path.insert(0, str(Path(__file__).parent))
import chosen_methods
import corpus_cleaning
import fashion
from harm_answers import SHARE, TARGET, inputs

Pictures = NDArray[np.uint8]
KINDS = {
    "tag": "fixed", "text": "varying", "border": "full frame", "noise": "placeless", "mark": "fixed",
    "blur": "placeless", "blocks": "full frame",
}  # fmt: skip
TRAINED, AUDITED = 16_000, 3_000
LEAST_LEARNED = {"flips": 0.005, "rise": 0.1, "under": 0.005}  # difference to the twin below which there is no gap


def put(kind: str, x: Pictures, seed: int, part: str) -> Pictures:
    """The artifact on all pictures; what it draws anew for each picture is the same at every call."""
    artifact = draw_plant(kind, seed)
    return np.stack([artifact(image, generator(seed, part, i)).pixels for i, image in enumerate(x)])


def planted(kind: str, x: Pictures, y: NDArray, seed: int, part: str) -> tuple[Pictures, NDArray]:
    """Pictures of which a share of the T-shirts carries the artifact, and which do."""
    rng, shirts = generator(seed, f"carriers {part}"), np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(SHARE * len(shirts)), replace=False)] = True
    out = x.copy()
    out[carries] = put(kind, x[carries], seed, part)
    return out, carries


def truth(classifier: Classifier, kind: str, seed: int, correction: Correction | None) -> dict:
    """Figures of the test pictures."""
    x, y = fashion.pictures("t10k")
    other = y != TARGET
    plain, under = (compute_logits(classifier, inputs(some), correction) for some in (x, put(kind, x, seed, "test")))
    free = other & (plain.argmax(1) != TARGET)
    return {
        "flips": float((under.argmax(1)[free] == TARGET).mean()),
        "rise": float((centred_logit(under, TARGET) - centred_logit(plain, TARGET))[other].mean()),
        "under": float((under.argmax(1) == y)[other].mean()), "accuracy": float((plain.argmax(1) == y).mean()),
    }  # fmt: skip


def one(seed: int, kind: str, folder: Path) -> dict:
    x, y = fashion.pictures("train")
    fashion.network = lambda s: chosen_methods.network(s, chosen_methods.WIDTHS["narrow"])
    seen, _ = planted(kind, x[:TRAINED], y[:TRAINED], seed, "trained")
    nets = [fashion.trained(some, y[:TRAINED], seed) for some in (seen, x[:TRAINED])]
    model, twin = (load_model(net, classes=fashion.CLASSES) for net in nets)
    result = {"seed": seed, "kind": kind, "nothing": truth(model, kind, seed, None)}
    result["twin"] = truth(twin, kind, seed, None)
    audited = slice(TRAINED, TRAINED + AUDITED)
    pictures, carries = planted(kind, x[audited], y[audited], seed, "audited")
    fashion.write(folder / "data", pictures, y[audited])
    names = [f"{fashion.CLASSES[TARGET]}/{i:05d}.png" for i in np.flatnonzero(carries)]
    (folder / "members.txt").write_text("\n".join(names))
    corpus_cleaning.audited(nets[0], folder / "data", folder / "run", method=HEAD_RELEVANCE, seed=seed)
    start = time.time()
    try:
        found = clean_model.clean(
            folder / "run", fashion.CLASSES[TARGET], CleanSettings(seed=seed), members=folder / "members.txt",
            classifier=load_model(nets[0], classes=fashion.CLASSES),
        )  # fmt: skip
    except KlarsichtError as error:
        return result | {"refused": str(error)}
    after, said = truth(model, kind, seed, found.choice.correction), found.judgement
    said_of_itself = {
        "left": said.remaining, "before": said.before.flips.value if said.before.flips.n else None,
        "flips": said.after.flips.value if said.after.flips.n else None, "lost": said.after.harm.value,
        "verdict": said.verdict, "how": found.artifact.insertion_text, "chosen": str(found.choice.chosen),
        "seconds": time.time() - start,
    }  # fmt: skip
    return result | {"after": after, "said": said_of_itself}


def table(runs: list[dict]) -> None:
    """One line for each kind, means over seeds."""
    print("\n| kind | flips before, after, twin | gap: flips, rise, under | lost | said: left (true) | lost | method |")
    print("|---|---|---|---|---|---|---|")
    for kind, family in KINDS.items():
        some = [run for run in runs if run["kind"] == kind and "after" in run]
        refused = [run for run in runs if run["kind"] == kind and "refused" in run]
        for run in refused:
            print(f"| {kind}, {family} | refused (seed {run['seed']}): {run['refused']} | | | | | |")
        if not some:
            continue

        def mean(who: str, what: str, some: list[dict] = some) -> float:
            return float(np.mean([run[who][what] for run in some]))

        flips = ", ".join(f"{100 * mean(who, 'flips'):.1f}" for who in ("nothing", "after", "twin"))
        gaps = []
        for what in ("flips", "rise", "under"):
            before, after, twin = (mean(who, what) for who in ("nothing", "after", "twin"))
            learned = abs(before - twin) > LEAST_LEARNED[what]
            gaps.append(f"{100 * (before - after) / (before - twin):.0f} %" if learned else "not learned")
        lost = 100 * (mean("nothing", "accuracy") - mean("after", "accuracy"))
        left = 100 * abs(mean("after", "rise")) / mean("nothing", "rise")
        chosen = "; ".join(f"{run['said']['how']}: {run['said']['chosen']}" for run in some)
        print(
            f"| {kind}, {family} | {flips} | {', '.join(gaps)} | {lost:+.2f} | {100 * mean('said', 'left'):.0f} % "
            f"({left:.0f} %) | {100 * mean('said', 'lost'):+.2f} | {chosen} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[30, 31])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    done = {(run["seed"], run["kind"]) for run in found}
    for seed in asked.seeds:
        for kind in asked.kinds:
            if (seed, kind) not in done:
                with tempfile.TemporaryDirectory() as folder:
                    found.append(one(seed, kind, Path(folder)))
                with asked.json.open("a") as lines:
                    lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
