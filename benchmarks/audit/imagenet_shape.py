"""An audit of ImageNet's shape without the network: 1,000 classes x 1,300 relevance maps to a ranking, from a tenth.

    python benchmarks/audit/imagenet_shape.py --classes 10 100 --metric euclidean

Attribution is left out: a run folder is filled with made-up relevance at 32 x 32 pixels (float16, as runs keep it) and
1,000 logits an image, then `pipeline.analyse` and `pipeline.rank` do what they do in `audit run`. Each map has three
blobs anywhere, on noise; in every tenth class one map in twenty carries a tag of three pixels in a corner, which raises
the logit of its class by two deviations. Each number of classes runs in a process of its own with one thread, after a
small class that compiles and loads.

Processor time grows with the number of classes, each of which is a work unit: it is multiplied. Memory grows by what
tables keep of every image: the line through the two largest runs is drawn on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from growth import THREADS, f1, held, settled

CLASSES, EACH, SIDE, OUTPUTS = 1000, 1300, 32, 1000
EVERY, SHARE, SEED = 10, 0.05, 0


def relevance(count: int, tagged: Any, rng: Any) -> Any:
    """float16 (count, SIDE, SIDE), as shares of the largest value."""
    import numpy as np

    at = np.arange(SIDE)
    size = rng.uniform(1.5, 4, (count, 3, 1))
    down, right = (np.exp(-(((at - rng.uniform(4, SIDE - 4, (count, 3, 1))) / size) ** 2) / 2) for _ in range(2))
    made = np.einsum("nby,nbx->nyx", down, right) + np.abs(rng.normal(0, 0.02, (count, SIDE, SIDE)))
    made[tagged, 1:4, 1:4] += made[tagged].sum((1, 2))[:, None, None] / 9
    return (made / made.max((1, 2), keepdims=True)).astype(np.float16)


def filled(folder: Path, classes: int, each: int, metrics: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """An audit, its run folder as attribution leaves it, and which images are tagged."""
    import numpy as np
    from torch import nn

    from klarsicht.audit.explanation.data.corpus import Corpus
    from klarsicht.audit.explanation.models import classifier
    from klarsicht.audit.explanation.relevance import attribution
    from klarsicht.audit.explanation.settings import AuditSettings
    from klarsicht.audit.explanation.steps import audit_inputs
    from klarsicht.ground.run_folder.store import RunStore

    names = tuple(f"{c:04d}" for c in range(OUTPUTS))
    images = tuple(f"{name}/{i:04d}" for name in names[:classes] for i in range(each))
    corpus = Corpus(images, images, tuple(image[:4] for image in images))
    settings = AuditSettings(model="object", data="none", metric=metrics, seed=SEED)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, OUTPUTS))
    audit = audit_inputs.Audit(settings, corpus, classifier.load_model(network, classes=names))
    store = RunStore.create(folder, settings=settings.model_dump(mode="json"), identity={})
    rng, n = np.random.default_rng(SEED), len(corpus)
    store.create_array("maps", (n, SIDE, SIDE), np.float16, each, attribution.STEP)
    store.create_array("logits", (n, OUTPUTS), np.float32, each, attribution.STEP)
    tags = np.zeros((classes, each), bool)
    for c in range(classes):
        tags[c] = (rng.random(each) < SHARE) & (c % EVERY == 0)
        logits = rng.standard_normal((each, OUTPUTS), np.float32)
        logits[:, c] += 5 + 2 * tags[c]
        written = store.write_rows("maps", c * each, relevance(each, tags[c], rng))
        written |= store.write_rows("logits", c * each, logits)
        facts = attribution.FACTS | {"predicted": c, "target": c}
        columns = {name: [value] * each for name, value in facts.items()}
        written |= store.write_part(attribution.IMAGES, c, {"row": list(range(c * each, (c + 1) * each))} | columns)
        store.mark_done(attribution.STEP, c, written)
    store.update_manifest(steps={attribution.STEP: classes}, names=list(names))
    store.write_table("corpus", corpus.to_table())
    return audit, store, tags.ravel()


def measured(classes: int, metrics: tuple[str, ...]) -> dict[str, float]:
    import numpy as np

    from klarsicht.audit.explanation import pipeline

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as folder:
        audit, store, _ = filled(Path(first), 1, 300, metrics)
        pipeline.analyse(audit, store, 1)
        audit, store, tags = filled(Path(folder), classes, EACH, metrics)
        settled()
        began = time.process_time()
        pipeline.analyse(audit, store, 1)
        analysed = time.process_time()
        ranking = pipeline.write_ranking(audit, store)
        ranked = time.process_time()
        peak = held()
    poisoned = {f"{c:04d}" for c in range(0, classes, EVERY)}
    named = [f1(np.isin(np.arange(len(tags)), entry.rows), tags & _own(tags, entry.target)) for entry in ranking]
    return {
        "analyse": analysed - began,
        "rank": ranked - analysed,
        "peak": peak,
        "tagged classes among as many first": len(poisoned & {e.name for e in ranking[: len(poisoned)]}),
        "least F1 of a tagged class": min(score for score, e in zip(named, ranking, strict=True) if e.name in poisoned),
    }


def _own(tags: Any, target: int) -> Any:
    import numpy as np

    return np.arange(len(tags)) // EACH == target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--metric", nargs="+", default=["euclidean"])
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measured(asked.classes[0], tuple(asked.metric))))
        return
    found = {}
    for classes in sorted(asked.classes):
        command = [sys.executable, __file__, "--alone", "--classes", str(classes), "--metric", *asked.metric]
        environment = os.environ | dict.fromkeys(THREADS, "1")
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        told = found[classes] = json.loads(done.stdout.splitlines()[-1])
        print(f"{classes} classes: " + ", ".join(f"{name} {value:.4g}" for name, value in told.items()), flush=True)
    *_, last = found
    hours = (found[last]["analyse"] + found[last]["rank"]) * CLASSES / last / 3600
    print(f"extrapolated to {CLASSES:,} classes x {EACH:,}: {hours:.2f} CPU hours")
    if len(found) > 1:
        before = sorted(found)[-2]
        slope = max(0.0, found[last]["peak"] - found[before]["peak"]) / (last - before)
        print(f"peak: {found[last]['peak'] + slope * (CLASSES - last):,.0f} MiB")


if __name__ == "__main__":
    main()
