"""The shortcut of the class "carton", screened for all 1,000 classes, over several seeds: rank of "carton", F1, uplift
before and after, agreement, with a baseline and controls; every run reported. Corpora are those of `klarsicht demo`.

python benchmarks/audit/demo_seeds.py --seeds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from klarsicht.audit import demo
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layer
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator


def one(seed: int, images: int, workers: int) -> dict:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        corpus, classifier = demo.DemoCorpus.make(Path(folder), seed, images), load_model(demo.MODEL_NAME)
        settings = AuditSettings(model=demo.MODEL_NAME, data=str(corpus.manifest), target="all", seed=seed, unit=64)
        store = pipeline.run(settings, Path(folder) / "run", workers=workers)
        audit, order = Audit.of(settings, classifier), ranking.read_ranking(store)
        fit = sample_of(audit, member_of(order.of(demo.CARTON), images))
        corrections = make_corrections(classifier, fit, seed)
        return {
            "seed": seed,
            "audit": score_ranking(order, corpus.with_mark),
            "baseline": score_ranking(rank_by_features(audit, store), corpus.with_mark),
            "effects": [asdict(one) for one in demo.evaluate_corrections(classifier, corrections, corpus.held_out)],
            "seconds": time.monotonic() - began,
        }


def score_ranking(order: Ranking, with_mark: np.ndarray) -> dict:
    """Compare the entry of "carton" with the best other entry, and its cluster with the planted marks."""
    entry, other = order.of(demo.CARTON), next(e for e in order if e.name != demo.CARTON)
    place = {"rank": order.entries.index(entry) + 1, "z": entry.z, "runner_up": other.name, "runner_up_z": other.z}
    return place | asdict(demo.Agreement.of(entry, with_mark))


def member_of(entry: Entry, n: int) -> np.ndarray:
    """Mark the members of a cluster among n images, bool (n,)."""
    return np.isin(np.arange(n), entry.rows)


def rank_by_features(audit: Audit, store: RunStore) -> Ranking:
    """Rank the classes by penultimate features without relevance, the baseline of the screening."""
    by_head = pipeline.make_analyses(audit, store)["concept"]
    by_features = replace(by_head, metric="features")
    paths = audit.corpus.paths
    return ranking.rank_by_z([Entry.from_record(by_features.record(group), paths) for group in by_head.groups])


def sample_of(audit: Audit, member: np.ndarray) -> Sample:
    """Collect the audited images as a sample, with members by the audit's cluster and not by the ground truth."""
    images = [
        audit.classifier.image(picture)
        for _, picture in decode_rows(audit.corpus, range(len(audit.corpus)))
        if isinstance(picture, Image.Image)
    ]
    return Sample(images, member, audit.corpus.source_numbers, np.full(len(images), -1))


def make_corrections(classifier: Classifier, fit: Sample, seed: int) -> dict:
    """Make the corrections and the controls, at the input of the last block."""
    layer, target = correction_layer(classifier.module), (classifier.classes or ()).index(demo.CARTON)
    bench, setting = FittingData(classifier, target, fit, None, seed=seed), CorrectionParameters(layer)
    wrong = replace(fit, member=generator(seed, "controls").permutation(fit.member))
    return {
        "nothing": None,
        "project": CLOSED["project"].make(bench, setting),
        "oblique": CLOSED["oblique"].make(bench, setting),
        "random direction": CLOSED["random"].make(bench, setting),
        "wrong cluster": CLOSED["project"].make(replace(bench, fit=wrong), setting),
    }


def line(story: dict) -> str:
    a, b = story["audit"], story["baseline"]
    effect = {e["correction"]: e for e in story["effects"]}
    kept = effect["project"]
    return (
        f"| {story['seed']} | {a['rank']} | {a['z']:.1f} | {a['runner_up']} {a['runner_up_z']:.1f} | {a['f1']:.2f} "
        f"| {b['rank']} / {b['f1']:.2f} | {effect['nothing']['uplift']:.1f} | {kept['uplift']:.1f} "
        f"| {effect['random direction']['uplift']:.1f} | {effect['wrong cluster']['uplift']:.1f} "
        f"| {kept['agreement']:.3f} ({kept['agreement_low']:.3f} to {kept['agreement_high']:.3f}) "
        f"| {story['seconds']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    print(
        "| seed | rank | z | next class, its z | F1 | baseline rank / F1 | uplift before | projected "
        "| random direction | wrong cluster | agreement (95 %) | s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    stories = []
    for seed in range(asked.seeds):
        stories.append(one(seed, asked.images, asked.workers))
        print(line(stories[-1]), flush=True)
    f1 = [story["audit"]["f1"] for story in stories]
    after = [e["uplift"] for story in stories for e in story["effects"] if e["correction"] == "project"]
    print(f"\nmedian rank {statistics.median(s['audit']['rank'] for s in stories)}, ", end="")
    print(f"F1 median {statistics.median(f1):.2f}, worst {min(f1):.2f}; ", end="")
    print(f"uplift after: median {statistics.median(after):.2f}")
    if asked.json:
        asked.json.write_text(json.dumps(stories, indent=2))


if __name__ == "__main__":
    main()
