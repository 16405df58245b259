"""The paper's setting on real pictures: a tag on some T-shirts, labels as targets, pixel maps against head relevance.

    python benchmarks/audit/tagged_fashion.py --seeds 3 --shares 0.3 0.1 0.05
    python benchmarks/audit/tagged_fashion.py --shares 0.3 0.05 0.02 --each 1300 --metric euclidean wasserstein-t

Prints, for each share of tagged T-shirts and each metric, the rank of "T-shirt" among the ten classes and the F1 of
its cluster against the tags, one number a seed; and first whether the network uses the tag at all. The network learns
all pictures; the first 12,000 are audited, or the first of every class (`--each`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results import ranking

sys.path.insert(0, str(Path(__file__).parent))
import fashion

METRICS = ("euclidean", "concept", "features")


@dataclass(frozen=True)
class Lesson:
    """Fashion-MNIST with a tag on a share of one class, and a network that learned it.

    Attributes:
        x, y: uint8 (60000, 28, 28) and int64 (60000,).
        tags: bool (60000,), which pictures carry the tag.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    tags: NDArray[np.bool_]
    net: nn.Module

    @classmethod
    def of(cls, share: float, seed: int, label: int = 0, kept: Path | None = None) -> Lesson:
        """Learned now, or before where networks are kept in a folder."""
        rng = np.random.default_rng(seed)
        x, y = fashion.pictures("train")
        own = np.flatnonzero(y == label)
        tags = np.zeros(len(x), bool)
        tags[rng.choice(own, round(share * len(own)), replace=False)] = True
        x = np.where(tags[:, None, None], fashion.tagged(x), x)
        file = kept / f"{fashion.CLASSES[label]}-{share:g}-{seed}.pt" if kept else None
        if file is None or not file.exists():
            net = fashion.trained(x, y, seed)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save(net.state_dict(), file)
            return cls(x, y, tags, net)
        net = fashion.network(seed)
        net.load_state_dict(torch.load(file))
        return cls(x, y, tags, net.eval())

    def first(self, each: int) -> NDArray[np.intp]:
        """The first pictures of every class, in their order."""
        return np.sort(np.concatenate([np.flatnonzero(self.y == label)[:each] for label in range(10)]))


def one(share: float, seed: int, asked: argparse.Namespace, folder: Path) -> dict[str, object]:
    lesson = Lesson.of(share, seed, kept=asked.networks)
    net, rows = lesson.net, lesson.first(asked.each) if asked.each else np.arange(asked.images)
    test, truth = fashion.pictures("t10k")
    others = truth != 0
    flips = [(fashion.answers(net, seen[others]) == 0).mean() for seen in (test, fashion.tagged(test))]
    fashion.write(folder / "corpus", lesson.x[rows], lesson.y[rows])
    settings = AuditSettings(
        model="object", data=str(folder / "corpus"), metric=tuple(asked.metric), batch=128, unit=1024, seed=seed
    )
    classifier = load_model(net, classes=fashion.CLASSES)
    audit = audit_inputs.Audit.of(settings, classifier)
    store = pipeline.open_run(audit, folder / "run")
    with store.lock():
        relevance_step.attribute(audit, store, workers=1, own=classifier)
        pipeline.analyse(audit, store, workers=1)
    return {
        "share": share,
        "seed": seed,
        "accuracy": float((fashion.answers(net, test) == truth).mean()),
        "called T-shirt": [float(f) for f in flips],
        "found": {metric: found(store, metric, lesson.tags[rows]) for metric in asked.metric},
    }


def found(store, metric, tags):
    """Rank of the tagged class under one metric, and F1 of its cluster."""
    paths = store.table("corpus")["path"].to_pylist()
    lines = store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist()
    order = ranking.rank_by_z([ranking.Entry.from_record(line, paths) for line in lines if line["rows"]])
    entry = order.of("T-shirt")
    member = np.zeros(len(tags), bool)
    member[[int(Path(path).stem) for path in entry.members]] = True
    f1 = 2 * (member & tags).sum() / (member.sum() + tags.sum())
    return {"rank": order.entries.index(entry) + 1, "z": entry.z, "f1": float(f1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.1, 0.05])
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--each", type=int, help="pictures of every class, in place of --images")
    parser.add_argument("--metric", nargs="+", default=METRICS)
    parser.add_argument("--networks", type=Path, help="a folder to keep trained networks in")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for share in asked.shares:
        for seed in range(asked.seeds):
            with tempfile.TemporaryDirectory() as folder:
                results.append(one(share, seed, asked, Path(folder)))
            print(json.dumps(results[-1]), flush=True)
    print("\n| tagged | others called T-shirt, plain / tagged | metric | rank | F1 |\n|---|---|---|---|---|")
    for share in asked.shares:
        runs = [r for r in results if r["share"] == share]
        use = np.mean([r["called T-shirt"] for r in runs], 0)
        for metric in asked.metric:
            ranks = " ".join(str(r["found"][metric]["rank"]) for r in runs)
            scores = " ".join(f"{r['found'][metric]['f1']:.2f}" for r in runs)
            print(f"| {share:.0%} | {use[0]:.1%} / {use[1]:.1%} | {metric} | {ranks} | {scores} |")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
