"""Two poisoned classes taken out of a corpus at once, and networks trained again: as good as if there had been none?

    python benchmarks/audit/retrained_classes.py --seeds 40 41 --json retrained.jsonl

Of Fashion-MNIST 30 % of the T-shirts carry a tag and 30 % of the coats a logo. A network is trained on them for the
whole length; `audit run` finds a cluster in each class, and `audit.clean_data` cleans both classes in one call:
carriers are dropped, or weighed by .02 and drawn by `audit.weighted_sampler` in the training loop and on the files of
before. The same network, of the same seed and length, is trained on each, and its twin on the pictures without tag and
logo. Figures are of 10,000 test pictures: accuracy on clean ones; *flips*, of other classes' pictures not taken for the
class, the share that is with its artifact on; *under*, accuracy of other classes with it on. Precision and recall are
those of the images that were treated.

A seed's figures are one line of the JSON file; a seed that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from klarsicht import audit
from klarsicht.audit.explanation.models.classifier import load_model

sys.path.insert(0, str(Path(__file__).parent))
import corpus_cleaning
import fashion
from harm_answers import PUT, SHARE

MARKS = {0: "tag", 4: "logo"}  # T-shirt and coat
WEIGHT = 0.02


def trained(x: NDArray, y: NDArray, seed: int, epochs: int, sampler: Sampler[int] | None = None) -> torch.nn.Module:
    """The network of benchmarks/audit/fashion.py; a sampler draws the pictures of each epoch, one long epoch in all."""
    if sampler is None:
        return fashion.trained(x, y, seed, epochs)
    rows = np.concatenate([list(sampler) for _ in range(epochs)])
    return fashion.trained(x[rows], y[rows], seed, 1)


def figures(net: torch.nn.Module) -> dict:
    x, y = fashion.pictures("t10k")
    plain = fashion.answers(net, x)
    found: dict = {"accuracy": float((plain == y).mean())}
    for target, kind in MARKS.items():
        under = fashion.answers(net, PUT[kind](x))
        free = (y != target) & (plain != target)
        found[kind] = {
            "flips": float((under[free] == target).mean()), "under": float((under == y)[y != target].mean()),
            "class": float((plain == y)[y == target].mean()),
        }  # fmt: skip
    return found


def one(seed: int, pictures: int, epochs: int, folder: Path) -> dict:
    x, y = (part[:pictures] for part in fashion.pictures("train"))
    rng, planted, carries = np.random.default_rng(seed), x.copy(), np.zeros(len(x), bool)
    for target, kind in MARKS.items():
        own = np.flatnonzero(y == target)
        chosen = rng.choice(own, round(SHARE * len(own)), replace=False)
        planted[chosen], carries[chosen] = PUT[kind](x[chosen]), True
    net = trained(planted, y, seed, epochs)
    result = {"seed": seed, "nothing": figures(net), "twin": figures(trained(x, y, seed, epochs))}
    fashion.write(folder / "data", planted, y)
    corpus_cleaning.audited(net, folder / "data", folder / "run", metric=("euclidean",), seed=seed)
    names = [fashion.CLASSES[target] for target in MARKS]
    files = [folder / "data" / fashion.CLASSES[label] / f"{i:05d}.png" for i, label in enumerate(y)]
    for action, more in (("drop", {}), ("weigh", {"weight": WEIGHT})):
        model = load_model(net, classes=fashion.CLASSES)
        found = audit.clean_data(folder / "run", folder / action, action, name=names, classifier=model, **more)
        weights = audit.training_weights(folder / action, files)
        treated, kept = weights < 1, weights > 0
        drawn = None if action == "drop" else audit.weighted_sampler(folder / action, files, seed=seed)
        result[action] = figures(trained(planted[kept], y[kept], seed, epochs, drawn)) | {
            "treated": int(treated.sum()), "precision": float(carries[treated].mean()),
            "recall": float(treated[carries].mean()), "left out": found.left_out,
        }  # fmt: skip
        print(json.dumps(result), file=sys.stderr)
    return result


def table(runs: list[dict]) -> None:
    print("\n| trained on | accuracy | flips by the tag, the logo | under the tag, the logo | precision, recall |")
    print("|---|---|---|---|---|")
    words = {"nothing": "the corpus as it is", "twin": "pictures never marked", "drop": "dropped", "weigh": "weighed"}
    for who, told in words.items():
        some = [run[who] for run in runs]
        accuracy = f"{100 * np.mean([one['accuracy'] for one in some]):.1f}"
        cells = [
            ", ".join(f"{100 * np.mean([one[kind][what] for one in some]):.1f}" for kind in MARKS.values())
            for what in ("flips", "under")
        ]
        known = [", ".join(f"{np.mean([one[k] for one in some]):.2f}" for k in ("precision", "recall"))]
        print(f"| {told} | {' | '.join([accuracy, *cells, *(known if 'recall' in some[0] else [''])])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[40, 41])
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    for seed in asked.seeds:
        if seed not in {run["seed"] for run in found}:
            with tempfile.TemporaryDirectory() as folder:
                found.append(one(seed, asked.pictures, asked.epochs, Path(folder)))
            with asked.json.open("a") as lines:
                lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
