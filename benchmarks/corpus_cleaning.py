"""A model trained again on a cleaned corpus: is it free of the shortcut, and as good as if there had been none?

    python benchmarks/corpus_cleaning.py --seeds 3 --json corpus.jsonl

For each seed a network is trained on pictures of which 30 % of the T-shirts carry a tag. The audit names a cluster,
`audit clean-data` drops its images and all others that its detector takes for carriers, or inpaints them, and the same
network is trained on the new manifest. Its twin is trained on the pictures as they were before any tag. All figures are
of the 10,000 test pictures, as in benchmarks/cleaning.py; rank is that of "T-shirt" in an audit by head relevance of
what each network was trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht.audit import models, pipeline
from klarsicht.audit.corpus_cleaning import CleanedCorpus, clean_data
from klarsicht.audit.ranking import Ranking
from klarsicht.audit.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.numerics.intervals import loss, mean, student

sys.path.insert(0, str(Path(__file__).parent))
import fashion
import resumed_seeds
from cleaning import TARGET, figures

ACTIONS = ("drop", "inpaint")


def cleaned(found: CleanedCorpus) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 28, 28) and labels (N,) of the new corpus, in the order of the old file names."""
    lines = sorted((line for line in found.lines if line.stays), key=lambda line: Path(line.path).stem)
    pictures = [np.asarray(Image.open(found.folder / line.new_path).convert("L")) for line in lines]
    return np.stack(pictures), np.array([fashion.CLASSES.index(line.new_label) for line in lines])


def audited(net: torch.nn.Module, data: Path, out: Path, **more) -> Ranking:
    """The ranking of an audit, without its page."""
    classifier = models.load(net, classes=fashion.CLASSES)
    audit = pipeline.Audit.of(AuditSettings(model="object", data=str(data), batch=128, unit=1024, **more), classifier)
    store = pipeline.opened(audit, out)
    with store.lock():
        pipeline.attribute(audit, store, workers=1, own=classifier)
        pipeline.analyse(audit, store, workers=1)
        return pipeline.rank(audit, store)


def rank(net: torch.nn.Module, data: Path, out: Path, seed: int) -> dict:
    found = audited(net, data, out, method=HEAD_RELEVANCE, seed=seed)
    shirts = found.of("T-shirt")
    return {"rank": found.entries.index(shirts) + 1, "z": shirts.z}


def one(seed: int, asked: argparse.Namespace, folder: Path) -> dict:
    rng = np.random.default_rng(seed)
    x, y = (part[: asked.pictures] for part in fashion.pictures("train"))
    shirts = np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(asked.share * len(shirts)), replace=False)] = True
    planted = np.where(carries[:, None, None], fashion.tagged(x), x)
    for name, seen in (("planted", planted), ("plain", x)):
        fashion.write(folder / name, seen, y)
    test, truth = fashion.pictures("t10k")
    marked = fashion.tagged(test)

    def told(seen, labels, data: Path, name: str) -> tuple[dict, np.ndarray, torch.nn.Module]:
        net = fashion.trained(seen, labels, seed, asked.epochs)
        facts = figures(net, test, marked, truth, None) | rank(net, data, folder / f"run-{name}", seed)
        print(json.dumps({name: facts}), flush=True)
        return facts, fashion.answers(net, test) == truth, net

    result: dict = {"seed": seed}
    result["nothing"], _, net = told(planted, y, folder / "planted", "nothing")
    result["twin"], good, _ = told(x, y, folder / "plain", "twin")
    audited(net, folder / "planted", folder / "run", metric=("euclidean",), seed=seed)
    classifier = models.load(net, classes=fashion.CLASSES)
    for action in ACTIONS:
        found = clean_data(folder / "run", folder / action, action, name="T-shirt", classifier=classifier)
        treated = np.isin(np.arange(len(x)), [int(Path(one.path).stem) for one in found.lines if one.action == action])
        facts, right, _ = told(*cleaned(found), found.manifest, action)
        lost = loss(good, right)
        result[action] = facts | {
            "treated": int(treated.sum()),
            "precision": float(carries[treated].mean()),
            "recall": float(treated[carries].mean()),
            "lost": [lost.value, lost.low, lost.high],
        }
    return result


def table(results: list[dict]) -> None:
    def cell(values: list[float]) -> str:
        found = mean(100 * np.array(values), student(len(values))) if len(values) > 1 else None
        half = f" +- {found.high - found.value:.1f}" if found else ""
        return f"{100 * np.mean(values):.1f}{half}"

    print("\n| trained on | accuracy | of the class | flips | worst | under | lost to the twin | rank of T-shirt (z) |")
    print("|---|---|---|---|---|---|---|---|")
    names = {"nothing": "the tagged corpus", "twin": "pictures never tagged", "drop": "dropped", "inpaint": "inpainted"}
    for name, words in names.items():
        runs = [r[name] for r in results]
        shown = [cell([run[k] for run in runs]) for k in ("accuracy", "class", "flips", "worst", "under")]
        lost = cell([r["twin"]["accuracy"] - r[name]["accuracy"] for r in results])
        ranks = ", ".join(f"{run['rank']} ({run['z']:.1f})" for run in runs)
        print(f"| {words} | {' | '.join(shown)} | {lost} | {ranks} |")
    for action in ACTIONS:
        told = [
            (r[action]["treated"], round(r[action]["precision"], 2), round(r[action]["recall"], 2)) for r in results
        ]
        print(f"{action}: (treated, precision, recall) {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table(resumed_seeds.results(asked.json, asked.seeds, lambda seed, folder: one(seed, asked, folder)))


if __name__ == "__main__":
    main()
