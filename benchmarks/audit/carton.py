"""The network's own shortcut, found by intervention: EfficientNet-Lite0 takes Chinese characters for a carton.

    python benchmarks/audit/carton.py PHOTOGRAPHS --seeds 0 1 2
    python benchmarks/audit/carton.py PHOTOGRAPHS --seeds 0 1 2 --share 0

PHOTOGRAPHS is a folder of photographs of many classes (500 of ImageNet here). Characters are drawn on a quarter of
those that a seed draws; nobody tells the audit which. It screens them for "carton", chooses a cluster by what its
images' parts do on other images, and says how much that raises each of the 1,000 outputs. Beside it: what characters do
that are drawn anew on the same images, which no audit can be expected to exceed.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.analysis import Analysis
from klarsicht.audit.explanation.steps import audit_inputs
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Experiment
from klarsicht.audit.verdicts.interventions.regions import DONORS_PER_IMAGE, SEARCH_BACKGROUNDS
from klarsicht.audit.verdicts.quantification import opened_runs, screening
from klarsicht.audit.verdicts.quantification.cluster_units import ClusterInterventionUnits
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS as MEASURED
from klarsicht.audit.verdicts.quantification.units import predictor
from klarsicht.audit.verdicts.synthetic import artifacts, glyphs
from klarsicht.ground.seeding import generator

MODEL, CARTON, SIDE = "efficientnet-lite0", "carton", 224
ASIDE = 10  # photographs on which the method of relevance was chosen: never audited


def photographs(folder: Path, count: int, seed: int) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    kept = np.random.default_rng(0).permutation(len(files))[:-ASIDE]
    drawn = np.random.default_rng(1 + seed).choice(kept, min(count, len(kept)), replace=False)
    return [files[i] for i in np.sort(drawn)]


def square(path: Path) -> np.ndarray:
    """The middle of a photograph (224, 224, 3)."""
    picture = Image.open(path).convert("RGB")
    side, (w, h) = min(picture.size), picture.size
    box = ((w - side) // 2, (h - side) // 2, (w + side) // 2, (h + side) // 2)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def write(files: list[Path], share: float, seed: int, out: Path, alphabet=glyphs.GLYPHS) -> np.ndarray:
    """The corpus, and which of its photographs (n,) are marked."""
    rng = np.random.default_rng(1000 + seed)
    marked = np.zeros(len(files), bool)
    marked[rng.choice(len(files), round(share * len(files)), replace=False)] = True
    with (out / "photographs.csv").open("w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["path", "label"])
        for i, (path, is_marked) in enumerate(zip(files, marked, strict=True)):
            pixels = square(path)
            shown = artifacts.glyphs(pixels, rng, alphabet=alphabet).pixels if is_marked else pixels
            Image.fromarray(shown).save(out / f"{i:03d}.png")
            lines.writerow([f"{i:03d}.png", label(path)])
    return marked


def label(path: Path) -> str:
    """The class of a photograph, as the network names it."""
    return path.stem.partition("_")[2].replace("_", " ")


def f1(member: np.ndarray, marked: np.ndarray) -> float:
    return float(2 * (member & marked).sum() / max(member.sum() + marked.sum(), 1))


def of_rows(rows, n: int) -> np.ndarray:
    member = np.zeros(n, bool)
    member[list(rows)] = True
    return member


def best(analysis: Analysis, marked: np.ndarray) -> float:
    """F1 of the best candidate there is, picked with the marks in hand."""
    (group,) = analysis.groups
    compared = analysis.comparable(group)
    found = analysis.clustering(compared).members
    return max((f1(of_rows(compared.rows[one], len(marked)), marked) for one in found), default=0.0)


def corpus(folder: Path, seed: int, count: int, share: float, out: Path) -> np.ndarray:
    """As `write`, or as it was written before."""
    known = out / "marked.npy"
    if not known.is_file():
        out.mkdir(parents=True, exist_ok=True)
        np.save(known, write(photographs(folder, count, seed), share, seed, out))
    return np.load(known)


def drawn(run: Path, classifier: Classifier, seed: int) -> ComparedEffect:
    """What characters do, drawn anew on the images that the audit put its parts on."""
    with opened_runs.open_run(
        run, level=0.05, workers=1, data=None, classifier=classifier, grouped=screening.whole_corpus_group
    ) as (audit, work):
        trial = ClusterInterventionUnits(work, tuple(pipeline.make_analyses(audit, work.store).values()))
        rows = generator(seed, trial.step, 0).permutation(trial.background_rows(0))[
            SEARCH_BACKGROUNDS : SEARCH_BACKGROUNDS + MEASURED
        ]
        x, rng = work.input_images(rows), np.random.default_rng(2000 + seed)
        marked = [np.stack([artifacts.glyphs(image, rng).pixels for image in x]) for _ in range(DONORS_PER_IMAGE)]
        with predictor(work) as predict:
            scale = work.input_images.pixel_scale
            before, after = predict(scale.inputs(x)), [predict(scale.inputs(one)) for one in marked]
        return Experiment(np.stack(after), before, work.groups[0].target).effect(before)


def flat(effect: ComparedEffect) -> dict:
    """The figures, with the ends of intervals beside their values."""
    ends = {"margin": effect.margin.value, "margin_low": effect.margin.low, "margin_high": effect.margin.high}
    return asdict(effect) | {"shift": effect.rise.value} | ends


def one(folder: Path, seed: int, count: int, share: float, method: str, out: Path) -> dict:
    began = time.process_time()
    marked = corpus(folder, seed, count, share, out)
    settings = AuditSettings(
        model=MODEL, data=str(out / "photographs.csv"), target=CARTON, seed=seed, method=method,
        metric=("concept", "euclidean", "features"),
    )  # fmt: skip
    classifier = load_model(MODEL)
    store = pipeline.run(settings, out / "run", classifier=classifier)
    told = {line.metric: line for line in analyses_of(store)}
    found = screening.screen(out / "run", classifier=classifier)
    ceiling = {
        m: best(a, marked)
        for m, a in pipeline.make_analyses(audit_inputs.Audit.of(settings, classifier), store).items()
    }
    entry, truth = found.entry, drawn(out / "run", classifier, seed)
    return {
        "seed": seed,
        "photographs": count,
        "marked": int(marked.sum()),
        "method": method,
        "rank": entry.effect.rank + 1,
        "outputs": found.outputs,
        "rise": [entry.effect.shift, entry.effect.low, entry.effect.high],
        "next": entry.effect.runner_up,
        "z": entry.effect.z,
        "standing": asdict(found.standing),
        "drawn": flat(truth) | {"runner": classifier.classes[truth.runner]},
        "follows": entry.effect.follows,
        "metric": entry.metric,
        "proposal": entry.proposal,
        "size": entry.size,
        "f1": f1(of_rows(entry.rows, count), marked),
        "by_rise": {metric: f1(of_rows(line.rows, count), marked) for metric, line in told.items()},
        "best": ceiling,
        "cpu": time.process_time() - began,
    }


def analyses_of(store):
    """The suspect cluster under each metric, chosen without an intervention."""
    from klarsicht.audit.results.ranking import Entry

    paths = store.table("corpus")["path"].to_pylist()
    metrics = store.manifest["settings"]["metric"]
    lines = [line for m in metrics for line in store.table(f"suspects-{m}", f"spray-{m}").to_pylist()]
    return [Entry.from_record(line, paths) for line in lines if line["rows"]]


HEADER = (
    "| seed | marked | rank of carton | rise (95 %) | next output | margin (95 %) | times as probable (control) "
    "| searched alike: rank, effect, largest other "
    "| characters drawn anew: rank, rise, next, margin, times as probable "
    "| cluster | F1 | F1 without intervention / best candidate | CPU s |\n|" + "---|" * 13
)


def row(r: dict) -> str:
    low, high = r["rise"][1:]
    s, d = r["standing"], r["drawn"]
    others = ", ".join(f"{m} {r['by_rise'][m]:.2f}/{r['best'][m]:.2f}" for m in r["best"])
    return (
        f"| {r['seed']} | {r['marked']} of {r['photographs']} | {r['rank']} of {r['outputs']} "
        f"| {r['rise'][0]:+.2f} ({low:+.2f} to {high:+.2f}) | {s['runner']} {r['next']:+.2f} | {margin(s)} "
        f"| {s['uplift']:.3g} ({s['uplift_control']:.3g}) "
        f"| {s['ahead'] + 1}, {s['own']:+.2f}, {s['peer']} {s['peer_effect']:+.2f} "
        f"| {d['rank'] + 1}, {d['shift']:+.2f}, {d['runner']} {d['runner_up']:+.2f}, {margin(d)}, {d['uplift']:.3g} "
        f"| {r['metric']}, {r['proposal']}, {r['size']} | {r['f1']:.2f} | {others} | {r['cpu']:.0f} |"
    )


def margin(of: dict) -> str:
    return f"{of['margin']:+.2f} ({of['margin_low']:+.2f} to {of['margin_high']:+.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--method", default="EpsilonGammaBox")
    parser.add_argument("--keep", type=Path, help="folder where corpora and runs stay; one that was stopped goes on")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    results = []
    with ExitStack() as stack:
        place = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in given.seeds:
            out = place / f"seed-{seed}"
            results.append(one(given.photographs, seed, given.count, given.share, given.method, out))
            print(row(results[-1]), flush=True)
            if given.json:
                given.json.write_text(json.dumps(results, indent=1))
