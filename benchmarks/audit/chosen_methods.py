"""Does `audit clean` without a method choose as a person would who tries all six? Held-out truth on small networks.

    python benchmarks/audit/chosen_methods.py --seeds 10 11 12 --json chosen.jsonl

Small networks on Fashion-MNIST, of three widths; 30 % of the T-shirts of 20,000 training pictures carry a tag, a stripe
from top to bottom, or a logo. Corrections are fitted on 300 true carriers and clean pictures of the network's own, and
chosen on 150 others, by `audit.cleaning.models.correction_choice.choose_correction`: each method in closed form by
itself, and all together. Figures are of the 10,000 test pictures, which nothing was fitted or chosen on: *flips*, of
other classes' pictures not taken for T-shirts, the share that is with the artifact on; *under*, accuracy of all,
likewise; *lost*, points of accuracy on clean pictures. *Announced* is the loss of the same correction on the pictures
that it was chosen on, and on as many others.

A figure is one line of the JSON file; one that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.closed_form import FittingData
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.models import correction_choice
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, CleanSettings
from klarsicht.audit.explanation.models.classifier import load_model

sys.path.insert(0, str(Path(__file__).parent))
import fashion
from harm_answers import PUT, SHARE, TARGET, inputs, overlay

TRAINED, FITTED, CHOSEN = 20_000, 300, 150
WIDTHS = {"narrow": (6, 8, 8), "middle": (8, 16, 24), "wide": (16, 32, 64)}


def network(seed: int, widths: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(seed)
    a, b, c = widths
    return nn.Sequential(
        nn.Conv2d(1, a, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * c, 10),
    )  # fmt: skip


def drawn(x: np.ndarray, y: np.ndarray, carries: np.ndarray, rows: np.ndarray, n: int) -> tuple[Sample, np.ndarray]:
    """n carriers, n clean T-shirts and 2 n clean pictures, the first of these rows; and which rows they are."""
    kinds = carries[rows], ~carries[rows] & (y[rows] == TARGET), ~carries[rows]
    members, own, fair = (rows[np.flatnonzero(which)[:k]] for which, k in zip(kinds, (n, n, 2 * n), strict=True))
    at = np.concatenate([members, np.union1d(own, fair)])
    return Sample(inputs(x[at]), carries[at], at, y[at], at, np.isin(at, fair)), at


def one(seed: int, artifact: str, width: str) -> dict:
    rng = np.random.default_rng(seed)
    x, y = (part[:TRAINED] for part in fashion.pictures("train"))
    shirts = np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(SHARE * len(shirts)), replace=False)] = True
    planted = np.where(carries[:, None, None], PUT[artifact](x), x)
    fashion.network = lambda s: network(s, WIDTHS[width])
    net = fashion.trained(planted, y, seed)
    classifier = load_model((net, lambda image: image), classes=fashion.CLASSES)
    place, parts, rows = overlay(artifact), [], rng.permutation(len(x))
    for n in (FITTED, CHOSEN, CHOSEN):
        sample, at = drawn(planted, y, carries, rows, n)
        parts.append(sample)
        rows = rows[~np.isin(rows, at)]
    test, truth = fashion.pictures("t10k")
    held_out, marked = inputs(test), inputs(PUT[artifact](test))

    def figures(correction) -> dict:
        plain, under = (compute_logits(classifier, images, correction).argmax(1) for images in (held_out, marked))
        free = (truth != TARGET) & (plain != TARGET)
        own = truth == TARGET
        return {
            "flips": float((under[free] == TARGET).mean()), "under": float((under == truth).mean()),
            "accuracy": float((plain == truth).mean()), "class": float((plain == truth)[own].mean()),
        }  # fmt: skip

    result = {"seed": seed, "artifact": artifact, "width": width, "nothing": figures(None)}
    for method in (*correction_choice.CANDIDATES, AUTOMATIC):
        data = FittingData(classifier, TARGET, parts[0], place, seed=seed)
        trial, other = (CorrectionTest(classifier, part, TARGET, place, seed) for part in parts[1:])
        start = time.time()
        choice = correction_choice.choose_correction(data, trial, CleanSettings(method=method, seed=seed))
        seconds, shown = time.time() - start, other.evaluate(choice.correction)
        result[method] = figures(choice.correction) | {
            "chosen": str(choice.chosen), "within": choice.chosen.within_bounds, "seconds": seconds,
            "tried": len(choice.tried), "announced": [choice.chosen.outcome.harm.value, shown.harm.value],
        }  # fmt: skip
    return result


def table(runs: list[dict]) -> None:
    """One line for each artifact and width, means over seeds."""
    methods = (*correction_choice.CANDIDATES, AUTOMATIC)
    print(f"\n| network, artifact | nothing | {' | '.join(methods)} | chosen by {AUTOMATIC} |")
    print(f"|---|{'---|' * (len(methods) + 2)}")
    for width in WIDTHS:
        for artifact in PUT:
            some = [run for run in runs if (run["width"], run["artifact"]) == (width, artifact)]
            if not some:
                continue
            cells = []
            for name in ("nothing", *methods):
                flips = 100 * np.mean([run[name]["flips"] for run in some])
                lost = [100 * (run["nothing"][k] - run[name][k]) for run in some for k in ("accuracy",)]
                cells.append(f"{flips:.1f}" + ("" if name == "nothing" else f" ({np.mean(lost):+.2f})"))
            chosen = "; ".join(run[AUTOMATIC]["chosen"] for run in some)
            print(f"| {width}, {artifact} | {' | '.join(cells)} | {chosen} |")
    for name in methods:
        left = [max(run[name]["flips"], 0) / run["nothing"]["flips"] for run in runs if run["nothing"]["flips"] > 0.02]
        best = [min(run[m]["flips"] for m in correction_choice.CANDIDATES) for run in runs]
        over = [run[name]["flips"] - b for run, b in zip(runs, best, strict=True)]
        lost = [100 * (run["nothing"]["accuracy"] - run[name]["accuracy"]) for run in runs]
        print(
            f"{name}: flips left {100 * np.mean(left):.1f} % on average, {100 * np.max(left):.1f} at most; "
            f"{100 * np.mean(over):.1f} points above the best method's, {100 * np.max(over):.1f} at most; "
            f"lost {np.mean(lost):.2f} points, {np.max(lost):.2f} at most; "
            f"{np.mean([run[name]['seconds'] for run in runs]):.0f} s"
        )
        told, true = (100 * np.mean([r[name]["announced"][i] for r in runs]) for i in (0, 1))
        print(
            f"    loss where it was chosen {told:+.2f} points, on others {true:+.2f}, on the test {np.mean(lost):+.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--widths", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--artifacts", nargs="+", choices=PUT, default=list(PUT))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    done = {(run["seed"], run["artifact"], run["width"]) for run in found}
    for seed in asked.seeds:
        for width in asked.widths:
            for artifact in asked.artifacts:
                if (seed, artifact, width) not in done:
                    found.append(one(seed, artifact, width))
                    with asked.json.open("a") as lines:
                        lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
