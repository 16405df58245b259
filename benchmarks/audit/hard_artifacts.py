"""Two artifacts in one class, and one that is no artifact: what the class looks like.

    python benchmarks/audit/hard_artifacts.py two --seeds 2 --json two.jsonl
    python benchmarks/audit/hard_artifacts.py evidence --seeds 3 --json evidence.jsonl

*two*: a tag on a fifth of the T-shirts and a border on another fifth. The audit's cluster is erased, the corrected
model is audited again, and its cluster is erased as well. After each step: how many test pictures of other classes each
artifact turns into T-shirts, and what each cluster holds.

*evidence*: a network that learned no shortcut. A person lists a third of the T-shirts, drawn at random, and marks the
middle of the picture, where a T-shirt is. No correction can take that away and keep the class: each must be refused, as
harmful or as no help.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht.audit.cleaning.corrections import corrected_model
from klarsicht.audit.cleaning.models import clean_model, evaluation
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE
from klarsicht.ground.errors import KlarsichtError

sys.path.insert(0, str(Path(__file__).parent))
import fashion
import resumed_seeds
from cleaning import TARGET, bordered, figures
from corpus_cleaning import audited

PUT = {"tag": fashion.tagged, "border": bordered}
METHODS = ("oblique", "project", "reactive", "augment", "penalise", "dfr")
AUDITED = 3000


def two(seed: int, folder: Path) -> dict:
    rng = np.random.default_rng(seed)
    x, y = (part[:20000] for part in fashion.pictures("train"))
    shirts = rng.permutation(np.flatnonzero(y == TARGET))
    fifth = len(shirts) // 5
    carries = {"tag": shirts[:fifth], "border": shirts[fifth : 2 * fifth]}
    planted = x.copy()
    for name, rows in carries.items():
        planted[rows] = PUT[name](x[rows])
    fashion.write(folder / "corpus", planted[:AUDITED], y[:AUDITED])
    net = fashion.trained(planted, y, seed)
    test, truth = fashion.pictures("t10k")

    def told(module: torch.nn.Module) -> dict:
        found = {name: figures(module, test, put(test), truth, None) for name, put in PUT.items()}
        return {"accuracy": found["tag"]["accuracy"]} | {name: facts["flips"] for name, facts in found.items()}

    steps, classifier = [told(net)], load_model(net, classes=fashion.CLASSES)
    for step in ("first", "second"):
        order = audited(classifier.module, folder / "corpus", folder / step, metric=("euclidean",), seed=seed)
        entry = order.of("T-shirt")
        numbers = [int(Path(path).stem) for path in entry.members]
        held = {name: float(np.isin(numbers, rows).mean()) for name, rows in carries.items()}
        settings = CleanSettings(seed=seed, images=600)
        cleaned = clean_model.clean(folder / step, "T-shirt", settings, out=folder / f"{step}-c", classifier=classifier)
        classifier = corrected_model.corrected_classifier(classifier, cleaned.folder)
        chosen = asdict(cleaned.choice.chosen.setting)
        steps.append(told(classifier.module) | {"rank": order.entries.index(entry) + 1, "cluster": held} | chosen)
        print(json.dumps(steps[-1]), flush=True)
    return {"seed": seed, "steps": steps}


def evidence(seed: int, folder: Path) -> dict:
    rng = np.random.default_rng(seed)
    x, y = (part[:20000] for part in fashion.pictures("train"))
    net = fashion.trained(x, y, seed)
    classifier = load_model(net, classes=fashion.CLASSES)
    fashion.write(folder / "corpus", x[:AUDITED], y[:AUDITED])
    audited(net, folder / "corpus", folder / "run", method=HEAD_RELEVANCE, seed=seed)
    shirts = np.flatnonzero(y[:AUDITED] == TARGET)
    listed = rng.choice(shirts, len(shirts) // 3, replace=False)
    (folder / "list.txt").write_text("\n".join(f"T-shirt/{i:05d}.png" for i in listed))
    middle = np.zeros((28, 28), np.uint8)
    middle[4:24, 6:22] = 255
    Image.fromarray(middle).save(folder / "middle.png")
    verdicts: dict = {"seed": seed}
    for method in METHODS:
        settings = CleanSettings(method=method, seed=seed)
        given = {"members": folder / "list.txt", "mask": folder / "middle.png", "classifier": classifier}
        try:
            found = clean_model.clean(folder / "run", "T-shirt", settings, out=folder / method, **given)
            seen = evaluation.evaluate(folder / "run", found.folder, classifier=classifier)
            verdicts[method] = seen.verdict
        except KlarsichtError as error:
            verdicts[method] = f"refused ({error})"
        print(json.dumps({method: verdicts[method]}), flush=True)
    return verdicts


def shown(case: str, results: list[dict]) -> None:
    if case == "evidence":
        for method in METHODS:
            print(method, dict(Counter(r[method].partition(" (")[0].partition(",")[0] for r in results)))
        return
    print("| seed | step | cluster: tags, borders | flips by the tag | by the border | accuracy |")
    print("|---|---|---|---|---|---|")
    for r in results:
        for step, s in zip(("as it is", "first", "second"), r["steps"], strict=True):
            held = "{tag:.0%}, {border:.0%}".format(**s["cluster"]) if "cluster" in s else ""
            print(f"| {r['seed']} | {step} | {held} | {s['tag']:.1%} | {s['border']:.1%} | {s['accuracy']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("two", "evidence"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shown(asked.case, resumed_seeds.results(asked.json, asked.seeds, {"two": two, "evidence": evidence}[asked.case]))


if __name__ == "__main__":
    main()
