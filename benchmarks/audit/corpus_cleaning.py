"""A model trained again on a cleaned corpus: is it free of the shortcut, and as good as if there had been none?

    python benchmarks/audit/corpus_cleaning.py --seeds 3 --json corpus.jsonl
    python benchmarks/audit/corpus_cleaning.py --imagenet32 IMAGENET32 --seeds 3 --epochs 12 --json corpus32.jsonl

For each seed a network is trained on pictures of which 30 % of one class (T-shirts; of ImageNet-32 the first of twenty
classes drawn) carry a tag. The audit names a cluster, `audit clean-data` drops its images and all others that its
detector takes for carriers, or inpaints them, and the same network is trained on the new manifest. Its twin is trained
on the pictures as they were before any tag. All figures are of test pictures (10,000; of ImageNet-32 2,000), as in
benchmarks/audit/cleaning/models.py; rank is that of the class in an audit by head relevance of what each network was
trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.cleaning.data.clean_data import CleanedCorpus, clean_data
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results.ranking import Ranking
from klarsicht.numerics.statistics.intervals import mean_interval, student_quantile
from klarsicht.numerics.statistics.paired_loss import paired_loss

sys.path.insert(0, str(Path(__file__).parent))
import fashion
import planted_classes
import resumed_seeds
from cleaning import TARGET, told

ACTIONS = ("drop", "inpaint")
Pictures = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """Pictures uint8 (n, H, W) or (n, H, W, 3) to train and to test on, and how.

    Attributes:
        put: a tag on pictures. fitted: (pictures, labels, seed, epochs) -> a network. answers: its labels.
    """

    classes: tuple[str, ...]
    x: Pictures
    y: Labels
    test: Pictures
    truth: Labels
    put: Callable[[Pictures], Pictures]
    fitted: Callable[[Pictures, Labels, int, int], torch.nn.Module]
    answers: Callable[[torch.nn.Module, Pictures], Labels]

    def write(self, folder: Path, x: Pictures) -> None:
        """An ImageFolder of the pictures to train on; file names are row numbers."""
        for name in self.classes:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for i, (picture, label) in enumerate(zip(x, self.y, strict=True)):
            Image.fromarray(picture).save(folder / self.classes[label] / f"{i:05d}.png")


def fashion_mnist(count: int) -> Material:
    """The first of its pictures."""
    x, y = (part[:count] for part in fashion.pictures("train"))
    return Material(fashion.CLASSES, x, y, *fashion.pictures("t10k"), fashion.tagged, fashion.trained, fashion.answers)


def imagenet32(folder: Path, seed: int, classes: int = 20, trained: int = 400) -> Material:
    """Classes of ImageNet at 32 pixels, drawn by the seed; the tag is one of five by five pixels near a corner."""
    names, images = planted_classes.classes(folder, classes, seed)
    parts = (images[:, :trained], images[:, trained:])
    (x, y), (test, truth) = (
        (part.reshape(-1, *part.shape[2:]), np.repeat(np.arange(classes), part.shape[1])) for part in parts
    )

    def put(levels: Pictures) -> Pictures:
        rng = np.random.default_rng(seed)
        return np.stack([planted_classes.put("fixed", image, seed, rng) for image in levels])

    def answers(net: torch.nn.Module, levels: Pictures) -> Labels:
        return planted_classes.logits(net, levels).argmax(1)

    return Material(tuple(names), x, y, test, truth, put, planted_classes.fitted, answers)


def cleaned(found: CleanedCorpus, classes: tuple[str, ...], mode: str) -> tuple[Pictures, Labels]:
    """Pictures and labels of the new corpus, in the order of the old file names."""
    lines = sorted((line for line in found.lines if line.in_new_corpus), key=lambda line: Path(line.path).stem)
    pictures = [np.asarray(Image.open(found.folder / line.new_path).convert(mode)) for line in lines]
    return np.stack(pictures), np.array([classes.index(line.new_label) for line in lines])


def audited(net: torch.nn.Module, data: Path, out: Path, classes: tuple[str, ...] = fashion.CLASSES, **more) -> Ranking:
    """The ranking of an audit, without its page."""
    classifier = load_model(net, classes=classes)
    audit = audit_inputs.Audit.of(
        AuditSettings(model="object", data=str(data), batch=128, unit=1024, **more), classifier
    )
    store = pipeline.open_run(audit, out)
    with store.lock():
        relevance_step.attribute(audit, store, workers=1, own=classifier)
        pipeline.analyse(audit, store, workers=1)
        return pipeline.write_ranking(audit, store)


def one(seed: int, asked: argparse.Namespace, folder: Path) -> dict:
    m = imagenet32(asked.imagenet32, seed) if asked.imagenet32 else fashion_mnist(asked.pictures)
    name = m.classes[TARGET]
    own = np.flatnonzero(m.y == TARGET)
    carries = np.zeros(len(m.x), bool)
    carries[np.random.default_rng(seed).choice(own, round(asked.share * len(own)), replace=False)] = True
    planted = m.x.copy()
    planted[carries] = m.put(m.x[carries])
    for where, seen in (("planted", planted), ("plain", m.x)):
        m.write(folder / where, seen)
    marked = m.put(m.test)

    def shown(seen: Pictures, labels: Labels, data: Path, what: str) -> tuple[dict, NDArray[np.bool_], torch.nn.Module]:
        net = m.fitted(seen, labels, seed, asked.epochs)
        plain = m.answers(net, m.test)
        order = audited(net, data, folder / f"run-{what}", m.classes, method=HEAD_RELEVANCE, seed=seed)
        facts = told(m.truth, plain, m.answers(net, marked))
        facts |= {"rank": order.entries.index(order.of(name)) + 1, "z": order.of(name).z}
        print(json.dumps({what: facts}), flush=True)
        return facts, plain == m.truth, net

    result: dict = {"seed": seed, "class": name}
    result["nothing"], _, net = shown(planted, m.y, folder / "planted", "nothing")
    result["twin"], good, _ = shown(m.x, m.y, folder / "plain", "twin")
    audited(net, folder / "planted", folder / "run", m.classes, metric=("euclidean",), seed=seed)
    classifier = load_model(net, classes=m.classes)
    mode = "L" if m.x.ndim == 3 else "RGB"
    for action in ACTIONS:
        found = clean_data(folder / "run", folder / action, action, name=name, classifier=classifier)
        treated = np.isin(np.arange(len(m.x)), [int(Path(li.path).stem) for li in found.lines if li.action == action])
        facts, right, _ = shown(*cleaned(found, m.classes, mode), found.manifest, action)
        lost = paired_loss(good, right)
        result[action] = facts | {
            "treated": int(treated.sum()),
            "precision": float(carries[treated].mean()),
            "recall": float(treated[carries].mean()),
            "lost": [lost.value, lost.low, lost.high],
        }
    return result


def table(results: list[dict]) -> None:
    def cell(values: list[float]) -> str:
        found = mean_interval(100 * np.array(values), student_quantile(len(values))) if len(values) > 1 else None
        half = f" +- {found.high - found.value:.1f}" if found else ""
        return f"{100 * np.mean(values):.1f}{half}"

    print(
        "\n| trained on | accuracy | of the class | flips | worst | under | lost to the twin | rank of the class (z) |"
    )
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
    parser.add_argument("--imagenet32", type=Path, help="its folder: photographs in place of Fashion-MNIST")
    parser.add_argument("--pictures", type=int, default=6000, help="of Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table(resumed_seeds.results(asked.json, asked.seeds, lambda seed, folder: one(seed, asked, folder)))


if __name__ == "__main__":
    main()
